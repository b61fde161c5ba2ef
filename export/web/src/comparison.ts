// Compares two faces as in keras_scnn.reconstruction.comparison: same calibration, same answer.

import type { Face } from "./face";

/** The evidence for each kind of probability; the last kind that is known is the answer. */
const KINDS = {
  shape: ["shape"],
  scaled_shape: ["scaled shape"],
  feature: ["features"],
  both: ["shape", "features"],
};
type Kind = keyof typeof KINDS;

interface Curve {
  a: number | number[];
  b: number;
}

export type Calibration = Partial<Record<Kind, Curve>>;

export interface Measured {
  distance_mm: number;
  /** In standard deviations of one person's photos; null if the preset has no covariance. */
  scaled_distance: number | null;
  /** Of the features; null if the preset has none. */
  cosine: number | null;
  /** Weight of the evidence, 0 to 1, reduced by small, turned and half-hidden faces. */
  certainty: number;
}

export interface Answer extends Measured {
  probabilities: Partial<Record<Kind, number>>;
  /** Of the same person, from all evidence; null if the preset is not calibrated. */
  probability: number | null;
  /** The evidence on which it is based, in words. */
  probability_by: string | null;
}

/** Matrices (K x K) from identity coefficients to coordinates that are compared by distance. */
export interface ShapeSpace {
  coordinates: number[][];
  scaled_coordinates: number[][] | null;
}

export function measure(space: ShapeSpace, first: Face, second: Face): Measured {
  const difference = first.identity.map((value, i) => value - second.identity[i]);
  const scaled = space.scaled_coordinates;
  return {
    distance_mm: lengthIn(space.coordinates, difference),
    scaled_distance: scaled && lengthIn(scaled, difference),
    cosine: first.features && second.features && cosine(first.features, second.features),
    certainty: certainty(photoQuality(first), photoQuality(second)),
  };
}

/** Weight of a photo's shape: the inverse of its expected variance; as in reconstruction/quality.py. */
export function photoQuality(face: Pick<Face, "degrees" | "score" | "box">): number {
  const turned = 1 + (face.degrees[1] / 55) ** 2;
  const hidden = Math.exp(6 * (0.9 - face.score));
  const small = 1 + (25 / face.box.side) ** 3;
  return 1 / (turned * hidden * small);
}

/** Factor of the log-odds, 0 to 1, for a comparison of photos of these qualities. */
export function certainty(first: number, second: number): number {
  return (Math.min(first, 1) * Math.min(second, 1)) ** 0.4;
}

export function answer(calibration: Calibration | null, measured: Measured): Answer {
  const best = measured.scaled_distance ?? measured.distance_mm;
  const values: Record<Kind, (number | null)[]> = {
    shape: [measured.distance_mm],
    scaled_shape: [measured.scaled_distance],
    feature: [measured.cosine],
    both: [best, measured.cosine],
  };
  const probabilities: Partial<Record<Kind, number>> = {};
  let last: Kind | null = null;
  for (const kind of Object.keys(KINDS) as Kind[]) {
    const curve = calibration?.[kind];
    if (!curve || values[kind].includes(null)) continue;
    const logit = dot(weights(curve), values[kind] as number[]) + curve.b;
    probabilities[kind] = 1 / (1 + Math.exp(-measured.certainty * logit));
    last = kind;
  }
  return {
    ...measured,
    probabilities,
    probability: last && probabilities[last]!,
    probability_by: last && basis(KINDS[last], weights(calibration![last]!)),
  };
}

/** The evidence for a probability, in words, naming any with a weight of 0. */
function basis(names: string[], weight: number[]): string {
  const used = names.filter((_, i) => weight[i]).join(" and ") || "nothing";
  const unused = names.filter((_, i) => !weight[i]).join(" and the ");
  return unused ? `${used}; the calibration gives the ${unused} no weight` : used;
}

export function inWords(result: Answer): string {
  const apart = `neutral shapes ${result.distance_mm.toFixed(2)} mm apart`;
  if (result.probability === null) return apart;
  return `${apart}, one person with ${(100 * result.probability).toFixed(0)} % (by ${result.probability_by})`;
}

function weights(curve: Curve): number[] {
  return typeof curve.a === "number" ? [curve.a] : curve.a;
}

function lengthIn(rows: number[][], vector: Float32Array): number {
  const sums = new Float64Array(rows[0].length);
  rows.forEach((row, i) => row.forEach((value, j) => (sums[j] += value * vector[i])));
  return Math.hypot(...sums);
}

/** Of two vectors of unit length, whose rounding may take it beyond 1. */
function cosine(first: Float32Array, second: Float32Array): number {
  return Math.min(Math.max(dot(first, second), -1), 1);
}

function dot(first: ArrayLike<number>, second: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < first.length; i++) sum += first[i] * second[i];
  return sum;
}
