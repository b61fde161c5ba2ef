// A photo to named blendshapes and a mesh, with a bundle of `keras-scnn export PRESET --to bundle`.
// All numbers are read from bundle.json. Kotlin with org.json, which Android includes; FaceAndroid.kt
// runs the networks there. This file is compiled and run by the tests.
package keras.scnn

import kotlin.math.abs
import kotlin.math.atan2
import kotlin.math.ceil
import kotlin.math.cos
import kotlin.math.exp
import kotlin.math.floor
import kotlin.math.hypot
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round
import kotlin.math.sin
import org.json.JSONArray
import org.json.JSONObject

/** A .tflite file with one input: from its values, 0 to 255 or in the range of `input`, to outputs by name. */
fun interface Network { fun run(input: FloatArray): Map<String, FloatArray> }

/** Three bytes per pixel, row by row from the top. */
class Photo(val width: Int, val height: Int, val rgb: ByteArray) {
    val longer get() = max(width, height)
    operator fun get(at: Int) = rgb[at].toInt() and 255
}

/** A square: center in box coordinates (pixel edges at integers), side, clockwise angle in radians; [across] is -1 for a mirrored crop, otherwise 1. */
data class Box(val x: Double, val y: Double, val side: Double, val angle: Double = 0.0, val across: Int = 1)

/** Landmarks and pose (photo from model) in px of the photo, vertices in mm. */
class Face(
    val box: Box, val landmarks: List<DoubleArray>, val pose: List<DoubleArray>,
    val blendshapes: Map<String, Float>, val vertices: List<DoubleArray>,
)

class Found(val x: Double, val y: Double, val width: Double, val height: Double, val score: Double, val points: List<DoubleArray>)

class Reconstructor(private val bundle: JSONObject, private val detector: Network, private val check: Network, private val network: Network) {
    private val crop = bundle.getJSONObject("crop")

    /** The largest face; null if none is found. */
    fun reconstruct(photo: Photo): Face? {
        val box = Finder(bundle, detector, check, photo).largest() ?: return null
        if (crop.getInt("passes") < 2) return look(photo, box)
        val rule = crop.getJSONObject("second_pass")
        val most = rule.getDouble("max_resize")
        val first = look(photo, box.copy(across = if (rule.optBoolean("mirrored_first")) -1 else 1))
        val ratio = squareAround(first.landmarks, 0.0).side / box.side
        if (ratio >= most || ratio <= 1 / most) return look(photo, box)
        return look(photo, squareAround(first.landmarks, atan2(first.pose[0][1], -first.pose[1][1])))
    }

    private fun look(photo: Photo, box: Box): Face {
        val size = crop.getInt("size")
        val outputs = network.run(cut(photo, box, size))
        val (scale, cos, sin) = Triple(box.side / size, cos(box.angle), sin(box.angle))
        fun toPhoto(p: DoubleArray, isPoint: Int = 1): DoubleArray {
            val (u, v) = listOf(p[0], p[1]).map { scale * (it + isPoint * (0.5 - size / 2.0)) }
            val (x, y) = Pair(box.across * u, v)
            return doubleArrayOf(isPoint * (box.x - 0.5) + cos * x - sin * y, isPoint * (box.y - 0.5) + sin * x + cos * y, scale * p[2])
        }
        val parameters = outputs.getValue("parameters")
        val columns = (0..3).map { c -> toPhoto(DoubleArray(3) { parameters[4 * it + c].toDouble() }, if (c == 3) 1 else 0) }
        val about = bundle.getJSONObject("network").getJSONObject("parameters")
        val names = about.getJSONArray("expression")
        val start = about.getJSONObject("slices").getJSONArray("expression").getInt(0)
        val vertices = bundle.getJSONObject("mesh").getJSONObject("vertices").getString("output")
        return Face(
            box, triples(outputs.getValue("landmarks")).map { toPhoto(it) },
            (0..2).map { row -> DoubleArray(4) { columns[it][row] } },
            (0 until names.length()).associate { names.getString(it) to parameters[start + it] },
            triples(outputs.getValue(vertices)),
        )
    }
}

