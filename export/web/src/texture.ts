// A photo on the face model's texture map: the plain core of keras_scnn.texturing.
//
// What the photo shows is taken, then the other side's, then the skin's middle color. Left out of
// what Python does: the light stays in, shares are blended without Poisson's equation, eyes and mouth
// are the photo's, and hair within the face stays. All of that takes a second, and a camera has 30
// frames in it; `keras-scnn reconstruct` makes the better texture of the same photo.

// Cosines to the viewer between which a surface fades in: within the face, whose lids and lips have
// rims that turn away and are seen all the same, and beside it, where hair and background are near.
const INNER_FADE = [-0.3, 0.3];
const OUTER_FADE = [0.5, 0.9];
const BALL = 2; // of ``inner``: eyeballs and mouth
const DEPTH_SLACK = 0.03; // of the face's height: what is so little behind counts as seen
const DEPTH_SIDE = 256; // px of the longer side of the depth map
const NEAR = 2; // median absolute deviations up to which a color beside the face is skin
const FAR = 3.5; // from which on it is not
const LEAST_SPREAD = 8; // levels
const GUTTER = 3; // texels about the charts, so that no edge shows another color

/** The texture map, as export/demo.py writes it. */
export interface Chart {
  triangles: number[];
  /** N x (u, v), v up, alike on both sides of u = 0.5. */
  uv: number[];
  /** N, 1 where the face surely is: before the ears, below the scalp; 2 for eyeballs and mouth; -1 for ears. */
  inner: number[];
}

interface Raster {
  triangle: Int32Array; // -1 where nothing is
  weights: Float32Array; // of the triangle's corners
  depth: Float32Array;
}

/** Nearest triangles at pixel centers; `points` are (x, y, depth, ...), larger depth is nearer. */
export function rasterize(points: Float32Array, triangles: number[], width: number, height: number): Raster {
  const count = width * height;
  const result = {
    triangle: new Int32Array(count).fill(-1),
    weights: new Float32Array(3 * count),
    depth: new Float32Array(count).fill(-Infinity),
  };
  for (let t = 0; t < triangles.length / 3; t++) fillTriangle(result, points, triangles, t, width, height);
  return result;
}

