// A photo to a face, as in keras_scnn.Reconstructor: detect it, run the network twice, decode.

import type { CompiledModel } from "@litertjs/core";

import type { DetectorRule } from "./blazeface";
import { type Answer, answer, type Calibration, measure, type ShapeSpace } from "./comparison";
import type { CropRule, Detector, ScoredBox } from "./detector";
import type { CheckRule } from "./facemesh";
import { type Box, boxOfLandmarks, cropSquare, photoFromCrop, uprightBox } from "./image";
import { runNamed } from "./litert";
import type { Chart } from "./atlas";

/** The contents of model.json, about the exported file and its face model: see export/website.py. */
export interface Model extends ShapeSpace, Chart {
  detector: DetectorRule;
  check: CheckRule;
  crop: CropRule & { size: number };
  identity: [number, number];
  expression: [number, number];
  expression_names: string[];
  verification: Calibration | null;
}

export interface Face {
  box: Box;
  /** The detector's score, 0 to 1; in a video, that of the first frame with the face. */
  score: number;
  /** 68 x (x, y, depth), px of the photo. */
  landmarks: Float32Array;
  /** N x (x, y, z), mm, y up. */
  vertices: Float32Array;
  /** N x (x, y, depth), px of the photo. */
  posed: Float32Array;
  /** Pitch, yaw, roll. */
  degrees: number[];
  /** Clockwise angle, radians, from the photo's up to the head's up in the image. */
  angle: number;
  identity: Float32Array;
  /** Weights, mostly from 0 to 1. */
  expression: Float32Array;
  /** Of unit length, the mean of both runs; null if the preset has no feature head. */
  features: Float32Array | null;
  networkMs: number;
}

export class Reconstructor {
  constructor(
    readonly model: Model,
    private readonly network: CompiledModel,
    private readonly detector: Detector,
  ) {}

  /** The faces of a photo, the largest first. */
  async all(photo: ImageData): Promise<Face[]> {
    const faces: Face[] = [];
    for (const found of await this.detector.all(photo)) faces.push(await this.twice(photo, found));
    return faces;
  }

  /** The face near that of the previous frame; without one, the largest face, or null. */
  async follow(photo: ImageData, near: Face | null): Promise<Face | null> {
    if (near) return this.look(photo, nextBox(near, this.model.crop.min_turn), near.score);
    const [found] = await this.detector.all(photo);
    return found ? this.twice(photo, found) : null;
  }

  private async twice(photo: ImageData, found: ScoredBox): Promise<Face> {
    const { mirrored_first, max_resize } = this.model.crop.second_pass;
    const face = await this.look(photo, { ...found, across: mirrored_first ? -1 : 1 }, found.score);
    const second = secondBox(face.landmarks, found, max_resize);
    const seen = second === found ? found : uprightBox(face.landmarks, face.angle);
    const again = await this.look(photo, seen, found.score);
    return { ...again, box: second, features: meanFeatures(face.features, again.features) };
  }

  private async look(photo: ImageData, box: Box, score: number): Promise<Face> {
    const size = this.model.crop.size;
    const crop = cropSquare(photo, box, size);
    const begin = performance.now();
    const outputs = await runNamed(this.network, crop, [1, size, size, 3]);
    const networkMs = performance.now() - begin;
    const toPhoto = photoFromCrop(box, size);
    const inPhoto = (points: Float32Array) => {
      const placed = points.map((value) => (value * box.side) / size); // correct for the depth; x and y are set below
      for (let i = 0; i < points.length; i += 3) placed.set(toPhoto(points[i], points[i + 1]), i);
      return placed;
    };
    const [turn, across] = [box.angle ?? 0, box.across ?? 1];
    return {
      box,
      score,
      landmarks: inPhoto(outputs.landmarks),
      vertices: outputs.vertices,
      posed: inPhoto(project(outputs.parameters, outputs.vertices)),
      degrees: eulerDegrees(turned(outputs.rotation, turn)),
      angle: Math.atan2(across * outputs.parameters[1], -outputs.parameters[5]) + turn,
      identity: outputs.parameters.slice(...this.model.identity),
      expression: outputs.parameters.slice(...this.model.expression),
      features: outputs.features ?? null,
      networkMs,
    };
  }

  /** The distance between two faces, and whether they show the same person. */
  compare(first: Face, second: Face): Answer {
    return answer(this.model.verification, measure(this.model, first, second));
  }
}

/** The box for a face in a video's next frame; rotated if the head is on its side or upside down. */
function nextBox(face: Face, minTurn: number): Box {
  return Math.abs(face.angle) < minTurn ? boxOfLandmarks(face.landmarks) : uprightBox(face.landmarks, face.angle);
}

/** From (x, y, z, ...) in mm to px of the crop, with the camera in the first 12 parameters. */
export function project(camera: Float32Array, points: Float32Array): Float32Array {
  return points.map((_, i) => {
    const row = 4 * (i % 3);
    const first = i - (i % 3);
    let sum = camera[row + 3];
    for (let axis = 0; axis < 3; axis++) sum += camera[row + axis] * points[first + axis];
    return sum;
  });
}

/** A rotation, row-major, y-up model frame, after the image is rotated clockwise by `angle`. */
export function turned(rotation: Float32Array, angle: number): Float32Array {
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  return rotation.map((value, i) => {
    if (i < 3) return cos * value + sin * rotation[i + 3];
    return i < 6 ? cos * value - sin * rotation[i - 3] : value;
  });
}

/** Pitch, yaw, roll of a rotation: see geometry/rotations.py. */
export function eulerDegrees(r: Float32Array): number[] {
  const yaw = -Math.asin(Math.max(-1, Math.min(1, r[2])));
  return [Math.atan2(r[5], r[8]), yaw, Math.atan2(r[1], r[0])].map((angle) => (angle * 180) / Math.PI);
}

function meanFeatures(first: Float32Array | null, second: Float32Array | null): Float32Array | null {
  if (!first || !second) return null;
  const sum = first.map((value, i) => value + second[i]);
  const length = Math.hypot(...sum);
  return sum.map((value) => value / length);
}

function secondBox(landmarks: Float32Array, first: Box, most: number): Box {
  const box = boxOfLandmarks(landmarks);
  const ratio = box.side / first.side;
  return ratio > 1 / most && ratio < most ? box : first;
}
