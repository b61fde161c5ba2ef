// Seamless blending of pictures, as in keras_scnn.texturing.blending.

import type { Atlas, Constants } from "./atlas";
import { enlarge, type Map2, maskOf, shrink } from "./maps";

const [TOLERANCE, MOST_STEPS] = [1e-4, 400];

/**
 * Blend `top`, where its share is 1, over `bottom`, whose colors are adapted at the border; changes `bottom`.
 *
 * `mask` is 1 within the region to blend.
 */
export function layOver(atlas: Atlas, bottom: Map2, top: Map2, share: Map2, mask: ArrayLike<number>): void {
  const { size, constants } = atlas;
  const side = Math.min(constants.blending.GRID, size);
  const small = (map: ArrayLike<number>, channels: number) => shrink(map, size, size, channels, [side, side]);
  const difference = top.map((value, i) => (value - bottom[i]) * share[Math.floor(i / 3)]);
  const known = small(share, 1);
  const wanted = small(difference, 3).map((value, i) => value / Math.max(known[Math.floor(i / 3)], 1e-3));
  const covered = small(mask, 1);
  const inside = maskOf(covered.length, (at) => covered[at] > 0.3);
  const spread = enlarge(spreadOut(constants.blending, wanted, known, inside, side), side, 3, size);
  for (let i = 0; i < bottom.length; i++) {
    const part = share[Math.floor(i / 3)];
    bottom[i] = part * top[i] + (1 - part) * (bottom[i] + spread[i]);
  }
}

/** Close to `wanted` where it is known, smooth elsewhere, and 0 far away: the screened Poisson equation. */
export function spreadOut(rule: Constants["blending"], wanted: Map2, known: Map2, inside: Uint8Array, side: number): Map2 {
  const neighbors = neighborsOf(inside, side);
  const cells = neighbors.length / 4;
  const weight = new Float64Array(cells);
  const diagonal = new Float64Array(cells);
  const cell = Int32Array.from(inside.keys()).filter((at) => inside[at]);
  cell.forEach((at, i) => {
    weight[i] = rule.TRUST * known[at] ** 2;
    diagonal[i] = weight[i] + 1 / (rule.REACH * side) ** 2;
    for (let n = 0; n < 4; n++) diagonal[i] += Number(neighbors[4 * i + n] >= 0);
  });
  const result = new Float32Array(wanted.length);
  for (let k = 0; k < 3; k++) {
    const right = weight.map((value, i) => value * wanted[3 * cell[i] + k]);
    conjugateGradients(neighbors, diagonal, right).forEach((value, i) => (result[3 * cell[i] + k] = value));
  }
  return result;
}

/** Indices of each inside cell's four neighbors, left, right, above and below; -1 for none. */
function neighborsOf(inside: Uint8Array, side: number): Int32Array {
  let count = 0;
  const number = Int32Array.from(inside, (value) => (value ? count++ : -1));
  const neighbors = new Int32Array(4 * count).fill(-1);
  number.forEach((cell, at) => {
    if (cell < 0) return;
    const column = at % side;
    if (column) neighbors[4 * cell] = number[at - 1];
    if (column < side - 1) neighbors[4 * cell + 1] = number[at + 1];
    if (at >= side) neighbors[4 * cell + 2] = number[at - side];
    if (at + side < number.length) neighbors[4 * cell + 3] = number[at + side];
  });
  return neighbors;
}

/** x of (diagonal - neighbors) x = right, with the diagonal as preconditioner. */
function conjugateGradients(neighbors: Int32Array, diagonal: Float64Array, right: Float64Array): Float64Array {
  const count = right.length;
  const [x, residual] = [new Float64Array(count), right.slice()];
  const [direction, image] = [residual.map((value, i) => value / diagonal[i]), new Float64Array(count)];
  let energy = inner(residual, direction);
  const enough = TOLERANCE ** 2 * energy;
  for (let step = 0; step < MOST_STEPS && energy > enough; step++) {
    for (let i = 0; i < count; i++) {
      let sum = diagonal[i] * direction[i];
      for (let n = 4 * i; n < 4 * i + 4; n++) if (neighbors[n] >= 0) sum -= direction[neighbors[n]];
      image[i] = sum;
    }
    const length = energy / inner(direction, image);
    let fresh = 0;
    for (let i = 0; i < count; i++) {
      x[i] += length * direction[i];
      residual[i] -= length * image[i];
      fresh += residual[i] ** 2 / diagonal[i];
    }
    for (let i = 0; i < count; i++) direction[i] = residual[i] / diagonal[i] + (fresh / energy) * direction[i];
    energy = fresh;
  }
  return x;
}

function inner(first: Float64Array, second: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < first.length; i++) sum += first[i] * second[i];
  return sum;
}
