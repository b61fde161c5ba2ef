// A photo to named blendshapes and a mesh, with a bundle of `keras-scnn export PRESET --to bundle`.
// For browser and Node.js; all numbers are read from bundle.json. With Node.js 20 and @litertjs/core:
//
//     node face.mjs BUNDLE photo.ppm face.obj > face.json
//
// In a browser: reconstruct(bundle, await openNetworks(bundle, ...), imageData); see README.md.

/** From {width, height, data} in RGBA, such as ImageData, to a face, or null if none is found. */
export async function reconstruct(bundle, networks, photo) {
  const box = await findFace(bundle, networks, photo);
  if (!box) return null;
  if (bundle.crop.passes < 2) return look(bundle, networks.network, photo, box);
  const { mirrored_first, max_resize } = bundle.crop.second_pass;
  const first = await look(bundle, networks.network, photo, { ...box, across: mirrored_first ? -1 : 1 });
  const ratio = squareAround(first.landmarks, 0).side / box.side;
  if (ratio >= max_resize || ratio <= 1 / max_resize) return look(bundle, networks.network, photo, box);
  const angle = Math.atan2(first.pose[0][1], -first.pose[1][1]); // of the head, clockwise
  return look(bundle, networks.network, photo, squareAround(first.landmarks, angle));
}

/** Run the network on a crop; landmarks and pose are in px of the photo, vertices in mm. */
async function look(bundle, network, photo, box) {
  const { size } = bundle.crop;
  const outputs = await network(cut(photo, box, size));
  const [scale, cos, sin] = [box.side / size, Math.cos(box.angle), Math.sin(box.angle)];
  const toPhoto = ([u, v, depth], isPoint = 1) => {
    const x = (box.across ?? 1) * scale * (u + isPoint * (0.5 - size / 2));
    const y = scale * (v + isPoint * (0.5 - size / 2));
    const center = [box.x, box.y].map((value) => isPoint * (value - 0.5));
    return [center[0] + cos * x - sin * y, center[1] + sin * x + cos * y, scale * depth];
  };
  const columns = [0, 1, 2, 3].map((column) => [0, 1, 2].map((row) => outputs.parameters[4 * row + column]));
  const moved = columns.map((column, i) => toPhoto(column, i === 3 ? 1 : 0));
  const { slices, expression } = bundle.network.parameters;
  const weights = outputs.parameters.slice(...slices.expression);
  return {
    box,
    landmarks: rows(outputs.landmarks, 3).map((point) => toPhoto(point)),
    pose: [0, 1, 2].map((row) => moved.map((column) => column[row])),
    blendshapes: Object.fromEntries(expression.map((name, i) => [name, weights[i]])),
    vertices: rows(outputs[bundle.mesh.vertices.output], 3),
  };
}