function fillTriangle(out: Raster, points: Float32Array, triangles: number[], t: number, width: number, height: number) {
  const a = 3 * triangles[3 * t];
  const b = 3 * triangles[3 * t + 1];
  const c = 3 * triangles[3 * t + 2];
  const ax = points[a];
  const ay = points[a + 1];
  const bx = points[b];
  const by = points[b + 1];
  const cx = points[c];
  const cy = points[c + 1];
  const area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay);
  if (!area) return;
  const x0 = Math.max(Math.ceil(Math.min(ax, bx, cx)), 0);
  const x1 = Math.min(Math.max(ax, bx, cx), width - 1);
  const y0 = Math.max(Math.ceil(Math.min(ay, by, cy)), 0);
  const y1 = Math.min(Math.max(ay, by, cy), height - 1);
  for (let y = y0; y <= y1; y++) {
    for (let x = x0; x <= x1; x++) {
      const second = ((x - ax) * (cy - ay) - (cx - ax) * (y - ay)) / area;
      const third = ((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / area;
      const first = 1 - second - third;
      if (first < 0 || second < 0 || third < 0) continue;
      const at = y * width + x;
      const depth = first * points[a + 2] + second * points[b + 2] + third * points[c + 2];
      if (depth <= out.depth[at]) continue;
      out.depth[at] = depth;
      out.triangle[at] = t;
      out.weights[3 * at] = first;
      out.weights[3 * at + 1] = second;
      out.weights[3 * at + 2] = third;
    }
  }
}

export class Painter {
  private readonly texels: Raster;
  private readonly distance: Uint8Array; // steps from the charts, up to GUTTER; 255 beyond

  constructor(
    private readonly chart: Chart,
    readonly size: number,
  ) {
    const flat = new Float32Array((3 * chart.uv.length) / 2);
    for (let i = 0; i < chart.uv.length / 2; i++) {
      flat[3 * i] = chart.uv[2 * i] * size - 0.5;
      flat[3 * i + 1] = (1 - chart.uv[2 * i + 1]) * size - 0.5;
    }
    this.texels = rasterize(flat, chart.triangles, size, size);
    this.distance = steps(this.texels.triangle, size);
  }

  /** RGBA of the map, first row at v = 1; `posed` is N x (x, y, depth), px of the photo. */
  paint(posed: Float32Array, photo: ImageData): Uint8ClampedArray<ArrayBuffer> {
    const { color, share, inner } = this.look(posed, photo);
    const plain = channelMedians(color, share, inner);
    const spread = channelMedians(color, share, inner, plain);
    for (let at = 0; at < share.length; at++) {
      let away = 0;
      for (let k = 0; k < 3; k++) {
        away = Math.max(away, Math.abs(color[3 * at + k] - plain[k]) / Math.max(spread[k], LEAST_SPREAD));
      }
      const skin = Math.min(Math.max((FAR - away) / (FAR - NEAR), 0), 1);
      share[at] *= Math.max(Math.min(inner[at], 1), skin);
    }
    return this.blend(color, share, plain);
  }

  /** At each texel the photo's color, how well it is seen, and how surely it is of the face. */
  private look(posed: Float32Array, photo: ImageData) {
    const count = this.size ** 2;
    const [color, share, inner] = [new Float32Array(3 * count), new Float32Array(count), new Float32Array(count)];
    const facing = facings(posed, this.chart.triangles);
    const isInFront = depthTest(posed, this.chart.triangles);
    for (let at = 0; at < count; at++) {
      const t = this.texels.triangle[at];
      if (t < 0) continue;
      let x = 0;
      let y = 0;
      let z = 0;
      let cosine = 0;
      for (let corner = 0; corner < 3; corner++) {
        const vertex = this.chart.triangles[3 * t + corner];
        const weight = this.texels.weights[3 * at + corner];
        x += weight * posed[3 * vertex];
        y += weight * posed[3 * vertex + 1];
        z += weight * posed[3 * vertex + 2];
        cosine += weight * facing[vertex];
        inner[at] += weight * this.chart.inner[vertex];
      }
      if (!(x >= 0 && y >= 0 && x <= photo.width - 1 && y <= photo.height - 1)) continue;
      if (inner[at] < 0) continue; // ears, which hair hides more often than not
      if (inner[at] > BALL - 0.01) share[at] = 1;
      else if (isInFront(x, y, z)) share[at] = faded(cosine, Math.min(inner[at], 1));
      if (share[at]) bilinear(photo, x, y, color, 3 * at);
    }
    return { color, share, inner };
  }

  private blend(color: Float32Array, share: Float32Array, plain: number[]): Uint8ClampedArray<ArrayBuffer> {
    const [size, pixels] = [this.size, new Uint8ClampedArray(4 * this.size ** 2)];
    for (let at = 0; at < share.length; at++) {
      const other = at - (at % size) + (size - 1 - (at % size));
      for (let k = 0; k < 3; k++) {
        const behind = plain[k] + share[other] * (color[3 * other + k] - plain[k]);
        pixels[4 * at + k] = behind + share[at] * (color[3 * at + k] - behind);
      }
      pixels[4 * at + 3] = 255;
    }
    for (let round = 0; round < GUTTER; round++) this.widen(pixels, round);
    return pixels;
  }

  /** Give texels beside the charts their neighbor's color; `round` of these are done. */
  private widen(pixels: Uint8ClampedArray, round: number): void {
    const { size } = this;
    const isDone = (x: number, y: number) =>
      x >= 0 && y >= 0 && x < size && y < size && this.distance[y * size + x] <= round;
    for (let at = 0; at < this.distance.length; at++) {
      if (this.distance[at] !== round + 1) continue;
      const [x, y] = [at % size, Math.floor(at / size)];
      const [nx, ny] = NEIGHBORS.map(([dx, dy]) => [x + dx, y + dy]).find(([i, j]) => isDone(i, j))!;
      pixels.copyWithin(4 * at, 4 * (ny * size + nx), 4 * (ny * size + nx) + 4);
    }
  }
}

function faded(cosine: number, inner: number): number {
  const low = OUTER_FADE[0] + inner * (INNER_FADE[0] - OUTER_FADE[0]);
  const high = OUTER_FADE[1] + inner * (INNER_FADE[1] - OUTER_FADE[1]);
  return Math.min(Math.max((cosine - low) / (high - low), 0), 1);
}

const NEIGHBORS = [[-1, 0], [1, 0], [0, -1], [0, 1]];

function steps(triangle: Int32Array, size: number): Uint8Array {
  const distance = Uint8Array.from(triangle, (t) => (t < 0 ? 255 : 0));
  for (let round = 0; round < GUTTER; round++) {
    for (let at = 0; at < distance.length; at++) {
      if (distance[at] !== 255) continue;
      const [x, y] = [at % size, Math.floor(at / size)];
      const isNext = NEIGHBORS.some(([dx, dy]) => {
        const [i, j] = [x + dx, y + dy];
        return i >= 0 && j >= 0 && i < size && j < size && distance[j * size + i] === round;
      });
      if (isNext) distance[at] = round + 1;
    }
  }
  return distance;
}

/** Cosines to the viewer of the vertices' normals. */
function facings(posed: Float32Array, triangles: number[]): Float32Array {
  const normals = new Float32Array(posed.length);
  for (let t = 0; t < triangles.length; t += 3) {
    const a = 3 * triangles[t];
    const b = 3 * triangles[t + 1];
    const c = 3 * triangles[t + 2];
    const [ux, uy, uz] = [posed[b] - posed[a], posed[b + 1] - posed[a + 1], posed[b + 2] - posed[a + 2]];
    const [vx, vy, vz] = [posed[c] - posed[a], posed[c + 1] - posed[a + 1], posed[c + 2] - posed[a + 2]];
    for (let corner = 0; corner < 3; corner++) {
      const at = 3 * triangles[t + corner];
      // y points down in the photo, so that the turn is the other way round.
      normals[at] += vy * uz - vz * uy;
      normals[at + 1] += vz * ux - vx * uz;
      normals[at + 2] += vx * uy - vy * ux;
    }
  }
  const cosines = new Float32Array(posed.length / 3);
  for (let i = 0; i < cosines.length; i++) {
    const length = Math.hypot(normals[3 * i], normals[3 * i + 1], normals[3 * i + 2]);
    cosines[i] = normals[3 * i + 2] / (length || 1);
  }
  return cosines;
}

/** Whether a place of the photo is not behind another part of the face. */
function depthTest(posed: Float32Array, triangles: number[]): (x: number, y: number, z: number) => boolean {
  const low = [Infinity, Infinity];
  const high = [-Infinity, -Infinity];
  for (let i = 0; i < posed.length; i++) {
    if (i % 3 === 2) continue;
    low[i % 3] = Math.min(low[i % 3], posed[i]);
    high[i % 3] = Math.max(high[i % 3], posed[i]);
  }
  const zoom = (DEPTH_SIDE - 3) / Math.max(high[0] - low[0], high[1] - low[1]);
  const moved = posed.map((value, i) => (i % 3 === 2 ? value : (value - low[i % 3]) * zoom + 1));
  const { depth } = rasterize(moved, triangles, DEPTH_SIDE, DEPTH_SIDE);
  const slack = DEPTH_SLACK * (high[1] - low[1]);
  return (x, y, z) => {
    const column = Math.round((x - low[0]) * zoom + 1);
    const row = Math.round((y - low[1]) * zoom + 1);
    return z > depth[row * DEPTH_SIDE + column] - slack;
  };
}

function bilinear({ data, width, height }: ImageData, x: number, y: number, out: Float32Array, to: number): void {
  const left = Math.max(Math.min(Math.floor(x), width - 2), 0);
  const top = Math.max(Math.min(Math.floor(y), height - 2), 0);
  const fx = x - left;
  const fy = y - top;
  const corner = 4 * (top * width + left);
  for (let k = 0; k < 3; k++) {
    const above = data[corner + k] * (1 - fx) + data[corner + k + 4] * fx;
    const below = data[corner + k + 4 * width] * (1 - fx) + data[corner + k + 4 * width + 4] * fx;
    out[to + k] = above * (1 - fy) + below * fy;
  }
}

/** Medians of red, green and blue of the well seen face, or of their absolute deviation from `center`. */
function channelMedians(color: Float32Array, share: Float32Array, inner: Float32Array, center?: number[]): number[] {
  const counts = [0, 1, 2].map(() => new Int32Array(256));
  let total = 0;
  for (let at = 0; at < share.length; at++) {
    if (share[at] < 0.9 || inner[at] < 0.9 || inner[at] > 1.1) continue;
    total++;
    for (let k = 0; k < 3; k++) counts[k][Math.round(Math.abs(color[3 * at + k] - (center?.[k] ?? 0)))]++;
  }
  return counts.map((histogram) => {
    let below = 0;
    return total ? histogram.findIndex((count) => (below += count) >= total / 2) : 128;
  });
}
