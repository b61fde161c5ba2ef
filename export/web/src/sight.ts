// The photo's color and visibility at each texel of a face, as in keras_scnn.texturing.views.

import type { Atlas } from "./atlas";
import { linearFromSrgb } from "./color";
import { blur, components, dilate, erode, type Map2, maskOf, shrink, square } from "./maps";
import { rasterize, smoothNormals } from "./raster";

export const LIGHT = Float32Array.from({ length: 256 }, (_, value) => linearFromSrgb(value / 255));

/** The part of ImageData's interface that is used. */
export interface Photo {
  data: ArrayLike<number>;
  width: number;
  height: number;
}

export interface Sight {
  /** Linear color in the photo, three numbers per texel; meaningless outside the face. */
  color: Map2;
  /** 0 to 1: how well a texel is visible in the photo; 0 outside the face. */
  seen: Map2;
  /** Of the posed face, y up, z towards the viewer. */
  normals: Map2;
  /** For each pixel of the photo, whether it belongs to a black bar. */
  isBar: Uint8Array;
  copy: WorkingCopy;
}

/** The part of a photo around a face, as red, green and blue levels, and the vertices in its pixels. */
export interface WorkingCopy {
  levels: Map2;
  width: number;
  height: number;
  posed: Float32Array;
}

/** `posed` is N x (x, y, depth), px of the photo. */
export function lookAt(atlas: Atlas, photo: Photo, posed: Float32Array): Sight {
  const { triangles, place: same } = atlas.chart;
  const { GRAZING, FACING, SPECKLE } = atlas.constants.views;
  const { size, region } = atlas;
  const isBar = blackBars(photo, atlas.constants.views.BLACK);
  const place = atlas.at(posed);
  const normals = atlas.at(smoothNormals(posed.map((value, i) => (i % 3 === 1 ? -value : value)), triangles, same));
  const copy = workingCopy(photo, posed, size);
  const isInFront = depthTest(atlas, copy);
  const raw = new Float32Array(size * size);
  for (let at = 0; at < raw.length; at++) {
    if (region[at] === 255) {
      raw[at] = 1; // so that erosion does not remove the rims of eyes and mouth
      continue;
    }
    const n = 3 * at;
    const length = Math.hypot(normals[n], normals[n + 1], normals[n + 2]) + 1e-9;
    for (let k = 0; k < 3; k++) normals[n + k] /= length;
    const [x, y] = [Math.round(place[n]), Math.round(place[n + 1])];
    const isSeen = x >= 0 && y >= 0 && x < photo.width && y < photo.height && !isBar[y * photo.width + x];
    if (isSeen && isInFront(at)) raw[at] = Math.min(Math.max((normals[n + 2] - GRAZING) / (FACING - GRAZING), 0), 1);
  }
  const soft = blur(erode(raw, size, square(SPECKLE.length)), size, 1.5);
  const seen = raw.map((value, at) => {
    if (region[at] === 255) return 0;
    return atlas.isTeeth(at) ? value : Math.min(soft[at], value); // only narrow strips of teeth are visible
  });
  return { color: sample(copy, atlas.at(copy.posed)), seen, normals, isBar, copy };
}

/** The photo around the face, shrunk to at most `side` px. */
function workingCopy(photo: Photo, posed: Float32Array, side: number): WorkingCopy {
  const [low, high] = bounds(posed);
  const x0 = Math.min(Math.max(Math.floor(low[0]) - 2, 0), photo.width - 1);
  const y0 = Math.min(Math.max(Math.floor(low[1]) - 2, 0), photo.height - 1);
  const part = [Math.min(Math.max(Math.ceil(high[0]) + 3, x0 + 1), photo.width) - x0,
    Math.min(Math.max(Math.ceil(high[1]) + 3, y0 + 1), photo.height) - y0];
  const zoom = Math.min(1, side / Math.max(...part));
  const [width, height] = part.map((length) => Math.max(Math.round(length * zoom), 1));
  const cut = new Float32Array(3 * part[0] * part[1]);
  for (let y = 0, to = 0; y < part[1]; y++) {
    for (let x = 0; x < part[0]; x++, to += 3) {
      const from = 4 * ((y + y0) * photo.width + x + x0);
      for (let k = 0; k < 3; k++) cut[to + k] = photo.data[from + k];
    }
  }
  const levels = zoom < 1 ? shrink(cut, part[0], part[1], 3, [width, height]).map(Math.round) : cut;
  const moved = posed.map((value, i) => {
    const at = value - [x0, y0, 0][i % 3];
    return i % 3 === 2 ? at * zoom : (at + 0.5) * zoom - 0.5;
  });
  return { levels, width, height, posed: moved };
}