/** Searches one photo for its largest face: see `search` and `check` in bundle.json. */
class Finder(bundle: JSONObject, private val detector: Network, private val check: Network, private val photo: Photo) {
    private val crop = bundle.getJSONObject("crop")
    private val rule = bundle.getJSONObject("detector")
    private val search = rule.getJSONObject("search")
    private val checking = bundle.getJSONObject("check")
    private val size = rule.getJSONObject("input").getJSONArray("shape").getInt(0)
    private val sameFace = rule.getJSONObject("nms").getDouble("same_face_iou")
    private val minTurn = crop.getDouble("min_turn")
    private val quarters = search.getJSONArray("quarters").doubles()
    private val halves = halved(photo, search.getInt("halve_from") * size)
    private val anchors = rule.getJSONObject("anchors").getJSONArray("layers").objects().flatMap { layer ->
        val stride = layer.getInt("stride")
        val copies = layer.getInt("per_cell")
        val cells = size / stride
        List(cells * cells * copies) { doubleArrayOf((it / copies % cells + 0.5) * stride, (it / copies / cells + 0.5) * stride) }
    }

    fun largest(): Box? = faces().map { face ->
        val (side, angle) = Pair((face.width + face.height) / 2, turnOf(face.points))
        val down = crop.getDouble("detector_shift") * side
        Box(face.x - down * sin(angle), face.y + down * cos(angle), crop.getDouble("detector_scale") * side, angle)
    }.maxByOrNull { it.side }

    private fun faces(): List<Found> {
        val candidates = around(1.0, 0.0)
        val whole = suppress(candidates)
        if (isClear(whole)) return whole
        val found = confirmed(candidates, 0.0, search.getDouble("min_score"))
        for (isSure in listOf(true, false)) { // if no face is confirmed, use unconfirmed ones
            val faces = checked(found, isSure).ifEmpty {
                quarters.map { checked(confirmed(around(1.0, it), it, search.getDouble("turned_min_score")), isSure) }
                    .maxByOrNull { it.firstOrNull()?.score ?: 0.0 }!!
            }
            if (faces.isNotEmpty()) return faces
        }
        return emptyList()
    }

    private fun isClear(whole: List<Found>): Boolean {
        val face = whole.singleOrNull() ?: return false
        val (low, high) = search.getJSONArray("clear_share").doubles()
        return face.score >= search.getDouble("clear_score") && face.width / photo.longer in low..high &&
            upright(face) === face && isFace(face)
    }

    private fun around(zoom: Double, angle: Double) =
        detect(Box(photo.width / 2.0, photo.height / 2.0, zoom * photo.longer, angle), isWhole = true)

    private fun again(face: Found, angle: Double, zoom: Double = search.getDouble("second_look")) =
        suppress(detect(Box(face.x, face.y, zoom * max(face.width, face.height), angle))).firstOrNull { overlap(face, it) > sameFace }

    private fun confirmed(found: List<Found>, angle: Double, least: Double) =
        suppress(found + around(search.getDouble("margin"), angle)).mapNotNull { candidate ->
            again(candidate, angle)?.takeIf { it.score >= least } ?: candidate.takeIf { it.score >= least }
        }

    private fun upright(face: Found): Found {
        if (face.score >= search.getDouble("sure_score")) return face
        var (best, least) = Pair(face, face.score + search.getDouble("turn_margin"))
        for (angle in quarters) {
            val seen = again(face, angle) ?: continue
            if (seen.score > least && turnOf(seen.points) != 0.0) { best = seen; least = seen.score }
        }
        return best
    }

    private fun isFace(face: Found): Boolean {
        if (face.score >= search.getDouble("sure_score")) return true
        val (left, right) = face.points
        val side = checking.getDouble("crop_scale") * max(face.width, face.height)
        val input = checking.getJSONObject("input")
        val box = Box(face.x, face.y, side, atan2(right[1] - left[1], right[0] - left[0]))
        val outputs = check.run(scaled(cut(photo, box, input.getJSONArray("shape").getInt(0)), input))
        if (sigmoid(outputs.getValue(checking.getString("score"))[0]) >= checking.getDouble("min_score")) return true
        val afar = again(face, turnOf(face.points), checking.getDouble("afar"))
        return afar != null && afar.score >= checking.getDouble("min_afar_score")
    }

