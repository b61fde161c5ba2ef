// NOT COMPILED by the tests, which have no Android SDK. Face.kt, which it calls, is compiled and run.
//
// Android, LiteRT 2's CompiledModel: implementation("com.google.ai.edge.litert:litert:2.1.0"), the
// bundle's files in assets/face/, and androidResources { noCompress += "tflite" }.
package keras.scnn

import android.content.Context
import android.graphics.Bitmap
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import java.nio.ByteBuffer
import java.nio.ByteOrder
import org.json.JSONObject

/** Finds a photo's largest face; use it from only one thread at a time, and close it after use. */
class FaceFinder(private val context: Context, private val folder: String = "face") : AutoCloseable {
    private val bundle = JSONObject(read("bundle.json").decodeToString())
    private val models = mutableListOf<CompiledModel>()
    private val reconstructor = Reconstructor(bundle, open("detector"), open("check"), open("network"))

    /** Vertex indices of the mesh's triangles, three each. */
    val triangles: IntArray = bundle.getJSONObject("mesh").getJSONObject("triangles").getString("file").let { file ->
        val numbers = ByteBuffer.wrap(read(file)).order(ByteOrder.LITTLE_ENDIAN).asIntBuffer()
        IntArray(numbers.remaining()).also(numbers::get)
    }

    /** The face in an upright ARGB_8888 [bitmap]; null if none is found. */
    fun find(bitmap: Bitmap): Face? {
        val pixels = IntArray(bitmap.width * bitmap.height)
        bitmap.getPixels(pixels, 0, bitmap.width, 0, 0, bitmap.width, bitmap.height)
        val rgb = ByteArray(3 * pixels.size) { (pixels[it / 3] shr (16 - 8 * (it % 3))).toByte() }
        return reconstructor.reconstruct(Photo(bitmap.width, bitmap.height, rgb))
    }

    private fun read(file: String) = context.assets.open("$folder/$file").use { it.readBytes() }

    private fun open(name: String): Network {
        val about = bundle.getJSONObject(name)
        val options = CompiledModel.Options(Accelerator.CPU)
        val model = CompiledModel.create(context.assets, "$folder/${about.getString("file")}", options)
        models += model
        val signature = about.optString("signature").ifEmpty { null }
        val isBytes = about.getJSONObject("input").getString("dtype") == "uint8"
        val names = about.optJSONObject("outputs")?.keys()?.asSequence()?.toList() ?: listOf(about.getString("score"))
        val input = mapOf(about.getJSONObject("input").getString("name").let { it to model.createInputBuffer(it, signature) })
        // All outputs of a signature need a buffer, but only one output of the confirming network is named in bundle.json.
        if ("outputs" !in about) return byPlace(model, names.single())
        val outputs = names.associateWith { model.createOutputBuffer(it, signature) }
        return Network { values ->
            if (isBytes) input.values.single().writeInt8(ByteArray(values.size) { values[it].toInt().toByte() })
            else input.values.single().writeFloat(values)
            model.run(input, outputs, signature)
            outputs.mapValues { it.value.readFloat() }
        }
    }

    /** A network with only one used output: the one of length 1. */
    private fun byPlace(model: CompiledModel, name: String): Network {
        val (inputs, outputs) = Pair(model.createInputBuffers(), model.createOutputBuffers())
        return Network { values ->
            inputs.single().writeFloat(values)
            model.run(inputs, outputs)
            mapOf(name to outputs.map { it.readFloat() }.single { it.size == 1 })
        }
    }

    private operator fun JSONObject.contains(key: String) = has(key)

    override fun close() = models.forEach { it.close() }
}