/** Linear color by bilinear interpolation; edge pixels are repeated outside. */
function sample({ levels, width, height }: WorkingCopy, place: Map2): Map2 {
  const color = new Float32Array(place.length);
  for (let at = 0; at < place.length; at += 3) {
    const x = Math.min(Math.max(place[at], 0), width - 1);
    const y = Math.min(Math.max(place[at + 1], 0), height - 1);
    const [left, top] = [Math.floor(x), Math.floor(y)];
    const [fx, fy] = [x - left, y - top];
    const corner = 3 * (top * width + left);
    const right = left < width - 1 ? 3 : 0;
    const down = top < height - 1 ? 3 * width : 0;
    for (let k = corner; k < corner + 3; k++) {
      const above = LIGHT[levels[k]] * (1 - fx) + LIGHT[levels[k + right]] * fx;
      const below = LIGHT[levels[k + down]] * (1 - fx) + LIGHT[levels[k + down + right]] * fx;
      color[at + k - corner] = above * (1 - fy) + below * fy;
    }
  }
  return color;
}

/** A test whether a texel is not hidden by another part of the face. */
function depthTest(atlas: Atlas, { width, height, posed }: WorkingCopy): (at: number) => boolean {
  const { depth } = rasterize(posed, atlas.chart.triangles, width, height, true);
  const nearest = dilate(depth.map((value) => Math.max(value, -1e6)), width, square(3));
  const [low, high] = bounds(posed);
  const { DEPTH_SLACK, TEETH_SLACK } = atlas.constants.views;
  const place = atlas.at(posed);
  return (at) => {
    const x = Math.min(Math.max(Math.round(place[3 * at]), 0), width - 1);
    const y = Math.min(Math.max(Math.round(place[3 * at + 1]), 0), height - 1);
    const slack = atlas.isTeeth(at) ? TEETH_SLACK : DEPTH_SLACK;
    return place[3 * at + 2] > nearest[y * width + x] - slack * (high[1] - low[1]);
  };
}

/** Black areas that touch the edge of a photo, dilated. */
function blackBars({ data, width, height }: Photo, black: number): Uint8Array {
  const isDark = (at: number) => data[at] <= black && data[at + 1] <= black && data[at + 2] <= black;
  const dark = maskOf(width * height, (at) => isDark(4 * at));
  const { label } = components(dark, width);
  const atEdge = new Set<number>();
  for (let x = 0; x < width; x++) atEdge.add(label[x]).add(label[(height - 1) * width + x]);
  for (let y = 0; y < height; y++) atEdge.add(label[y * width]).add(label[y * width + width - 1]);
  atEdge.delete(0);
  if (!atEdge.size) return new Uint8Array(dark.length);
  const bars = new Float32Array(maskOf(label.length, (at) => atEdge.has(label[at])));
  return new Uint8Array(dilate(bars, width, square(5)));
}

function bounds(points: Float32Array): [number[], number[]] {
  const [low, high] = [[Infinity, Infinity], [-Infinity, -Infinity]];
  for (let i = 0; i < points.length; i += 3) {
    for (const axis of [0, 1]) {
      low[axis] = Math.min(low[axis], points[i + axis]);
      high[axis] = Math.max(high[axis], points[i + axis]);
    }
  }
  return [low, high];
}