    private fun checked(found: List<Found>, isSure: Boolean): List<Found> {
        val share = rule.getJSONObject("nms").getDouble("nested_share")
        val faces = found.map(::upright).filter { !isSure || isFace(it) }.sortedByDescending { it.score }
        return faces.fold(emptyList()) { kept, face ->
            val isNested = kept.any { shared(face, it) > share * min(face.width * face.height, it.width * it.height) }
            if (isNested) kept else kept + face
        }
    }

    private fun detect(box: Box, isWhole: Boolean = false): List<Found> {
        val (source, factor) = if (isWhole) halves else Pair(photo, 1)
        val seen = cut(source, Box(box.x / factor, box.y / factor, box.side / factor, box.angle), size)
        val outputs = detector.run(scaled(seen, rule.getJSONObject("input")))
        val (logits, numbers) = listOf("classificators", "regressors").map { outputs.getValue(it) }
        val (cos, sin, zoom) = Triple(cos(box.angle), sin(box.angle), box.side / size)
        val least = rule.getJSONObject("decode").getDouble("candidate_score")
        return anchors.indices.filter { sigmoid(logits[it]) >= least }.map { i ->
            fun place(k: Int): DoubleArray {
                val (u, v) = (0..1).map { (anchors[i][it] + numbers[16 * i + k + it] - size / 2.0) * zoom }
                return doubleArrayOf(box.x + cos * u - sin * v, box.y + sin * u + cos * v)
            }
            val (x, y) = place(0)
            Found(x, y, numbers[16 * i + 2] * zoom, numbers[16 * i + 3] * zoom, sigmoid(logits[i]), (4 until 16 step 2).map(::place))
        }
    }

    /** Weighted non-maximum suppression: one box per face, highest score first. */
    private fun suppress(found: List<Found>): List<Found> {
        var left = found.sortedByDescending { it.score }
        val faces = mutableListOf<Found>()
        while (left.isNotEmpty()) {
            val best = left[0]
            val (same, others) = left.partition { it === best || overlap(best, it) > sameFace }
            val total = same.sumOf { it.score }
            fun mean(value: (Found) -> Double) = same.sumOf { it.score / total * value(it) }
            val points = best.points.indices.map { i -> DoubleArray(2) { axis -> mean { it.points[i][axis] } } }
            faces += Found(mean { it.x }, mean { it.y }, mean { it.width }, mean { it.height }, best.score, points)
            left = others
        }
        return faces
    }

    /** Clockwise angle, radians, of a head on its side or upside down, otherwise 0. */
    private fun turnOf(points: List<DoubleArray>): Double {
        val (left, right, _, mouth) = points
        val angle = atan2((left[0] + right[0]) / 2 - mouth[0], mouth[1] - (left[1] + right[1]) / 2)
        return if (abs(angle) >= minTurn) angle else 0.0
    }
}

private fun sigmoid(logit: Float) = 1 / (1 + exp(-logit.toDouble()))

private fun scaled(values: FloatArray, input: JSONObject): FloatArray {
    val (multiply, add) = listOf("multiply", "add").map { input.getDouble(it) }
    return FloatArray(values.size) { (values[it] * multiply + add).toFloat() }
}

private fun along(x: Double, width: Double, other: Double, length: Double) =
    max(0.0, min(x + width / 2, other + length / 2) - max(x - width / 2, other - length / 2))

private fun shared(a: Found, b: Found) = along(a.x, a.width, b.x, b.width) * along(a.y, a.height, b.y, b.height)

private fun overlap(a: Found, b: Found): Double =
    shared(a, b) / max(a.width * a.height + b.width * b.height - shared(a, b), 1e-12)

private fun JSONArray.doubles() = List(length()) { getDouble(it) }
private fun JSONArray.objects() = List(length()) { getJSONObject(it) }
private fun triples(numbers: FloatArray) = List(numbers.size / 3) { i -> DoubleArray(3) { numbers[3 * i + it].toDouble() } }

