// Colors of teeth and lining of an open mouth, if clearly visible, as in keras_scnn.texturing.mouth.

import type { Atlas, Constants } from "./atlas";
import { labFromLinear, labOf, lightFromLab, type Triple } from "./color";
import { blur, type Map2, median, quantile } from "./maps";
import { LIGHT, type Photo, type Sight, type WorkingCopy } from "./sight";
import type { ColorModel } from "./skin";

type Point = [number, number];

/** Linear colors under the light at the lips; null if not clearly visible in the photo. */
export interface MouthColors {
  teeth: Triple | null;
  lining: Triple | null;
}

/** Colors between the lips; `posed` is N x (x, y, depth), px of the photo, and `shade` its light. */
export function findMouth(atlas: Atlas, photo: Photo, posed: Float32Array, sight: Sight, shade: Map2, skin: ColorModel): MouthColors {
  const { mouth: rule, skin: skinRule } = atlas.constants;
  const found: MouthColors = { teeth: null, lining: null };
  const pixels = isFrontal(atlas, sight) && isFree(atlas, photo, posed, sight.isBar) ? betweenLips(atlas, sight.copy) : [];
  if (pixels.length < skinRule.LEAST_TEXELS) return found;
  const lips = [...atlas.zones.lips.keys()].filter((at) => atlas.zones.lips[at]);
  const lit = [0, 1, 2].map((k) => median(lips.map((at) => shade[3 * at + k])));
  const lab = pixels.map((levels) => labOf(levels.map((level, k) => LIGHT[level] / lit[k])));
  const teeth = lab.filter((color) => isTooth(atlas.constants, color, 0, skin));
  const dark = Math.min(rule.LINING_L * skin.center[0], rule.DARK_L);
  const lining = lab.filter(([lightness]) => lightness < dark);
  if (teeth.length > Math.max(rule.TEETH_SHARE * lab.length, skinRule.LEAST_TEXELS / 2)) found.teeth = teethColor(rule, teeth);
  if (lining.length > rule.LINING_SHARE * lab.length) {
    found.lining = lightFromLab(medianColor(lining)).map((value) => value / rule.LINING_LIGHT) as Triple;
  }
  return found;
}

/** 0 to 1: texels of the teeth that show teeth, in a photo that shows some. */
export function teethShare(atlas: Atlas, albedo: Map2, seen: Map2, skin: ColorModel): Map2 {
  const { constants, size } = atlas;
  const lab = new Float32Array(3);
  let [all, sum] = [0, 0];
  const share = seen.map((value, at) => {
    if (!value || !atlas.isTeeth(at)) return 0;
    all += value;
    labFromLinear(albedo, 3 * at, lab, 0);
    if (!isTooth(constants, lab, 0, skin)) return 0;
    sum += value;
    return value;
  });
  if (sum < constants.mouth.LEAST_FITTING * all) return share.fill(0);
  const soft = blur(share, size, constants.mouth.BLUR * size);
  return share.map((value, at) => Math.min(2 * soft[at], value));
}

/** A color in L*a*b* that is light, and less red than skin. */
function isTooth({ mouth, skin: rule }: Constants, lab: ArrayLike<number>, at: number, skin: ColorModel): boolean {
  return lab[at] > mouth.TEETH_L * skin.center[0] && lab[at + 1] < skin.center[1] - rule.LEAST_RED;
}

/** Linear color of the teeth that the lips do not shade; null if it is too dark or colorful. */
function teethColor(rule: Constants["mouth"], lab: Triple[]): Triple | null {
  const least = quantile(lab.map(([lightness]) => lightness), rule.LIGHTEST);
  const [lightness, a, b] = medianColor(lab.filter((color) => color[0] >= least));
  if (lightness < rule.DULLEST || Math.hypot(a, b) > rule.TEETH_CHROMA) return null;
  return lightFromLab([Math.min(lightness, rule.WHITEST), a, b]);
}

function medianColor(lab: Triple[]): Triple {
  return [0, 1, 2].map((k) => median(lab.map((color) => color[k]))) as Triple;
}

function isFrontal({ zones, constants }: Atlas, { normals }: Sight): boolean {
  const sum = [0, 0, 0];
  zones.face.forEach((isFace, at) => isFace && sum.forEach((_, k) => (sum[k] += normals[3 * at + k])));
  return sum[2] > constants.mouth.FRONTAL * Math.hypot(...sum);
}

