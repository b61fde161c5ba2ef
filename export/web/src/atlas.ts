// The texture map of a face model: the contents of each texel, from the tables of export/chart.py.

import type { Triple } from "./color";
import { blur, type Map2, maskOf } from "./maps";
import { interpolate, type Raster, rasterize } from "./raster";

const ZONES = [
  "middle", "cheeks", "chin", "moustache", "face", "features", "eyes", "lids", "bridge", "lips", "brows", "beard",
  "temples",
] as const;
export const SOFT = 150; // the map's side divided by this is the softness of painted edges

type Zone = (typeof ZONES)[number];

/** One eyeball's chart: its window in the map, its middle, and degrees per texel. */
export interface EyeChart {
  window: { left: number; top: number; right: number; bottom: number };
  middle: [number, number];
  step: number;
}

/** The texture map's data for the page: see export/chart.py. */
export interface Chart {
  triangles: number[];
  /** N x (u, v), v up; symmetric about u = 0.5 if the map is symmetric. */
  uv: number[];
  /** N: the part of the head, as in MorphableModel.regions. */
  regions: number[];
  /** N: the first vertex at the same position. */
  place: number[];
  is_symmetric: boolean;
  /** Vertices of landmarks around the mouth; those of the upper lip are above those of the lower one. */
  lips: Record<"all" | "inner" | "upper" | "lower", number[]>;
  texture: {
    size: number;
    /** Names of the maps in the order of the file of maps; each has size x size 16-bit numbers. */
    maps: string[];
    /** Names of the bits of the map of zones. */
    zones: string[];
    /** Divisors for the numbers of the other maps. */
    scales: Record<string, number>;
    eyes: EyeChart[];
    disks: { thin: number[]; edge: number[] };
    unknown_skin: Triple;
    /** Constants of the modules of keras_scnn.texturing. */
    constants: Constants;
  };
}

export interface Constants {
  atlas: { SKIN: number; MOUTH: number; TEETH: number; EYES: number[] };
  blending: { GRID: number; REACH: number; TRUST: number; GAMMA: number };
  eyes: Record<"IRIS" | "RIM" | "PUPIL" | "RIM_SHADE" | "LOOK" | "LOOK_STEP" | "SEEN" | "LEAST_TEXELS", number> &
    Record<"PUPIL_COLOR" | "IRIS_COLOR" | "SHADED", Triple> &
    Record<"SCLERA_L" | "IRIS_L", [number, number]>;
  light: Record<"ROUNDS" | "TUKEY" | "LEAST" | "MOST" | "SAMPLES", number> & Record<"RIDGE" | "COLOR_RIDGE", number[]>;
  mouth: Record<
    | "LEAST_GAP_PX" | "LEAST_GAP" | "FRONTAL" | "BLURRED" | "EXTREME" | "TEETH_L" | "LINING_L" | "DARK_L" | "TEETH_SHARE" | "LINING_SHARE"
    | "INNER" | "LEAST_FITTING" | "LIGHTEST" | "DULLEST" | "WHITEST" | "TEETH_CHROMA" | "LINING_LIGHT" | "BLUR",
    number
  >;
  painting: Record<"BROW_SHARE" | "GRAY", number> &
    Record<"PLAIN_MOUTH" | "PLAIN_TEETH" | "LIP_TINT", Triple>;
  shading: { SH_CONSTANTS: number[] };
  skin: Record<
    | "NEAR" | "FAR" | "SIDE" | "SHINE" | "LEAST_TEXELS" | "SEEN" | "WELL_SEEN" | "DEFAULT_HAIRLINE" | "HAIR_MARGIN"
    | "ABOVE_BROWS" | "LEAST_RED" | "LIGHT_BROW" | "BEARDED" | "SHADOW_CHROMA" | "BLUR" | "GLASSES" | "MOLE",
    number
  > &
    Record<"LEAST_SPREAD" | "MOST_SPREAD" | "HAIR_SPREAD", Triple> & { BINS_MM: number[] };
  views: Record<"GRAZING" | "FACING" | "DEPTH_SLACK" | "TEETH_SLACK" | "BLACK", number> & { SPECKLE: number[][] };
}