/** The square around points (px), with their bounding box's diagonal as its side, rotated by `angle`. */
fun squareAround(points: List<DoubleArray>, angle: Double): Box {
    val (cos, sin) = Pair(cos(angle), sin(angle))
    val us = points.map { (x, y) -> cos * x + sin * y }
    val vs = points.map { (x, y) -> cos * y - sin * x }
    val (u, v) = Pair((us.min() + us.max()) / 2, (vs.min() + vs.max()) / 2)
    return Box(cos * u - sin * v + 0.5, sin * u + cos * v + 0.5, hypot(us.max() - us.min(), vs.max() - vs.min()), angle)
}

/** A rotated square of a photo as size x size x 3 numbers, 0 to 255; see `text` of bundle.json's crop. */
fun cut(photo: Photo, box: Box, size: Int): FloatArray {
    val block = max(1, round(box.side / size).toInt()) // half to even
    val (cos, sin) = Pair(cos(box.angle), sin(box.angle))
    val reach = box.side * (abs(cos) + abs(sin)) / 2
    fun range(center: Double, limit: Int): Pair<Int, Int> {
        val low = (floor(center - reach).toInt() - 2 * block).coerceIn(0, limit - 1)
        return Pair(low, (ceil(center + reach).toInt() + 2 * block).coerceIn(low + 1, limit))
    }
    val (left, right) = range(box.x, photo.width)
    val (top, bottom) = range(box.y, photo.height)
    val (columns, lines) = Pair((right - left + block - 1) / block, (bottom - top + block - 1) / block)
    val means = IntArray(columns * lines * 3) { at ->
        var sum = 0
        for (j in 0 until block) for (i in 0 until block) {
            val x = min(left + at / 3 % columns * block + i, right - 1)
            sum += photo[3 * (min(top + at / 3 / columns * block + j, bottom - 1) * photo.width + x) + at % 3]
        }
        val mean = sum.toDouble() / (block * block)
        (if (block == 2) floor(mean + 0.5) else round(mean)).toInt()
    }
    fun read(column: Int, line: Int, channel: Int) =
        if (column in 0 until columns && line in 0 until lines) means[3 * (line * columns + column) + channel] else 0
    return FloatArray(size * size * 3) { at ->
        val (u, v) = listOf(at / 3 % size, at / 3 / size).map { ((it + 0.5) / size - 0.5) * box.side }
        val (dx, dy) = Pair(box.across * u, v)
        val px = (box.x + cos * dx - sin * dy - left) / block - 0.5
        val py = (box.y + sin * dx + cos * dy - top) / block - 0.5
        val (column, line) = Pair(floor(px).toInt(), floor(py).toInt())
        val (a, b) = Pair(px - column, py - line)
        val (upper, lower) = listOf(line, line + 1).map { read(column, it, at % 3) * (1 - a) + read(column + 1, it, at % 3) * a }
        round(upper * (1 - b) + lower * b).toFloat()
    }
}

/** The photo halved until it is below `limit` px or a side is odd, and the factor 1, 2, 4, ... */
fun halved(photo: Photo, limit: Int): Pair<Photo, Int> {
    var (half, factor) = Pair(photo, 1)
    while (half.longer >= limit && half.width % 2 == 0 && half.height % 2 == 0) {
        val (from, width, row) = Triple(half, half.width / 2, 3 * half.width)
        val rgb = ByteArray(3 * width * (half.height / 2)) { at ->
            val first = 2 * (at / 3 / width) * row + 6 * (at / 3 % width) + at % 3
            ((from[first] + from[first + 3] + from[first + row] + from[first + row + 3] + 2) / 4).toByte()
        }
        half = Photo(width, half.height / 2, rgb)
        factor *= 2
    }
    return Pair(half, factor)
}

/** Wavefront OBJ of a face; `triangles` are the indices in the bundle's file. */
fun toObj(face: Face, triangles: IntArray): String = buildString {
    for ((x, y, z) in face.vertices) append("v $x $y $z\n")
    for (i in triangles.indices step 3) append("f ${triangles[i] + 1} ${triangles[i + 1] + 1} ${triangles[i + 2] + 1}\n")
}
