// The colors of a person's eyes, and painting of eyeballs, as in keras_scnn.texturing.eyes.

import type { Atlas, EyeChart } from "./atlas";
import { labFromLinear, labOf, lightFromLab, linearFromSrgb, type Triple } from "./color";
import { type Map2, median, quantile } from "./maps";
import { type ColorModel, shareOf } from "./skin";

export interface EyeColors {
  /** Linear colors. */
  iris: Triple;
  sclera: Triple;
  /** Position of the iris, degrees to the right of and below the middle of the chart. */
  gaze: [number, number];
}

/** One texel of an eyeball. */
interface Texel {
  at: number;
  /** Degrees from straight ahead, to the right and down. */
  x: number;
  y: number;
  lab: Triple;
}

/** Brown eyes; the sclera's L* depends on the skin's. */
export function defaultEyes({ constants }: Atlas, skin: ColorModel): EyeColors {
  const rule = constants.eyes;
  const lightness = clip(0.45 * skin.center[0] + 36, rule.SCLERA_L);
  return { iris: rule.IRIS_COLOR.map(linearFromSrgb) as Triple, sclera: lightFromLab([lightness, 1, 3]), gaze: [0, 0] };
}

/** Colors of the eyes in a photo; default colors if no iris is clearly visible. */
export function findEyes(atlas: Atlas, albedo: Map2, seen: Map2, skin: ColorModel): EyeColors {
  const rule = atlas.constants.eyes;
  const usual = defaultEyes(atlas, skin);
  const [irises, whites, gazes]: [Triple[], Triple[], [number, number][]] = [[], [], []];
  for (const chart of atlas.chart.texture.eyes) {
    const texels = seenTexels(atlas, chart, albedo, seen);
    const center = irisCenter(atlas, texels);
    if (!center) continue;
    gazes.push(center);
    for (const { x, y, lab } of texels) {
      const away = Math.hypot(x - center[0], y - center[1]);
      if (away > rule.PUPIL && away < 0.85 * rule.IRIS) irises.push(lab);
      if (away > 1.15 * rule.IRIS && away < 60) whites.push(lab);
    }
  }
  if (!gazes.length) return usual;
  const iris = middleOf(irises, (lightness, at) => lightness <= at, 0.7);
  iris[0] = clip(iris[0], rule.IRIS_L);
  const gaze = [0, 1].map((axis) => gazes.reduce((sum, one) => sum + one[axis] / gazes.length, 0)) as [number, number];
  const found = { ...usual, iris: lightFromLab(iris), gaze };
  if (whites.length <= rule.LEAST_TEXELS) return found;
  // The lightest 40 % of the white, with half the chroma, since it includes parts of the lids.
  const white = middleOf(whites, (lightness, at) => lightness >= at, 0.6);
  const lightness = clip((labOf(usual.sclera)[0] + white[0]) / 2, rule.SCLERA_L);
  return { ...found, sclera: lightFromLab([lightness, clip(white[1] / 2, [-6, 6]), clip(white[2] / 2, [-6, 6])]) };
}

/** How well each texel of an eyeball shows the eye; 0 where it shows a lid. */
export function eyeShare(atlas: Atlas, albedo: Map2, seen: Map2, skin: ColorModel): Map2 {
  const lab = new Float32Array(3);
  return seen.map((value, at) => {
    if (!atlas.isEye(at)) return 0;
    labFromLinear(albedo, 3 * at, lab, 0);
    return shareOf(atlas.constants.skin, skin, lab, 0) > 0.02 ? 0 : value;
  });
}

/** Paint sclera, iris with a dark rim, and pupil into a picture of linear colors. */
export function paintEyes(atlas: Atlas, picture: Map2, { iris, sclera, gaze }: EyeColors): void {
  const rule = atlas.constants.eyes;
  const [start, end, left] = rule.SHADED;
  const rings: [number, number[]][] = [
    [rule.IRIS, iris.map((value) => rule.RIM_SHADE * value)],
    [rule.RIM, iris],
    [0.62 * rule.IRIS, iris.map((value) => 1.25 * value)],
    [rule.PUPIL, rule.PUPIL_COLOR.map(linearFromSrgb)],
  ];
  for (const chart of atlas.chart.texture.eyes) {
    eachTexel(atlas, chart, (at, x, y) => {
      const angle = Math.hypot(x - gaze[0], y - gaze[1]);
      const lids = Math.hypot(0.6 * x, (y < 0 ? 3 : 2.4) * y);
      const shade = 1 - (1 - left) * clip((lids - start) / (end - start), [0, 1]);
      const shares = rings.map(([edge]) => clip((edge - angle) / Math.max(chart.step, 3) + 0.5, [0, 1]));
      for (let k = 0; k < 3; k++) {
        let color = sclera[k];
        rings.forEach(([, ring], i) => (color += shares[i] * (ring[k] - color)));
        picture[3 * at + k] = color * shade;
      }
    });
  }
}

/** Visit the texels of an eyeball and a few around it, with degrees from straight ahead. */
function eachTexel({ size }: Atlas, { window, middle, step }: EyeChart, visit: (at: number, x: number, y: number) => void) {
  for (let row = window.top; row < window.bottom; row++) {
    for (let column = window.left; column < window.right; column++) {
      const [x, y] = [step * (column - middle[0]), step * (row - middle[1])];
      if (Math.hypot(x, y) < 195) visit(row * size + column, x, y);
    }
  }
}

function seenTexels(atlas: Atlas, chart: EyeChart, albedo: Map2, seen: Map2): Texel[] {
  const texels: Texel[] = [];
  eachTexel(atlas, chart, (at, x, y) => {
    if (!(seen[at] > atlas.constants.eyes.SEEN) || Math.hypot(x, y) >= 70) return;
    texels.push({ at, x, y, lab: labOf(albedo.subarray(3 * at, 3 * at + 3)) });
  });
  return texels;
}

/** Position, degrees, where a disk is darkest compared with the ring around it; null if there is none. */
function irisCenter({ constants }: Atlas, texels: Texel[]): [number, number] | null {
  const { IRIS, LOOK, LOOK_STEP, LEAST_TEXELS } = constants.eyes;
  let [best, found]: [number, [number, number] | null] = [4, null]; // L*
  for (let y = -LOOK; y <= LOOK; y += LOOK_STEP) {
    for (let x = -LOOK; x <= LOOK; x += LOOK_STEP) {
      const [disk, ring]: [number[], number[]] = [[], []];
      for (const texel of texels) {
        const away = Math.hypot(texel.x - x, texel.y - y / 2);
        if (away < 0.9 * IRIS) disk.push(texel.lab[0]);
        else if (away > 1.1 * IRIS && away < 50) ring.push(texel.lab[0]);
      }
      if (Math.min(disk.length, ring.length) < LEAST_TEXELS / 2) continue;
      const contrast = median(ring) - median(disk);
      if (contrast > best) [best, found] = [contrast, [x, y / 2]];
    }
  }
  return found;
}

/** The median of the colors for which `isTaken` is true of their L* and a quantile of all L*. */
function middleOf(colors: Triple[], isTaken: (lightness: number, at: number) => boolean, share: number): Triple {
  const at = quantile(colors.map(([lightness]) => lightness), share);
  const taken = colors.filter(([lightness]) => isTaken(lightness, at));
  return [0, 1, 2].map((k) => median(taken.map((color) => color[k]))) as Triple;
}

function clip(value: number, [low, high]: [number, number]): number {
  return Math.min(Math.max(value, low), high);
}
