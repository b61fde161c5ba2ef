// NOT COMPILED by the tests, which have no Swift. It was written to match Face.kt, which is run.
//
// A photo to named blendshapes and a mesh, with a bundle of `keras-scnn export PRESET --to bundle`
// in the app's resources. All numbers are read from bundle.json. Pod TensorFlowLiteSwift (signatures
// and named outputs); photos are RGB bytes, row by row from the top, upright.
import Foundation
import TensorFlowLite

typealias JSON = [String: Any]
typealias Point = SIMD3<Double>

struct Photo { let width: Int, height: Int; let rgb: [UInt8]; var longer: Int { max(width, height) } }
/// A square: center in box coordinates (pixel edges at integers), side, clockwise angle in radians; `across` is -1 for a mirrored crop, otherwise 1.
struct Box { var x: Double, y: Double, side: Double, angle = 0.0, across = 1.0 }
struct Found { var x = 0.0, y = 0.0, width = 0.0, height = 0.0, score = 0.0, points: [Point] = [] }
/// Landmarks and pose (photo from model, three rows of four) in px of the photo, vertices in mm.
struct Face { let box: Box, landmarks: [Point], pose: [[Double]], blendshapes: [String: Float], vertices: [Point] }

extension Dictionary where Key == String, Value == Any {
    func object(_ key: String) -> JSON { self[key] as! JSON }
    func number(_ key: String) -> Double { (self[key] as! NSNumber).doubleValue }
    func numbers(_ key: String) -> [Double] { (self[key] as! [NSNumber]).map(\.doubleValue) }
    func text(_ key: String) -> String { self[key] as! String }
}

/// A .tflite file with one input; float outputs by name.
final class Network {
    private let interpreter: Interpreter, runner: SignatureRunner?, about: JSON

    init(_ folder: URL, _ about: JSON) throws {
        self.about = about
        interpreter = try Interpreter(modelPath: folder.appendingPathComponent(about.text("file")).path)
        runner = try (about["signature"] as? String).map { try interpreter.signatureRunner(with: $0) }
        try runner?.allocateTensors() ?? interpreter.allocateTensors()
    }

    func run(_ crop: [UInt8]) throws -> [String: [Float]] {
        let input = about.object("input")
        var data = Data(crop)
        if input.text("dtype") == "float32" {
            let values = crop.map { Float(Double($0) * input.number("multiply") + input.number("add")) }
            data = values.withUnsafeBytes { Data($0) }
        }
        func floats(_ tensor: Tensor) -> [Float] { tensor.data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) } }
        if let runner = runner {
            try runner.invoke(with: [input.text("name"): data])
            return try Dictionary(uniqueKeysWithValues: runner.outputs.map { ($0, floats(try runner.output(named: $0))) })
        }
        try interpreter.copy(data, toInputAt: 0)
        try interpreter.invoke()
        let tensors = try (0..<interpreter.outputTensorCount).map { try interpreter.output(at: $0) }
        return Dictionary(uniqueKeysWithValues: tensors.map { ($0.name, floats($0)) })
    }
}

final class Reconstructor {
    private let bundle: JSON, detector: Network, check: Network, network: Network
    let triangles: [UInt32]  // three each, from 0

    init(folder: URL) throws {
        let content = try Data(contentsOf: folder.appendingPathComponent("bundle.json"))
        bundle = try JSONSerialization.jsonObject(with: content) as! JSON
        detector = try Network(folder, bundle.object("detector"))
        check = try Network(folder, bundle.object("check"))
        network = try Network(folder, bundle.object("network"))
        let file = bundle.object("mesh").object("triangles").text("file")
        triangles = try Data(contentsOf: folder.appendingPathComponent(file)).withUnsafeBytes { Array($0.bindMemory(to: UInt32.self)) }
    }

    /// The largest face; nil if none is found.
    func reconstruct(_ photo: Photo) throws -> Face? {
        guard let box = try Finder(bundle, detector, check, photo).largest() else { return nil }
        let crop = bundle.object("crop")
        if crop.number("passes") < 2 { return try look(photo, box) }
        let rule = crop.object("second_pass"), most = rule.number("max_resize")
        var mirrored = box
        mirrored.across = rule["mirrored_first"] as? Bool == true ? -1 : 1
        let first = try look(photo, mirrored)
        let ratio = squareAround(first.landmarks, 0).side / box.side
        if ratio >= most || ratio <= 1 / most { return try look(photo, box) }
        return try look(photo, squareAround(first.landmarks, atan2(first.pose[0][1], -first.pose[1][1])))
    }

