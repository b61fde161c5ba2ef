// BlazeFace, short range, decoded as keras_scnn.photos.blazeface does, and searched as LargestFaceDetector
// does: the whole photo, and where that shows no single clear face, the photo with a margin and a second
// look at each candidate. (The page does not look for small faces in tiles.)

import type { CompiledModel } from "@litertjs/core";

import { type Box, cropSquare, squareAt } from "./image";
import { runNamed } from "./litert";

const INPUT = 128;
const STRIDES = [8, 16, 16, 16];
const BOXES_PER_CELL = 2;
const SAME_FACE = 0.3;
const CANDIDATE_SCORE = 0.4;
const MIN_SCORE = 0.6;
const MARGIN = 2;
const SECOND_LOOK = 2;
const CLEAR_SCORE = 0.8;
const CLEAR_SHARE = [0.15, 0.7];

export interface Found {
  x0: number;
  y0: number;
  x1: number;
  y1: number;
  score: number;
}

export interface CropRule {
  detector_shift: number;
  detector_scale: number;
}

/** Centers of the 896 anchors, as fractions of the input, in output order. */
export function anchors(): [number, number][] {
  const centers: [number, number][] = [];
  for (const stride of new Set(STRIDES)) {
    const cells = INPUT / stride;
    const copies = BOXES_PER_CELL * STRIDES.filter((other) => other === stride).length;
    for (let i = 0; i < cells * cells; i++) {
      const center: [number, number] = [((i % cells) + 0.5) / cells, (Math.floor(i / cells) + 0.5) / cells];
      for (let copy = 0; copy < copies; copy++) centers.push(center);
    }
  }
  return centers;
}

const ANCHORS = anchors();

/** Weighted non-maximum suppression: one box a face, highest score first. */
export function suppress(found: Found[]): Found[] {
  let left = [...found].sort((a, b) => b.score - a.score);
  const faces: Found[] = [];
  while (left.length) {
    const [best] = left;
    const same = left.filter((other) => other === best || overlap(best, other) > SAME_FACE);
    const total = same.reduce((sum, other) => sum + other.score, 0);
    const mean = (key: "x0" | "y0" | "x1" | "y1") =>
      same.reduce((sum, other) => sum + (other.score / total) * other[key], 0);
    faces.push({ x0: mean("x0"), y0: mean("y0"), x1: mean("x1"), y1: mean("y1"), score: best.score });
    left = left.filter((other) => !same.includes(other));
  }
  return faces;
}

/** Intersection over union. */
export function overlap(a: Found, b: Found): number {
  const width = Math.max(0, Math.min(a.x1, b.x1) - Math.max(a.x0, b.x0));
  const height = Math.max(0, Math.min(a.y1, b.y1) - Math.max(a.y0, b.y0));
  const area = (box: Found) => (box.x1 - box.x0) * (box.y1 - box.y0);
  return (width * height) / Math.max(area(a) + area(b) - width * height, 1e-12);
}

/** Whether there is one face, and no other candidate, of a good score and share of the photo. */
export function isClear(faces: Found[], side: number): boolean {
  const [low, high] = CLEAR_SHARE.map((share) => share * side);
  const [face] = faces;
  if (faces.length !== 1 || face.score < CLEAR_SCORE) return false;
  return face.x1 - face.x0 >= low && face.x1 - face.x0 <= high;
}

export class Detector {
  constructor(
    private readonly model: CompiledModel,
    private readonly rule: CropRule,
  ) {}

  /** The standard crop of the largest face; null where there is none. */
  async largest(photo: ImageData): Promise<Box | null> {
    const side = Math.max(photo.width, photo.height);
    const whole = (zoom: number) =>
      this.look(photo, squareAt(photo.width / 2, photo.height / 2, side * zoom));
    const looks = await whole(1);
    const single = suppress(looks);
    if (isClear(single, side)) return this.standard(single[0]);
    looks.push(...(await whole(MARGIN)));
    const confirmed: Found[] = [];
    for (const candidate of suppress(looks)) confirmed.push(...(await this.confirm(photo, candidate)));
    const boxes = suppress(confirmed).map((face) => this.standard(face));
    return boxes.sort((a, b) => b.side - a.side)[0] ?? null;
  }

  private async confirm(photo: ImageData, candidate: Found): Promise<Found[]> {
    const side = SECOND_LOOK * Math.max(candidate.x1 - candidate.x0, candidate.y1 - candidate.y0);
    const square = squareAt((candidate.x0 + candidate.x1) / 2, (candidate.y0 + candidate.y1) / 2, side);
    const seen = suppress(await this.look(photo, square)).find(
      (face) => overlap(candidate, face) > SAME_FACE && face.score >= MIN_SCORE,
    );
    if (seen) return [seen];
    return candidate.score >= MIN_SCORE ? [candidate] : [];
  }

  private async look(photo: ImageData, square: Box): Promise<Found[]> {
    const crop = cropSquare(photo, square, INPUT);
    const input = Float32Array.from(crop, (value) => value / 127.5 - 1);
    const outputs = await runNamed(this.model, input, [1, INPUT, INPUT, 3]);
    const [numbers, logits] = [outputs.regressors, outputs.classificators];
    const found: Found[] = [];
    ANCHORS.forEach(([centerX, centerY], i) => {
      const score = 1 / (1 + Math.exp(-logits[i]));
      if (score < CANDIDATE_SCORE) return;
      const [x, y, width, height] = Array.from(numbers.subarray(16 * i, 16 * i + 4), (v) => v / INPUT);
      const place = (value: number, start: number) => value * square.side + start;
      found.push({
        x0: place(centerX + x - width / 2, square.x0),
        y0: place(centerY + y - height / 2, square.y0),
        x1: place(centerX + x + width / 2, square.x0),
        y1: place(centerY + y + height / 2, square.y0),
        score,
      });
    });
    return found;
  }

  /** BlazeFace's square to the standard crop: see cropping.box_from_detector. */
  private standard(face: Found): Box {
    const side = (face.x1 - face.x0 + face.y1 - face.y0) / 2;
    const down = this.rule.detector_shift * side;
    const [x, y] = [(face.x0 + face.x1) / 2, (face.y0 + face.y1) / 2 + down];
    return squareAt(x, y, this.rule.detector_scale * side);
  }
}