/** The largest face's crop: a square of `side` px around x, y (box coordinates), rotated by `angle`. */
async function findFace(bundle, networks, photo) {
  const { search, nms, decode, input, anchors } = bundle.detector;
  const { check } = bundle;
  const minTurn = bundle.crop.min_turn;
  const [size] = input.shape;
  const centers = anchors.layers.flatMap(({ stride, per_cell }) => {
    const cells = size / stride;
    return Array.from({ length: cells * cells * per_cell }, (_, i) => Math.floor(i / per_cell)).map((i) => [
      ((i % cells) + 0.5) * stride,
      (Math.floor(i / cells) + 0.5) * stride,
    ]);
  });

  const [small, factor] = halved(photo, search.halve_from * size);
  const detect = async (box, isWhole = false) => {
    const scaled = isWhole ? { ...box, x: box.x / factor, y: box.y / factor, side: box.side / factor } : box;
    const pixels = Float32Array.from(cut(isWhole ? small : photo, scaled, size), (value) => value * input.multiply + input.add);
    const outputs = await networks.detector(pixels);
    const [cos, sin, zoom] = [Math.cos(box.angle), Math.sin(box.angle), box.side / size];
    const found = [];
    centers.forEach((anchor, i) => {
      const score = 1 / (1 + Math.exp(-outputs.classificators[i]));
      if (score < decode.candidate_score) return;
      const numbers = rows(outputs.regressors.subarray(16 * i, 16 * i + 16), 2);
      const place = ([x, y]) => {
        const [u, v] = [anchor[0] + x - size / 2, anchor[1] + y - size / 2].map((value) => value * zoom);
        return [box.x + cos * u - sin * v, box.y + sin * u + cos * v];
      };
      const [width, height] = numbers[1].map((value) => value * zoom);
      const [x, y] = place(numbers[0]);
      found.push({ x, y, width, height, score, points: numbers.slice(2).map(place) });
    });
    return found;
  };
  const around = (zoom, angle) =>
    detect({ x: photo.width / 2, y: photo.height / 2, side: zoom * Math.max(photo.width, photo.height), angle }, true);
  const again = async (face, angle, zoom = search.second_look) => {
    const side = zoom * Math.max(face.width, face.height);
    const seen = suppress(await detect({ x: face.x, y: face.y, side, angle }), nms.same_face_iou);
    return seen.find((other) => overlap(face, other) > nms.same_face_iou);
  };
  const confirmed = async (candidates, angle, least) => {
    const faces = [];
    for (const candidate of suppress(candidates, nms.same_face_iou)) {
      const seen = await again(candidate, angle);
      if (seen?.score >= least) faces.push(seen);
      else if (candidate.score >= least) faces.push(candidate);
    }
    return faces;
  };
  const upright = async (face) => {
    let best = face;
    if (face.score >= search.sure_score) return best;
    for (const angle of search.quarters) {
      const seen = await again(face, angle);
      const least = best === face ? face.score + search.turn_margin : best.score;
      if (seen?.score > least && turnOf(seen.points, minTurn)) best = seen;
    }
    return best;
  };
  const isFace = async (face) => {
    if (face.score >= search.sure_score) return true;
    const [size] = check.input.shape;
    const [[leftX, leftY], [rightX, rightY]] = face.points;
    const side = check.crop_scale * Math.max(face.width, face.height);
    const crop = cut(photo, { x: face.x, y: face.y, side, angle: Math.atan2(rightY - leftY, rightX - leftX) }, size);
    const outputs = await networks.check(Float32Array.from(crop, (value) => value * check.input.multiply + check.input.add));
    if (1 / (1 + Math.exp(-outputs[check.score][0])) >= check.min_score) return true;
    return (await again(face, turnOf(face.points, minTurn), check.afar))?.score >= check.min_afar_score;
  };
  const checked = async (candidates, isSure) => {
    const faces = [];
    for (const candidate of candidates) {
      const face = await upright(candidate);
      if (await isSure(face)) faces.push(face);
    }
    return withoutNested(faces, nms.nested_share);
  };

  const candidates = await around(1, 0);
  const whole = suppress(candidates, nms.same_face_iou);
  const share = whole.length === 1 && whole[0].width / Math.max(photo.width, photo.height);
  const isClear = share && whole[0].score >= search.clear_score && share >= search.clear_share[0] && share <= search.clear_share[1];
  const largest = (faces) => faces.map((face) => standardCrop(face, bundle.crop)).sort((a, b) => b.side - a.side)[0];
  if (isClear && (await upright(whole[0])) === whole[0] && (await isFace(whole[0]))) return largest(whole);
  const found = await confirmed([...candidates, ...(await around(search.margin, 0))], 0, search.min_score);
  for (const isSure of [isFace, async () => true]) { // if no face is confirmed, use unconfirmed ones
    let faces = await checked(found, isSure);
    for (const angle of faces.length ? [] : search.quarters) {
      const seen = [...(await around(1, angle)), ...(await around(search.margin, angle))];
      const turned = await checked(await confirmed(seen, angle, search.turned_min_score), isSure);
      if (turned.length && turned[0].score > (faces[0]?.score ?? 0)) faces = turned;
    }
    if (faces.length) return largest(faces);
  }
  return null;
}

/** The network's crop for a detection. */
export function standardCrop({ x, y, width, height, points }, crop) {
  const [side, angle] = [(width + height) / 2, turnOf(points, crop.min_turn)];
  const down = crop.detector_shift * side;
  return { x: x - down * Math.sin(angle), y: y + down * Math.cos(angle), side: crop.detector_scale * side, angle };
}

/** Clockwise angle, radians, of a head on its side or upside down, otherwise 0. */
function turnOf([left, right, , mouth], minTurn) {
  const angle = Math.atan2((left[0] + right[0]) / 2 - mouth[0], mouth[1] - (left[1] + right[1]) / 2);
  return Math.abs(angle) >= minTurn ? angle : 0;
}

/** Weighted non-maximum suppression: one box per face, highest score first. */
export function suppress(found, sameFace) {
  let left = [...found].sort((a, b) => b.score - a.score);
  const faces = [];
  while (left.length) {
    const [best] = left;
    const same = left.filter((other) => other === best || overlap(best, other) > sameFace);
    const total = same.reduce((sum, other) => sum + other.score, 0);
    const mean = (value) => same.reduce((sum, other) => sum + (other.score / total) * value(other), 0);
    const [x, y, width, height] = ["x", "y", "width", "height"].map((key) => mean((other) => other[key]));
    const points = best.points.map((_, i) => [0, 1].map((axis) => mean((other) => other.points[i][axis])));
    faces.push({ x, y, width, height, score: best.score, points });
    left = left.filter((other) => !same.includes(other));
  }
  return faces;
}

