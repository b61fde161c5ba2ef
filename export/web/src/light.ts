// Estimates a photo's light by spherical harmonics, as in keras_scnn.texturing.light.

import type { Atlas, Constants } from "./atlas";
import { median } from "./maps";

const TERMS = 9;

/** Irradiance at each texel, three numbers each. */
export function shadingOf(atlas: Atlas, color: Float32Array, normals: Float32Array, weight: Float32Array) {
  const { light: rule, shading } = atlas.constants;
  const light = estimateLight(rule, shading.SH_CONSTANTS, color, normals, weight);
  const result = new Float32Array(normals.length);
  const basis = new Float64Array(TERMS);
  for (let at = 0; at < normals.length; at += 3) {
    harmonics(shading.SH_CONSTANTS, normals, at, basis, 0);
    for (let k = 0; k < 3; k++) {
      let sum = 0;
      for (let i = 0; i < TERMS; i++) sum += basis[i] * light[k][i];
      result[at + k] = Math.min(Math.max(sum, rule.LEAST), rule.MOST);
    }
  }
  return result;
}

/** Nine coefficients per channel, scaled such that the median on skin is 1. */
function estimateLight(
  rule: Constants["light"], harmonic: number[], color: Float32Array, normals: Float32Array, weight: Float32Array,
): Float64Array[] {
  const even = [0, 1, 2].map(() => Float64Array.from({ length: TERMS }, (_, i) => (i ? 0 : 1 / harmonic[0])));
  const all: number[] = [];
  weight.forEach((value, at) => value > 0.05 && all.push(at));
  if (all.length < 50) return even;
  const step = Math.max(1, Math.floor(all.length / rule.SAMPLES));
  const sure = all.filter((_, i) => i % step === 0);
  const basis = new Float64Array(TERMS * sure.length);
  sure.forEach((at, i) => harmonics(harmonic, normals, 3 * at, basis, TERMS * i));
  const gray = Float64Array.from(sure, (at) => (color[3 * at] + color[3 * at + 1] + color[3 * at + 2]) / 3);
  const fit = robustFit(rule, basis, gray, Float64Array.from(sure, (at) => weight[at]));
  const light = [0, 1, 2].map((k) => near(rule, fit, basis, Float64Array.from(sure, (at) => color[3 * at + k])));
  const lit = light.map((channel) => median(times(basis, channel).map((value) => Math.max(value, 0))));
  return lit.some((value) => value < 1e-4) ? even : light.map((channel, k) => channel.map((value) => value / lit[k]));
}

interface Fit {
  light: Float64Array;
  weight: Float64Array;
}

/** Iteratively reweighted least squares with Tukey's weights. */
function robustFit(rule: Constants["light"], basis: Float64Array, values: Float64Array, given: Float64Array): Fit {
  let [light, weight]: Float64Array[] = [new Float64Array(TERMS), given];
  for (let round = 0; round < rule.ROUNDS; round++) {
    light = ridgeFit(basis, values, weight, rule.RIDGE);
    const residual = times(basis, light).map((value, i) => Math.abs(values[i] - value));
    const spread = 1.4826 * median(residual) + 1e-4;
    const fresh = given.map((value, i) => value * Math.max(1 - (residual[i] / (rule.TUKEY * spread)) ** 2, 0) ** 2);
    if (fresh.reduce((sum, value) => sum + value, 0) < 1e-6) break;
    weight = fresh;
  }
  return { light, weight };
}

/** One channel: the scaled gray light plus a small regularized difference. */
function near(rule: Constants["light"], gray: Fit, basis: Float64Array, values: Float64Array): Float64Array {
  const lit = times(basis, gray.light);
  let [both, square] = [0, 0];
  lit.forEach((value, i) => {
    both += gray.weight[i] * values[i] * value;
    square += gray.weight[i] * value ** 2;
  });
  const scale = both / Math.max(square, 1e-12);
  const own = ridgeFit(basis, values.map((value, i) => value - scale * lit[i]), gray.weight, rule.COLOR_RIDGE);
  return own.map((value, i) => value + scale * gray.light[i]);
}

function ridgeFit(basis: Float64Array, values: Float64Array, weight: Float64Array, ridge: number[]): Float64Array {
  const rows = Array.from({ length: TERMS }, () => new Float64Array(TERMS + 1));
  let total = 0;
  for (let n = 0; n < values.length; n++) {
    const from = TERMS * n;
    total += weight[n];
    for (let i = 0; i < TERMS; i++) {
      const weighted = weight[n] * basis[from + i];
      for (let j = i; j < TERMS; j++) rows[i][j] += weighted * basis[from + j];
      rows[i][TERMS] += weighted * values[n];
    }
  }
  ridge.forEach((cost, i) => {
    rows[i][i] += (cost + 1e-6) * total;
    for (let j = 0; j < i; j++) rows[i][j] = rows[j][i];
  });
  return solve(rows);
}

/** Solution of a positive definite system, whose right-hand side is the last column. */
export function solve(rows: Float64Array[]): Float64Array {
  const count = rows.length;
  for (let i = 0; i < count; i++) {
    for (let j = i + 1; j < count; j++) {
      const factor = rows[j][i] / rows[i][i];
      for (let k = i; k <= count; k++) rows[j][k] -= factor * rows[i][k];
    }
  }
  const x = new Float64Array(count);
  for (let i = count - 1; i >= 0; i--) {
    let rest = rows[i][count];
    for (let j = i + 1; j < count; j++) rest -= rows[i][j] * x[j];
    x[i] = rest / rows[i][i];
  }
  return x;
}

function times(basis: Float64Array, light: Float64Array): Float64Array {
  return Float64Array.from({ length: basis.length / TERMS }, (_, n) => {
    let sum = 0;
    for (let i = 0; i < TERMS; i++) sum += basis[TERMS * n + i] * light[i];
    return sum;
  });
}

/** In the order 1; y, z, x; xy, yz, 3z^2 - 1, xz, x^2 - y^2. */
function harmonics([c0, c1, c2, c3, c4]: number[], normals: Float32Array, at: number, out: Float64Array, to: number): void {
  const x = normals[at];
  const y = normals[at + 1];
  const z = normals[at + 2];
  out[to] = c0;
  out[to + 1] = c1 * y;
  out[to + 2] = c1 * z;
  out[to + 3] = c1 * x;
  out[to + 4] = c2 * x * y;
  out[to + 5] = c2 * y * z;
  out[to + 6] = c3 * (3 * z * z - 1);
  out[to + 7] = c2 * x * z;
  out[to + 8] = c4 * (x * x - y * y);
}
