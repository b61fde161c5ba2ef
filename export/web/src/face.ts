// A photo to a face, as keras_scnn.Reconstructor does it: find it, look twice, decode.

import type { CompiledModel } from "@litertjs/core";

import type { CropRule, Detector } from "./detector";
import { type Box, boxOfLandmarks, cropSquare } from "./image";
import { runNamed } from "./litert";

const PASSES = 2;
const MOST_RESIZE = 3;

/** What Python tells of the exported file and of its face model: see export/demo.py. */
export interface Model {
  crop: CropRule & { size: number };
  triangles: number[];
  identity: [number, number];
  coordinates: number[][];
  verification: { shape?: Logistic } | null;
}

interface Logistic {
  a: number;
  b: number;
}

export interface Face {
  box: Box;
  /** 68 x (x, y, depth), px of the photo. */
  landmarks: Float32Array;
  /** N x (x, y, z), mm, y up. */
  vertices: Float32Array;
  /** N x (x, y, depth), px of the photo. */
  posed: Float32Array;
  /** Pitch, yaw, roll. */
  degrees: Float32Array;
  identity: Float32Array;
  networkMs: number;
}

export class Reconstructor {
  constructor(
    readonly model: Model,
    private readonly network: CompiledModel,
    private readonly detector: Detector,
  ) {}

  /** The largest face, looked for near `near` where that is given; null where there is none. */
  async reconstruct(photo: ImageData, near: Box | null = null): Promise<Face | null> {
    let box = near ?? (await this.detector.largest(photo));
    if (!box) return null;
    let face = await this.look(photo, box);
    for (let pass = 1; pass < (near ? 1 : PASSES); pass++) {
      box = secondBox(face);
      face = await this.look(photo, box);
    }
    return face;
  }

  private async look(photo: ImageData, box: Box): Promise<Face> {
    const size = this.model.crop.size;
    const crop = cropSquare(photo, box, size);
    const begin = performance.now();
    const told = await runNamed(this.network, crop, [1, size, size, 3]);
    const networkMs = performance.now() - begin;
    const grow = box.side / size;
    const inPhoto = (points: Float32Array) =>
      points.map((value, i) => {
        if (i % 3 === 2) return value * grow;
        return (value + 0.5) * grow - 0.5 + (i % 3 ? box.y0 : box.x0);
      });
    return {
      box,
      landmarks: inPhoto(told.landmarks),
      vertices: told.vertices,
      posed: inPhoto(project(told.parameters, told.vertices)),
      degrees: told.euler_degrees,
      identity: told.parameters.slice(...this.model.identity),
      networkMs,
    };
  }

  /** Root mean square distance of the two neutral shapes' vertices, mm. */
  distance(first: Face, second: Face): number {
    const difference = first.identity.map((value, i) => value - second.identity[i]);
    const width = this.model.coordinates[0].length;
    const sums = new Float64Array(width);
    this.model.coordinates.forEach((row, i) => {
      row.forEach((value, j) => (sums[j] += value * difference[i]));
    });
    return Math.hypot(...sums);
  }

  /** That two faces are of one person, 0 to 1; null where the preset is not calibrated. */
  probability(distance: number): number | null {
    const curve = this.model.verification?.shape;
    return curve ? 1 / (1 + Math.exp(-(curve.a * distance + curve.b))) : null;
  }
}

/** (x, y, z, ...) in mm to px of the crop by the camera, the first 12 parameters. */
export function project(camera: Float32Array, points: Float32Array): Float32Array {
  return points.map((_, i) => {
    const row = 4 * (i % 3);
    const first = i - (i % 3);
    let sum = camera[row + 3];
    for (let axis = 0; axis < 3; axis++) sum += camera[row + axis] * points[first + axis];
    return sum;
  });
}

function secondBox(face: Face): Box {
  const box = boxOfLandmarks(face.landmarks);
  const ratio = box.side / face.box.side;
  return ratio > 1 / MOST_RESIZE && ratio < MOST_RESIZE ? box : face.box;
}