/** Keep the highest-scoring of nested faces; sorted by score. */
function withoutNested(faces, nestedShare) {
  const kept = [];
  for (const face of faces.sort((a, b) => b.score - a.score)) {
    const isNested = (other) =>
      shared(face, other) > nestedShare * Math.min(face.width * face.height, other.width * other.height);
    if (!kept.some(isNested)) kept.push(face);
  }
  return kept;
}

function shared(a, b) {
  const along = (at, size) =>
    Math.min(a[at] + a[size] / 2, b[at] + b[size] / 2) - Math.max(a[at] - a[size] / 2, b[at] - b[size] / 2);
  return Math.max(0, along("x", "width")) * Math.max(0, along("y", "height"));
}

function overlap(a, b) {
  const both = shared(a, b);
  return both / Math.max(a.width * a.height + b.width * b.height - both, 1e-12);
}

/** The square around points (px), with their bounding box's diagonal as its side, rotated by `angle`. */
export function squareAround(points, angle) {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const upright = points.map(([x, y]) => [cos * x + sin * y, cos * y - sin * x]);
  const ends = [0, 1].map((axis) => upright.map((point) => point[axis])).map((all) => [Math.min(...all), Math.max(...all)]);
  const [u, v] = ends.map(([low, high]) => (low + high) / 2);
  const side = Math.hypot(...ends.map(([low, high]) => high - low));
  return { x: cos * u - sin * v + 0.5, y: sin * u + cos * v + 0.5, side, angle };
}

/** The photo halved until it is below `limit` px or a side is odd, and the factor 1, 2, 4, ... */
function halved(photo, limit) {
  let factor = 1;
  while (Math.max(photo.width, photo.height) >= limit && photo.width % 2 === 0 && photo.height % 2 === 0) {
    const [width, height, from] = [photo.width / 2, photo.height / 2, photo];
    const data = new Uint8ClampedArray(4 * width * height);
    for (let at = 0; at < data.length; at++) {
      const [channel, x, y] = [at % 4, Math.floor(at / 4) % width, Math.floor(at / 4 / width)];
      const first = 4 * (2 * y * from.width + 2 * x) + channel;
      const sum = [0, 4, 4 * from.width, 4 * from.width + 4].reduce((total, step) => total + from.data[first + step], 0);
      data[at] = Math.floor(sum / 4 + 0.5);
    }
    [photo, factor] = [{ width, height, data }, 2 * factor];
  }
  return [photo, factor];
}

/**
 * A rotated square of a photo as size x size x 3 numbers, 0 to 255; see `text` of bundle.json's crop.
 * `across` is -1 for a mirrored crop, otherwise 1.
 */
export function cut(photo, { x, y, side, angle, across = 1 }, size) {
  const block = Math.max(1, toEven(side / size));
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const reach = (side * (Math.abs(cos) + Math.abs(sin))) / 2;
  const range = (center, limit) => {
    const low = clamp(Math.floor(center - reach) - 2 * block, 0, limit - 1);
    return [low, clamp(Math.ceil(center + reach) + 2 * block, low + 1, limit)];
  };
  const [[left, right], [top, bottom]] = [range(x, photo.width), range(y, photo.height)];
  const [columns, lines] = [Math.ceil((right - left) / block), Math.ceil((bottom - top) / block)];
  const means = new Uint8Array(columns * lines * 3);
  for (let at = 0; at < means.length; at++) {
    const [channel, column, line] = [at % 3, Math.floor(at / 3) % columns, Math.floor(at / 3 / columns)];
    let sum = 0;
    for (let j = 0; j < block; j++) {
      const row = Math.min(top + line * block + j, bottom - 1) * photo.width;
      for (let i = 0; i < block; i++)
        sum += photo.data[4 * (row + Math.min(left + column * block + i, right - 1)) + channel];
    }
    const mean = sum / block ** 2;
    means[at] = block === 2 ? Math.floor(mean + 0.5) : toEven(mean);
  }
  const read = (column, line, channel) =>
    column < 0 || line < 0 || column >= columns || line >= lines ? 0 : means[3 * (line * columns + column) + channel];
  const crop = new Uint8Array(size * size * 3);
  for (let at = 0; at < crop.length; at++) {
    const [channel, u, v] = [at % 3, Math.floor(at / 3) % size, Math.floor(at / 3 / size)];
    const [dx, dy] = [across * ((u + 0.5) / size - 0.5) * side, ((v + 0.5) / size - 0.5) * side];
    const px = (x + cos * dx - sin * dy - left) / block - 0.5;
    const py = (y + sin * dx + cos * dy - top) / block - 0.5;
    const [column, line] = [Math.floor(px), Math.floor(py)];
    const [a, b] = [px - column, py - line];
    const upper = read(column, line, channel) * (1 - a) + read(column + 1, line, channel) * a;
    const lower = read(column, line + 1, channel) * (1 - a) + read(column + 1, line + 1, channel) * a;
    crop[at] = toEven(upper * (1 - b) + lower * b);
  }
  return crop;
}

