// BlazeFace, short range, decoded as keras_scnn.photos.blazeface does, and searched as LargestFaceDetector
// does: the whole photo, and where that shows no single clear face, the photo with a margin, a second look at
// each candidate, turned by quarters too, and a check. (The page does not look for small faces in tiles.)

import type { CompiledModel } from "@litertjs/core";

import { meshScore } from "./facemesh";
import { type Box, cropSquare, type Size, squareAt } from "./image";
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
const NESTED_SHARE = 0.5;
const SURE_SCORE = 0.85;
const TURNED_MIN_SCORE = 0.7;
const TURN_MARGIN = 0.05;
export const MIN_TURN = (80 * Math.PI) / 180;
const QUARTERS = [Math.PI, Math.PI / 2, -Math.PI / 2];
const MIN_MESH_SCORE = 0.5;
const [AFAR, MIN_AFAR_SCORE] = [4, 0.64];

export type Point = [number, number];

export interface Found {
  x0: number;
  y0: number;
  x1: number;
  y1: number;
  score: number;
  /** Left eye, right eye, nose tip, mouth, left ear, right ear; box coordinates. */
  keypoints: Point[];
}

/** The standard crop of a face that was found. */
export interface ScoredBox extends Box {
  /** Of the detector, 0 to 1. */
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
    const mean = (value: (other: Found) => number) =>
      same.reduce((sum, other) => sum + (other.score / total) * value(other), 0);
    faces.push({
      x0: mean((other) => other.x0),
      y0: mean((other) => other.y0),
      x1: mean((other) => other.x1),
      y1: mean((other) => other.y1),
      score: best.score,
      keypoints: best.keypoints.map((_, i) => [
        mean((other) => other.keypoints[i][0]),
        mean((other) => other.keypoints[i][1]),
      ]),
    });
    left = left.filter((other) => !same.includes(other));
  }
  return faces;
}

/** Faces without those that lie in a surer one, or around it; highest score first. */
export function withoutNested(found: Found[]): Found[] {
  const kept: Found[] = [];
  for (const face of [...found].sort((a, b) => b.score - a.score)) {
    const isNested = (other: Found) =>
      sharedArea(face, other) > NESTED_SHARE * Math.min(area(face), area(other));
    if (!kept.some(isNested)) kept.push(face);
  }
  return kept;
}

/** Intersection over union. */
export function overlap(a: Found, b: Found): number {
  const shared = sharedArea(a, b);
  return shared / Math.max(area(a) + area(b) - shared, 1e-12);
}

function sharedArea(a: Found, b: Found): number {
  const width = Math.max(0, Math.min(a.x1, b.x1) - Math.max(a.x0, b.x0));
  return width * Math.max(0, Math.min(a.y1, b.y1) - Math.max(a.y0, b.y0));
}

function area(box: Found): number {
  return (box.x1 - box.x0) * (box.y1 - box.y0);
}

/** Radians, clockwise, by which the head is turned: see cropping.turn_of. */
export function turnOf(keypoints: Point[]): number {
  const [left, right, , mouth] = keypoints;
  const [x, y] = [mouth[0] - (left[0] + right[0]) / 2, mouth[1] - (left[1] + right[1]) / 2];
  const angle = Math.atan2(-x, y);
  return Math.abs(angle) >= MIN_TURN ? angle : 0;
}

/** What a square shows that is turned by its angle, as the photo has it: see blazeface.turned. */
export function turnedWith(square: Box, face: Found): Found {
  const [cos, sin] = [Math.cos(square.angle ?? 0), Math.sin(square.angle ?? 0)];
  const [x, y] = [square.x0 + square.side / 2, square.y0 + square.side / 2];
  const place = ([u, v]: Point): Point => [
    x + cos * (u - x) - sin * (v - y),
    y + sin * (u - x) + cos * (v - y),
  ];
  const half = [(face.x1 - face.x0) / 2, (face.y1 - face.y0) / 2];
  const middle = place([face.x0 + half[0], face.y0 + half[1]]);
  return {
    x0: middle[0] - half[0],
    y0: middle[1] - half[1],
    x1: middle[0] + half[0],
    y1: middle[1] + half[1],
    score: face.score,
    keypoints: face.keypoints.map(place),
  };
}

/** Whether there is one face, and no other candidate, of a good score and share of the photo. */
export function isClear(faces: Found[], side: number): boolean {
  const [low, high] = CLEAR_SHARE.map((share) => share * side);
  const [face] = faces;
  if (faces.length !== 1 || face.score < CLEAR_SCORE) return false;
  return face.x1 - face.x0 >= low && face.x1 - face.x0 <= high;
}

export class Detector {
  private mesh?: Promise<CompiledModel>;

  /** `openMesh` opens FaceMesh for the first face that is not sure. */
  constructor(
    private readonly model: CompiledModel,
    private readonly rule: CropRule,
    private readonly openMesh: () => Promise<CompiledModel>,
  ) {}

