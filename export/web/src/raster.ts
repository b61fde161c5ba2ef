// Rasterization and normals, as in keras_scnn.geometry.rasterizer and keras_scnn.geometry.mesh.

export interface Raster {
  triangle: Int32Array; // -1 where there is none
  weights: Float32Array; // of the triangle's corners
  depth: Float32Array<ArrayBuffer>;
}

/**
 * Nearest triangles at pixel centers; `points` are (x, y, depth, ...), where a larger depth is nearer.
 *
 * `isCulled` leaves out back faces.
 */
export function rasterize(
  points: Float32Array,
  triangles: ArrayLike<number>,
  width: number,
  height: number,
  isCulled = false,
): Raster {
  const count = width * height;
  const result = {
    triangle: new Int32Array(count).fill(-1),
    weights: new Float32Array(3 * count),
    depth: new Float32Array(count).fill(-Infinity),
  };
  for (let t = 0; t < triangles.length / 3; t++) fillTriangle(result, points, triangles, t, width, height, isCulled);
  return result;
}

function fillTriangle(
  out: Raster, points: Float32Array, triangles: ArrayLike<number>, t: number, width: number, height: number, isCulled: boolean,
): void {
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
  if (!area || (isCulled && area > 0)) return; // y points down, so front faces have a negative area
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

/** Vertex attributes, three numbers each, at the pixels of a raster; 0 where there is no triangle. */
export function interpolate(raster: Raster, triangles: ArrayLike<number>, attributes: Float32Array): Float32Array<ArrayBuffer> {
  const result = new Float32Array(raster.weights.length);
  for (let at = 0; at < raster.triangle.length; at++) {
    const t = raster.triangle[at];
    if (t < 0) continue;
    for (let corner = 0; corner < 3; corner++) {
      const from = 3 * triangles[3 * t + corner];
      const weight = raster.weights[3 * at + corner];
      for (let k = 0; k < 3; k++) result[3 * at + k] += weight * attributes[from + k];
    }
  }
  return result;
}

/** Unit normals in a right-handed frame; `place` maps vertices at one position to one of them. */
export function smoothNormals(points: Float32Array, triangles: ArrayLike<number>, place: ArrayLike<number>): Float32Array<ArrayBuffer> {
  const sums = new Float64Array(points.length);
  for (let t = 0; t < triangles.length; t += 3) {
    const [a, b, c] = [3 * triangles[t], 3 * triangles[t + 1], 3 * triangles[t + 2]];
    const [ux, uy, uz] = [points[b] - points[a], points[b + 1] - points[a + 1], points[b + 2] - points[a + 2]];
    const [vx, vy, vz] = [points[c] - points[a], points[c + 1] - points[a + 1], points[c + 2] - points[a + 2]];
    for (let corner = 0; corner < 3; corner++) {
      const at = 3 * place[triangles[t + corner]];
      sums[at] += uy * vz - uz * vy;
      sums[at + 1] += uz * vx - ux * vz;
      sums[at + 2] += ux * vy - uy * vx;
    }
  }
  const normals = new Float32Array(points.length);
  for (let i = 0; i < place.length; i++) {
    const at = 3 * place[i];
    const length = Math.hypot(sums[at], sums[at + 1], sums[at + 2]);
    for (let k = 0; k < 3; k++) normals[3 * i + k] = length ? sums[at + k] / length : Number(k === 2);
  }
  return normals;
}