export class Atlas {
  readonly size: number;
  readonly texels: Raster;
  /** The part of the head at each texel; triangles that touch skin are skin; 255 outside. */
  readonly region: Uint8Array;
  readonly skin: Uint8Array;
  readonly zones: Record<Zone, Uint8Array>;
  /** mm above the brows, and in front of the ears. */
  readonly up: Float32Array;
  readonly front: Float32Array;
  readonly slant: Map2;
  /** 0 to 1: where lips and brows are painted, with soft edges. */
  readonly softLips: Map2;
  readonly softBrows: Map2;
  /** Share of the light that reaches each texel in the mouth. */
  readonly mouthLight: Float32Array;
  /** Index of the nearest texel of the face. */
  readonly nearest: Int32Array;

  constructor(
    readonly chart: Chart,
    file: ArrayBuffer,
  ) {
    const { size, maps, zones, scales } = chart.texture;
    this.size = size;
    this.texels = rasterize(this.flat(), chart.triangles, size, size);
    this.region = regionOfTexels(this.texels.triangle, chart);
    this.skin = this.region.map((region) => Number(region === chart.texture.constants.atlas.SKIN));
    const stored = summed(file, size * size);
    const map = (name: string) => stored[maps.indexOf(name)];
    const scaled = (name: string) => new Float32Array(map(name)).map((value) => value / scales[name]);
    const bits = map("zones");
    const zone = (bit: number) => maskOf(bits.length, (at) => (bits[at] >> bit) & 1);
    this.zones = Object.fromEntries(ZONES.map((name) => [name, zone(zones.indexOf(name))])) as Record<Zone, Uint8Array>;
    this.up = scaled("up");
    this.front = scaled("front");
    this.slant = scaled("scalp_slant");
    this.softLips = blur(Float32Array.from(this.zones.lips), size, size / SOFT);
    this.softBrows = blur(scaled("brow_strokes"), size, size / SOFT);
    this.mouthLight = scaled("mouth_light");
    this.nearest = nearestInside(this.region, size);
  }

  get constants(): Constants {
    return this.chart.texture.constants;
  }

  /** Vertex attributes, three numbers each, at the texels. */
  at(attributes: Float32Array): Float32Array<ArrayBuffer> {
    return interpolate(this.texels, this.chart.triangles, attributes);
  }

  isEye(at: number): boolean {
    return this.constants.atlas.EYES.includes(this.region[at]);
  }

  isTeeth(at: number): boolean {
    return this.region[at] === this.constants.atlas.TEETH;
  }

  /** The texel on the other side of the face. */
  other(at: number): number {
    const column = at % this.size;
    return at - column + this.size - 1 - column;
  }

  private flat(): Float32Array {
    const { uv, texture } = this.chart;
    const flat = new Float32Array((3 * uv.length) / 2);
    for (let i = 0; i < uv.length / 2; i++) {
      flat[3 * i] = uv[2 * i] * texture.size - 0.5;
      flat[3 * i + 1] = (1 - uv[2 * i + 1]) * texture.size - 0.5;
    }
    return flat;
  }
}

/** Maps stored as each number's difference from the previous one. */
function summed(file: ArrayBuffer, count: number): Int16Array[] {
  const differences = new Int16Array(file);
  return Array.from({ length: differences.length / count }, (_, i) => {
    const map = differences.slice(i * count, (i + 1) * count);
    for (let at = 1; at < count; at++) map[at] += map[at - 1]; // wraps around, like the differences
    return map;
  });
}

function regionOfTexels(triangle: Int32Array, { triangles, regions }: Chart): Uint8Array {
  return Uint8Array.from(triangle, (t) =>
    t < 0 ? 255 : Math.min(regions[triangles[3 * t]], regions[triangles[3 * t + 1]], regions[triangles[3 * t + 2]]),
  );
}

/** For each texel the nearest one of the face, by steps between neighbors. */
function nearestInside(region: Uint8Array, size: number): Int32Array {
  const nearest = Int32Array.from(region, (value, at) => (value === 255 ? -1 : at));
  const queue = new Int32Array(nearest.length);
  let last = 0;
  nearest.forEach((value, at) => value >= 0 && (queue[last++] = at));
  for (let first = 0; first < last; first++) {
    const at = queue[first];
    const column = at % size;
    for (const to of [column ? at - 1 : -1, column < size - 1 ? at + 1 : -1, at - size, at + size]) {
      if (to < 0 || to >= nearest.length || nearest[to] >= 0) continue;
      nearest[to] = nearest[at];
      queue[last++] = to;
    }
  }
  return nearest;
}