  /** The standard crops of the faces, the largest first. */
  async all(photo: ImageData): Promise<ScoredBox[]> {
    const whole = await this.look(photo, around(photo));
    const single = suppress(whole);
    if (isClear(single, Math.max(photo.width, photo.height)) && (await this.isSettled(photo, single[0]))) {
      return [this.standard(single[0])];
    }
    const padded = await this.look(photo, around(photo, MARGIN));
    const upright = suppress(await this.confirmed(photo, [...whole, ...padded], MIN_SCORE));
    let turned: Found[][] | null = null;
    for (const isFace of [this.isFace.bind(this), async () => true]) {
      let faces = await this.checked(photo, upright, isFace);
      if (!faces.length) {
        turned ??= await this.inTurnedPhoto(photo);
        for (const found of turned) {
          const seen = await this.checked(photo, found, isFace);
          if (seen.length && seen[0].score > (faces[0]?.score ?? 0)) faces = seen;
        }
      }
      const boxes = faces.map((face) => this.standard(face));
      if (boxes.length) return boxes.sort((a, b) => b.side - a.side);
    }
    return [];
  }

  private async isSettled(photo: ImageData, face: Found): Promise<boolean> {
    return (await this.upright(photo, face)) === face && (await this.isFace(photo, face));
  }

  /** What the photo shows on its head or on a side, for each of these turns. */
  private async inTurnedPhoto(photo: ImageData): Promise<Found[][]> {
    const faces: Found[][] = [];
    for (const angle of QUARTERS) {
      const looks: Found[] = [];
      for (const zoom of [1, MARGIN]) looks.push(...(await this.look(photo, around(photo, zoom, angle))));
      faces.push(await this.confirmed(photo, looks, TURNED_MIN_SCORE, angle));
    }
    return faces;
  }

  /** The candidates seen again at their best size, or of a good score anyway. */
  private async confirmed(photo: ImageData, looks: Found[], least: number, angle = 0): Promise<Found[]> {
    const faces: Found[] = [];
    for (const candidate of suppress(looks)) {
      const seen = await this.again(photo, candidate, SECOND_LOOK, angle);
      if (seen && seen.score >= least) faces.push(seen);
      else if (candidate.score >= least) faces.push(candidate);
    }
    return faces;
  }

  /** A face as a square about it shows it, `zoom` times as large and turned. */
  private async again(photo: ImageData, face: Found, zoom: number, angle: number): Promise<Found | null> {
    const side = zoom * Math.max(face.x1 - face.x0, face.y1 - face.y0);
    const square = squareAt((face.x0 + face.x1) / 2, (face.y0 + face.y1) / 2, side);
    const seen = suppress(await this.look(photo, { ...square, angle }));
    return seen.find((other) => overlap(face, other) > SAME_FACE) ?? null;
  }

  /** The candidates turned as their heads are, without those that are no faces, or nested. */
  private async checked(
    photo: ImageData,
    found: Found[],
    isFace: (photo: ImageData, face: Found) => Promise<boolean>,
  ): Promise<Found[]> {
    const faces: Found[] = [];
    for (const candidate of found) {
      const face = await this.upright(photo, candidate);
      if (await isFace(photo, face)) faces.push(face);
    }
    return withoutNested(faces);
  }

  /** A face as a turned square shows it, where it is clearer there and its head turned. */
  private async upright(photo: ImageData, face: Found): Promise<Found> {
    if (face.score >= SURE_SCORE) return face;
    let [best, least] = [face, face.score + TURN_MARGIN];
    for (const angle of QUARTERS) {
      const seen = await this.again(photo, face, SECOND_LOOK, angle);
      if (seen && seen.score > least && turnOf(seen.keypoints)) [best, least] = [seen, seen.score];
    }
    return best;
  }

  /** Whether it scores enough, FaceMesh sees a face too, or BlazeFace does from afar. */
  private async isFace(photo: ImageData, face: Found): Promise<boolean> {
    if (face.score >= SURE_SCORE) return true;
    this.mesh ??= this.openMesh();
    if ((await meshScore(await this.mesh, photo, face)) >= MIN_MESH_SCORE) return true;
    const afar = await this.again(photo, face, AFAR, turnOf(face.keypoints));
    return afar !== null && afar.score >= MIN_AFAR_SCORE;
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
      const pairs = Array.from({ length: 8 }, (_, j) =>
        Array.from(numbers.subarray(16 * i + 2 * j, 16 * i + 2 * j + 2), (value) => value / INPUT),
      );
      const place = (x: number, y: number): Point => [
        (centerX + x) * square.side + square.x0,
        (centerY + y) * square.side + square.y0,
      ];
      const [[x, y], [width, height], ...points] = pairs;
      const [x0, y0] = place(x - width / 2, y - height / 2);
      const [x1, y1] = place(x + width / 2, y + height / 2);
      const keypoints = points.map(([u, v]) => place(u, v));
      found.push(turnedWith(square, { x0, y0, x1, y1, score, keypoints }));
    });
    return found;
  }

  /** BlazeFace's square to the standard crop: see cropping.box_from_detector. */
  private standard(face: Found): ScoredBox {
    const side = (face.x1 - face.x0 + face.y1 - face.y0) / 2;
    const angle = turnOf(face.keypoints);
    const down = this.rule.detector_shift * side;
    const x = (face.x0 + face.x1) / 2 - down * Math.sin(angle);
    const y = (face.y0 + face.y1) / 2 + down * Math.cos(angle);
    return { ...squareAt(x, y, this.rule.detector_scale * side), angle, score: face.score };
  }
}

/** The square about a whole photo, `zoom` times as large as that needs, turned. */
function around(photo: Size, zoom = 1, angle = 0): Box {
  const side = zoom * Math.max(photo.width, photo.height);
  return { ...squareAt(photo.width / 2, photo.height / 2, side), angle };
}