    private func look(_ photo: Photo, _ box: Box) throws -> Face {
        let size = Int(bundle.object("crop").number("size")), about = bundle.object("network").object("parameters")
        let outputs = try network.run(cut(photo, box, size)), parameters = outputs["parameters"]!
        let scale = box.side / Double(size), c = cos(box.angle), s = sin(box.angle)
        func toPhoto(_ p: Point, _ isPoint: Double = 1) -> Point {
            let x = box.across * scale * (p.x + isPoint * (0.5 - Double(size) / 2)), y = scale * (p.y + isPoint * (0.5 - Double(size) / 2))
            return Point(isPoint * (box.x - 0.5) + c * x - s * y, isPoint * (box.y - 0.5) + s * x + c * y, scale * p.z)
        }
        let columns = (0..<4).map { k in
            toPhoto(Point(Double(parameters[k]), Double(parameters[4 + k]), Double(parameters[8 + k])), k == 3 ? 1 : 0)
        }
        let names = about["expression"] as! [String], start = Int(about.object("slices").numbers("expression")[0])
        return Face(
            box: box, landmarks: triples(outputs["landmarks"]!).map { toPhoto($0) },
            pose: (0..<3).map { row in columns.map { $0[row] } },
            blendshapes: Dictionary(uniqueKeysWithValues: names.enumerated().map { ($1, parameters[start + $0]) }),
            vertices: triples(outputs[bundle.object("mesh").object("vertices").text("output")]!))
    }
}

/// Searches one photo for its largest face: see `search` and `check` in bundle.json.
final class Finder {
    private let rule: JSON, crop: JSON, search: JSON, checking: JSON, detector: Network, check: Network, photo: Photo
    private let size: Int, small: Photo, factor: Double, anchors: [(x: Double, y: Double)]

    init(_ bundle: JSON, _ detector: Network, _ check: Network, _ photo: Photo) {
        (rule, crop, checking) = (bundle.object("detector"), bundle.object("crop"), bundle.object("check"))
        (self.detector, self.check, self.photo, search) = (detector, check, photo, rule.object("search"))
        let size = Int(rule.object("input").numbers("shape")[0])
        self.size = size
        (small, factor) = halved(photo, Int(search.number("halve_from")) * size)
        anchors = (rule.object("anchors")["layers"] as! [JSON]).flatMap { layer -> [(x: Double, y: Double)] in
            let stride = layer.number("stride"), copies = Int(layer.number("per_cell")), cells = size / Int(stride)
            return (0..<cells * cells * copies).map {
                ((Double($0 / copies % cells) + 0.5) * stride, (Double($0 / copies / cells) + 0.5) * stride)
            }
        }
    }

    func largest() throws -> Box? {
        try faces().map { face -> Box in
            let side = (face.width + face.height) / 2, angle = turn(face.points), down = crop.number("detector_shift") * side
            return Box(x: face.x - down * sin(angle), y: face.y + down * cos(angle), side: crop.number("detector_scale") * side, angle: angle)
        }.max { $0.side < $1.side }
    }

    private func faces() throws -> [Found] {
        let candidates = try around(1, 0), whole = suppress(candidates)
        if try isClear(whole) { return whole }
        let found = try confirmed(candidates, 0, search.number("min_score"))
        for isSure in [true, false] {  // if no face is confirmed, use unconfirmed ones
            var faces = try checked(found, isSure)
            for angle in faces.isEmpty ? search.numbers("quarters") : [] {
                let turned = try checked(confirmed(around(1, angle), angle, search.number("turned_min_score")), isSure)
                if let best = turned.first, best.score > faces.first?.score ?? 0 { faces = turned }
            }
            if !faces.isEmpty { return faces }
        }
        return []
    }

    private func isClear(_ whole: [Found]) throws -> Bool {
        guard whole.count == 1, whole[0].score >= search.number("clear_score") else { return false }
        let range = search.numbers("clear_share"), share = whole[0].width / Double(photo.longer)
        return try share >= range[0] && share <= range[1] && upright(whole[0]).score == whole[0].score && isFace(whole[0])
    }

    private func around(_ zoom: Double, _ angle: Double) throws -> [Found] {
        let box = Box(x: Double(photo.width) / 2, y: Double(photo.height) / 2, side: zoom * Double(photo.longer), angle: angle)
        return try detect(box, isWhole: true)
    }

    private func again(_ face: Found, _ angle: Double, _ zoom: Double? = nil) throws -> Found? {
        let side = (zoom ?? search.number("second_look")) * max(face.width, face.height)
        let seen = suppress(try detect(Box(x: face.x, y: face.y, side: side, angle: angle), isWhole: false))
        return seen.first { overlap(face, $0) > rule.object("nms").number("same_face_iou") }
    }