/** Whether the box around the inner lips is inside the photo, without a black bar in it. */
function isFree({ chart }: Atlas, { width, height }: Photo, posed: Float32Array, isBar: Uint8Array): boolean {
  const [[x0, y0], [x1, y1]] = box(pointsOf(posed, chart.lips.inner));
  if (x0 < 0 || y0 < 0 || x1 >= width || y1 >= height) return false;
  for (let y = y0; y <= y1; y++) if (isBar.subarray(y * width + x0, y * width + x1 + 1).includes(1)) return false;
  return true;
}

/** Levels of the pixels in an open mouth; none if it is closed, small or blurred. */
function betweenLips({ chart, constants }: Atlas, copy: WorkingCopy): Triple[] {
  const rule = constants.mouth;
  const [inner, upper, lower] = [chart.lips.inner, chart.lips.upper, chart.lips.lower].map((lip) => pointsOf(copy.posed, lip));
  const gap = upper.reduce((sum, point, i) => sum + apart(point, lower[i]) / upper.length, 0);
  const isOpen = gap > Math.max(rule.LEAST_GAP_PX, rule.LEAST_GAP * apart(inner[0], inner[4]));
  if (!isOpen || edgeWidth(copy, pointsOf(copy.posed, chart.lips.all), rule.EXTREME) > rule.BLURRED * gap) return [];
  const middle = [0, 1].map((k) => inner.reduce((sum, point) => sum + point[k] / inner.length, 0));
  const polygon = inner.map((point) => point.map((value, k) => middle[k] + rule.INNER * (value - middle[k])) as Point);
  const [[x0, y0], [x1, y1]] = box(polygon);
  const pixels: Triple[] = [];
  for (let y = Math.max(y0, 0); y <= Math.min(y1, copy.height - 1); y++) {
    for (let x = Math.max(x0, 0); x <= Math.min(x1, copy.width - 1); x++) {
      const at = 3 * (y * copy.width + x);
      if (isInside(polygon, x, y)) pixels.push([copy.levels[at], copy.levels[at + 1], copy.levels[at + 2]]);
    }
  }
  return pixels;
}

/** Width, px, of the steepest edges from dark to light in the box around points. */
export function edgeWidth({ levels, width, height }: Omit<WorkingCopy, "posed">, points: Point[], extreme: number): number {
  const [[left, top], [right, bottom]] = box(points);
  const [x0, y0, x1, y1] = [Math.max(left, 0), Math.max(top, 0), Math.min(right, width - 1), Math.min(bottom, height - 1)];
  const gray = (x: number, y: number) => {
    const at = 3 * (y * width + x);
    return (levels[at] + levels[at + 1] + levels[at + 2]) / 3;
  };
  /** Like NumPy's gradient: central differences, one-sided at the edge. */
  const slope = (low: number, high: number, at: number, value: (to: number) => number) =>
    (value(Math.min(at + 1, high)) - value(Math.max(at - 1, low))) / (Math.min(at + 1, high) - Math.max(at - 1, low));
  const [grays, slopes]: [number[], number[]] = [[], []];
  for (let y = y0; y <= y1; y++) {
    for (let x = x0; x <= x1; x++) {
      grays.push(gray(x, y));
      slopes.push(Math.hypot(slope(x0, x1, x, (to) => gray(to, y)), slope(y0, y1, y, (to) => gray(x, to))));
    }
  }
  return (quantile(grays, 1 - extreme) - quantile(grays, extreme)) / Math.max(quantile(slopes, 1 - extreme), 1e-6);
}

function isInside(polygon: Point[], x: number, y: number): boolean {
  let inside = false;
  polygon.forEach(([x0, y0], i) => {
    const [x1, y1] = polygon[(i + 1) % polygon.length];
    if (y0 > y !== y1 > y && x < x0 + ((x1 - x0) * (y - y0)) / (y1 - y0)) inside = !inside;
  });
  return inside;
}

function pointsOf(posed: Float32Array, vertices: number[]): Point[] {
  return vertices.map((vertex) => [posed[3 * vertex], posed[3 * vertex + 1]]);
}

/** The pixels at the corners of the box around points. */
function box(points: Point[]): [Point, Point] {
  const [x, y] = [0, 1].map((k) => points.map((point) => point[k]));
  return [
    [Math.floor(Math.min(...x)), Math.floor(Math.min(...y))],
    [Math.ceil(Math.max(...x)), Math.ceil(Math.max(...y))],
  ];
}

function apart([x0, y0]: Point, [x1, y1]: Point): number {
  return Math.hypot(x1 - x0, y1 - y0);
}
