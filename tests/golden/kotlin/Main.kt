// Runs examples/Face.kt on a PPM; networks are run by the process whose command follows the files.
import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import keras.scnn.Network
import keras.scnn.Photo
import keras.scnn.Reconstructor
import keras.scnn.toObj
import org.json.JSONArray
import org.json.JSONObject

fun floats(bytes: ByteArray) = ByteBuffer.wrap(bytes).asFloatBuffer().let { FloatArray(it.remaining()).also(it::get) }

fun main(words: Array<String>) {
    val (folder, ppm, obj) = words
    val runtime = ProcessBuilder(words.drop(3) + folder).redirectError(ProcessBuilder.Redirect.INHERIT).start()
    val (output, input) = Pair(DataOutputStream(runtime.outputStream), DataInputStream(runtime.inputStream))
    fun open(name: String) = Network { values ->
        output.writeUTF(name)
        output.writeInt(values.size)
        output.write(ByteBuffer.allocate(4 * values.size).also { it.asFloatBuffer().put(values) }.array())
        output.flush()
        (0 until input.readInt()).associate { input.readUTF() to floats(ByteArray(input.readInt()).also(input::readFully)) }
    }
    val bytes = File(ppm).readBytes()
    val (_, width, height) = Regex("P6\\s(\\d+)\\s(\\d+)\\s255\\s").find(String(bytes.copyOf(40), Charsets.ISO_8859_1))!!.groupValues
    val photo = Photo(width.toInt(), height.toInt(), bytes.copyOfRange(bytes.size - 3 * width.toInt() * height.toInt(), bytes.size))
    val bundle = JSONObject(File("$folder/bundle.json").readText())
    val face = Reconstructor(bundle, open("detector"), open("check"), open("network")).reconstruct(photo)!!
    output.close()
    val numbers = ByteBuffer.wrap(File("$folder/triangles.bin").readBytes()).order(ByteOrder.LITTLE_ENDIAN).asIntBuffer()
    File(obj).writeText(toObj(face, IntArray(numbers.remaining()).also(numbers::get)))
    fun rows(all: List<DoubleArray>) = JSONArray(all.map { JSONArray(it.toList()) })
    println(JSONObject(mapOf("landmarks" to rows(face.landmarks), "pose" to rows(face.pose), "blendshapes" to JSONObject(face.blendshapes))))
}