    private func confirmed(_ found: [Found], _ angle: Double, _ least: Double) throws -> [Found] {
        try suppress(found + around(search.number("margin"), angle)).compactMap { candidate in
            if let seen = try again(candidate, angle), seen.score >= least { return seen }
            return candidate.score >= least ? candidate : nil
        }
    }

    private func upright(_ face: Found) throws -> Found {
        if face.score >= search.number("sure_score") { return face }
        var best = face, least = face.score + search.number("turn_margin")
        for angle in search.numbers("quarters") {
            if let seen = try again(face, angle), seen.score > least, turn(seen.points) != 0 { (best, least) = (seen, seen.score) }
        }
        return best
    }

    private func isFace(_ face: Found) throws -> Bool {
        if face.score >= search.number("sure_score") { return true }
        let between = face.points[1] - face.points[0], side = checking.number("crop_scale") * max(face.width, face.height)
        let box = Box(x: face.x, y: face.y, side: side, angle: atan2(between.y, between.x))
        let outputs = try check.run(cut(photo, box, Int(checking.object("input").numbers("shape")[0])))
        if sigmoid(outputs[checking.text("score")]![0]) >= checking.number("min_score") { return true }
        return try again(face, turn(face.points), checking.number("afar"))?.score ?? 0 >= checking.number("min_afar_score")
    }

    private func checked(_ found: [Found], _ isSure: Bool) throws -> [Found] {
        let share = rule.object("nms").number("nested_share")
        let faces = try found.map(upright).filter { try !isSure || isFace($0) }.sorted { $0.score > $1.score }
        return faces.reduce(into: [Found]()) { kept, face in
            let isNested = kept.contains { shared(face, $0) > share * min(face.width * face.height, $0.width * $0.height) }
            if !isNested { kept.append(face) }
        }
    }

    private func detect(_ box: Box, isWhole: Bool) throws -> [Found] {
        let factor = isWhole ? self.factor : 1
        let scaled = Box(x: box.x / factor, y: box.y / factor, side: box.side / factor, angle: box.angle)
        let outputs = try detector.run(cut(isWhole ? small : photo, scaled, size))
        let logits = outputs["classificators"]!, numbers = outputs["regressors"]!
        let c = cos(box.angle), s = sin(box.angle), zoom = box.side / Double(size)
        let least = rule.object("decode").number("candidate_score")
        return anchors.indices.filter { sigmoid(logits[$0]) >= least }.map { i in
            func place(_ k: Int) -> Point {
                let u = (anchors[i].x + Double(numbers[16 * i + k]) - Double(size) / 2) * zoom
                let v = (anchors[i].y + Double(numbers[16 * i + k + 1]) - Double(size) / 2) * zoom
                return Point(box.x + c * u - s * v, box.y + s * u + c * v, 0)
            }
            let center = place(0)
            return Found(x: center.x, y: center.y, width: Double(numbers[16 * i + 2]) * zoom, height: Double(numbers[16 * i + 3]) * zoom,
                         score: sigmoid(logits[i]), points: stride(from: 4, to: 16, by: 2).map(place))
        }
    }

    /// Weighted non-maximum suppression: one box per face, highest score first.
    private func suppress(_ found: [Found]) -> [Found] {
        var left = found.sorted { $0.score > $1.score }, faces: [Found] = []
        while let best = left.first {
            let isSame = left.indices.map { $0 == 0 || overlap(best, left[$0]) > rule.object("nms").number("same_face_iou") }
            let same = left.indices.filter { isSame[$0] }.map { left[$0] }, total = same.reduce(0) { $0 + $1.score }
            var mean = Found(score: best.score, points: best.points.map { _ in Point() })
            for each in same {
                let weight = each.score / total
                mean.x += weight * each.x; mean.y += weight * each.y
                mean.width += weight * each.width; mean.height += weight * each.height
                for i in each.points.indices { mean.points[i] += weight * each.points[i] }
            }
            faces.append(mean)
            left = left.indices.filter { !isSame[$0] }.map { left[$0] }
        }
        return faces
    }

    /// Clockwise angle, radians, of a head on its side or upside down, otherwise 0.
    private func turn(_ points: [Point]) -> Double {
        let down = points[3] - (points[0] + points[1]) / 2, angle = atan2(-down.x, down.y)
        return abs(angle) >= crop.number("min_turn") ? angle : 0
    }
}

private func sigmoid(_ logit: Float) -> Double { 1 / (1 + exp(-Double(logit))) }

private func shared(_ a: Found, _ b: Found) -> Double {
    func along(_ x: Double, _ width: Double, _ other: Double, _ length: Double) -> Double {
        max(0, min(x + width / 2, other + length / 2) - max(x - width / 2, other - length / 2))
    }
    return along(a.x, a.width, b.x, b.width) * along(a.y, a.height, b.y, b.height)
}