function toEven(value) {
  const low = Math.floor(value);
  return value - low === 0.5 ? low + (low % 2) : Math.round(value);
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

function rows(numbers, length) {
  return Array.from({ length: numbers.length / length }, (_, i) => Array.from(numbers.slice(length * i, length * (i + 1))));
}

/** Wavefront OBJ of a face; `triangles` are the indices in the bundle's file. */
export function toObj(face, triangles) {
  const vertices = face.vertices.map((vertex) => `v ${vertex.join(" ")}\n`);
  return vertices.join("") + rows(triangles, 3).map((corners) => `f ${corners.map((i) => i + 1).join(" ")}\n`).join("");
}

/** Functions that run the three networks; `read(file)` returns a Promise of a bundle file's bytes. */
export async function openNetworks(bundle, litert, read) {
  const open = async ({ file, input }) => {
    const model = await litert.loadAndCompile(await read(file), { accelerator: "wasm" });
    return async (values) => {
      const tensor = new litert.Tensor(values, [1, ...input.shape]);
      const outputs = await Promise.resolve(model.run({ [input.name]: tensor })).finally(() => tensor.delete());
      const taken = Object.entries(outputs).map(([name, output]) => [name, output.toTypedArray().slice(), output.delete()]);
      return Object.fromEntries(taken);
    };
  };
  return { detector: await open(bundle.detector), check: await open(bundle.check), network: await open(bundle.network) };
}

/** Node.js: LiteRT's script needs global names of browsers; its log is written to standard error. */
async function startNode(wasm) {
  const [vm, { readFileSync }, { createRequire }] = await Promise.all(["node:vm", "node:fs", "node:module"].map((name) => import(name)));
  console.log = console.error;
  Object.assign(globalThis, { self: globalThis, require: createRequire(import.meta.url), __dirname: wasm });
  globalThis.navigator ??= {};
  globalThis.importScripts = (path) => vm.runInThisContext(readFileSync(path, "utf8"), { filename: path });
  const litert = await import("@litertjs/core");
  await litert.loadLiteRt(wasm);
  return litert;
}

/** A binary PPM (P6) with 8 bits per channel, as RGBA. */
function readPpm(bytes, name) {
  const [header, width, height] = /^P6\s+(?:#.*\n\s*)*(\d+)\s+(\d+)\s+255\s/.exec(bytes.subarray(0, 999).toString("latin1")) ?? [];
  if (!header || bytes.length - header.length < 3 * width * height) throw Error(`${name}: not a binary PPM (P6) with 8 bits, or truncated`);
  const data = new Uint8ClampedArray(4 * width * height);
  for (let i = 0; i < width * height; i++) data.set(bytes.subarray(header.length + 3 * i, header.length + 3 * i + 3), 4 * i);
  return { width: Number(width), height: Number(height), data };
}

async function main([folder, photo, obj, more]) {
  if (!obj || more) throw Error("usage: node face.mjs BUNDLE photo.ppm face.obj");
  const [{ readFileSync, writeFileSync }, { fileURLToPath }] = await Promise.all([import("node:fs"), import("node:url")]);
  const bundle = JSON.parse(readFileSync(`${folder}/bundle.json`, "utf8"));
  const wasm = fileURLToPath(new URL("../wasm/", import.meta.resolve("@litertjs/core")));
  const read = async (file) => {
    const bytes = readFileSync(`${folder}/${file}`);
    if (bytes.length !== bundle.files[file]?.bytes) throw Error(`${folder}/${file}: its size differs from bundle.json`);
    return bytes;
  };
  const triangles = new Uint8Array(await read(bundle.mesh.triangles.file)).buffer;
  const networks = await openNetworks(bundle, await startNode(wasm), read);
  const face = await reconstruct(bundle, networks, readPpm(readFileSync(photo), photo));
  if (!face) throw Error(`${photo}: no face found`);
  writeFileSync(obj, toObj(face, new Uint32Array(triangles)));
  process.stdout.write(JSON.stringify({ ...face, vertices: undefined }) + "\n");
}

if (globalThis.process?.argv[1] && decodeURI(import.meta.url).endsWith(process.argv[1].split("/").at(-1))) {
  main(process.argv.slice(2)).then(() => process.exit(0), (error) => {
    console.error(`error: ${error.message}`);
    process.exit(1);
  });
}