private func overlap(_ a: Found, _ b: Found) -> Double {
    shared(a, b) / max(a.width * a.height + b.width * b.height - shared(a, b), 1e-12)
}

private func triples(_ numbers: [Float]) -> [Point] {
    stride(from: 0, to: numbers.count, by: 3).map { Point(Double(numbers[$0]), Double(numbers[$0 + 1]), Double(numbers[$0 + 2])) }
}

/// The square around points (px), with their bounding box's diagonal as its side, rotated by `angle`.
func squareAround(_ points: [Point], _ angle: Double) -> Box {
    let c = cos(angle), s = sin(angle)
    let us = points.map { c * $0.x + s * $0.y }, vs = points.map { c * $0.y - s * $0.x }
    let u = (us.min()! + us.max()!) / 2, v = (vs.min()! + vs.max()!) / 2
    return Box(x: c * u - s * v + 0.5, y: s * u + c * v + 0.5, side: hypot(us.max()! - us.min()!, vs.max()! - vs.min()!), angle: angle)
}

/// A rotated square of a photo as size x size x 3 numbers, 0 to 255; see `text` of bundle.json's crop.
func cut(_ photo: Photo, _ box: Box, _ size: Int) -> [UInt8] {
    let block = max(1, Int((box.side / Double(size)).rounded(.toNearestOrEven)))
    let c = cos(box.angle), s = sin(box.angle), reach = box.side * (abs(c) + abs(s)) / 2
    func range(_ center: Double, _ limit: Int) -> (Int, Int) {
        let low = min(max(Int(floor(center - reach)) - 2 * block, 0), limit - 1)
        return (low, min(max(Int(ceil(center + reach)) + 2 * block, low + 1), limit))
    }
    let (left, right) = range(box.x, photo.width), (top, bottom) = range(box.y, photo.height)
    let columns = (right - left + block - 1) / block, lines = (bottom - top + block - 1) / block
    let means = (0..<columns * lines * 3).map { at -> Double in
        var sum = 0
        for j in 0..<block {
            let row = min(top + at / 3 / columns * block + j, bottom - 1) * photo.width
            for i in 0..<block { sum += Int(photo.rgb[3 * (row + min(left + at / 3 % columns * block + i, right - 1)) + at % 3]) }
        }
        let mean = Double(sum) / Double(block * block)
        return block == 2 ? floor(mean + 0.5) : mean.rounded(.toNearestOrEven)
    }
    func read(_ column: Int, _ line: Int, _ channel: Int) -> Double {
        (0..<columns).contains(column) && (0..<lines).contains(line) ? means[3 * (line * columns + column) + channel] : 0
    }
    return (0..<size * size * 3).map { at in
        let dx = box.across * ((Double(at / 3 % size) + 0.5) / Double(size) - 0.5) * box.side
        let dy = ((Double(at / 3 / size) + 0.5) / Double(size) - 0.5) * box.side
        let px = (box.x + c * dx - s * dy - Double(left)) / Double(block) - 0.5
        let py = (box.y + s * dx + c * dy - Double(top)) / Double(block) - 0.5
        let column = Int(floor(px)), line = Int(floor(py)), a = px - floor(px), b = py - floor(py)
        func across(_ line: Int) -> Double { read(column, line, at % 3) * (1 - a) + read(column + 1, line, at % 3) * a }
        return UInt8((across(line) * (1 - b) + across(line + 1) * b).rounded(.toNearestOrEven))
    }
}

/// The photo halved until it is below `limit` px or a side is odd, and the factor 1, 2, 4, ...
func halved(_ photo: Photo, _ limit: Int) -> (Photo, Double) {
    guard photo.longer >= limit, photo.width % 2 == 0, photo.height % 2 == 0 else { return (photo, 1) }
    let width = photo.width / 2, row = 3 * photo.width
    let rgb = (0..<3 * width * (photo.height / 2)).map { at -> UInt8 in
        let first = 2 * (at / 3 / width) * row + 6 * (at / 3 % width) + at % 3
        return UInt8([0, 3, row, row + 3].reduce(2) { $0 + Int(photo.rgb[first + $1]) } / 4)
    }
    let (small, factor) = halved(Photo(width: width, height: photo.height / 2, rgb: rgb), limit)
    return (small, 2 * factor)
}

/// Wavefront OBJ of a face.
func obj(_ face: Face, _ triangles: [UInt32]) -> String {
    let vertices = face.vertices.map { "v \($0.x) \($0.y) \($0.z)\n" }
    let corners = stride(from: 0, to: triangles.count, by: 3).map { "f \(triangles[$0] + 1) \(triangles[$0 + 1] + 1) \(triangles[$0 + 2] + 1)\n" }
    return (vertices + corners).joined()
}
