// Finds faces with BlazeFace, short range, by the search of LargestFaceDetector: the whole photo, and unless
// that shows a single clear face, the photo with a margin, a second detection of each candidate, also rotated by
// quarter turns, and a check. (The page does not search tiles for small faces.)

import type { CompiledModel } from "@litertjs/core";

import {
  anchors,
  type DetectorRule,
  enlarged,
  type Found,
  overlap,
  type Point,
  suppress,
  turnedWith,
  withoutNested,
} from "./blazeface";
import { type CheckRule, meshScore } from "./facemesh";
import { type Box, cropSquare, halved, type Pixels, type Size, squareAt } from "./image";
import { runNamed } from "./litert";

type Halved = ReturnType<typeof halved>;

/** The standard crop of a detected face. */
export interface ScoredBox extends Box {
  /** The detector's score, 0 to 1. */
  score: number;
}

export interface CropRule {
  detector_shift: number;
  detector_scale: number;
  min_turn: number;
  second_pass: { mirrored_first: boolean; max_resize: number };
}

/** The head's clockwise rotation, radians: see cropping.turn_of. */
export function turnOf(keypoints: Point[], minTurn: number): number {
  const [left, right, , mouth] = keypoints;
  const [x, y] = [mouth[0] - (left[0] + right[0]) / 2, mouth[1] - (left[1] + right[1]) / 2];
  const angle = Math.atan2(-x, y);
  return Math.abs(angle) >= minTurn ? angle : 0;
}

/** Whether there is one candidate, with a high score and a suitable size relative to the photo. */
export function isClear(faces: Found[], side: number, search: DetectorRule["search"]): boolean {
  const [low, high] = search.clear_share.map((share) => share * side);
  const [face] = faces;
  if (faces.length !== 1 || face.score < search.clear_score) return false;
  return face.x1 - face.x0 >= low && face.x1 - face.x0 <= high;
}

export class Detector {
  private readonly centers: Point[];
  private mesh?: Promise<CompiledModel>;

  /** `openMesh` opens FaceMesh for the first uncertain face. */
  constructor(
    private readonly model: CompiledModel,
    private readonly rule: DetectorRule,
    private readonly check: CheckRule,
    private readonly crop: CropRule,
    private readonly openMesh: () => Promise<CompiledModel>,
  ) {
    this.centers = anchors(rule);
  }

  private suppressed(found: Found[]): Found[] {
    return suppress(found, this.rule.nms.same_face_iou);
  }

  /** The standard crops of the faces, the largest first. */
  async all(photo: Pixels): Promise<ScoredBox[]> {
    const { input, search } = this.rule;
    const small = halved(photo, search.halve_from * input.shape[0]);
    const whole = await this.lookAround(small);
    const single = this.suppressed(whole);
    if (isClear(single, Math.max(photo.width, photo.height), search) && (await this.isSettled(photo, single[0]))) {
      return [this.standard(single[0])];
    }
    const padded = await this.lookAround(small, search.margin);
    const upright = this.suppressed(await this.confirmed(photo, [...whole, ...padded], search.min_score));
    let turned: Found[][] | null = null;
    for (const isFace of [this.isFace.bind(this), async () => true]) {
      let faces = await this.checked(photo, upright, isFace);
      if (!faces.length) {
        turned ??= await this.inTurnedPhoto(photo, small);
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

  private async isSettled(photo: Pixels, face: Found): Promise<boolean> {
    return (await this.upright(photo, face)) === face && (await this.isFace(photo, face));
  }

  /** The faces in the photo rotated by each of the quarter turns. */
  private async inTurnedPhoto(photo: Pixels, small: Halved): Promise<Found[][]> {
    const [{ search }, faces]: [DetectorRule, Found[][]] = [this.rule, []];
    for (const angle of search.quarters) {
      const looks: Found[] = [];
      for (const zoom of [1, search.margin]) looks.push(...(await this.lookAround(small, zoom, angle)));
      faces.push(await this.confirmed(photo, looks, search.turned_min_score, angle));
    }
    return faces;
  }

  /** The candidates detected again at their best size, or with a sufficient score anyway. */
  private async confirmed(photo: Pixels, looks: Found[], least: number, angle = 0): Promise<Found[]> {
    const faces: Found[] = [];
    for (const candidate of this.suppressed(looks)) {
      const seen = await this.again(photo, candidate, this.rule.search.second_look, angle);
      if (seen && seen.score >= least) faces.push(seen);
      else if (candidate.score >= least) faces.push(candidate);
    }
    return faces;
  }

  /** Detect a face again in a rotated square around it, `zoom` times as large. */
  private async again(photo: Pixels, face: Found, zoom: number, angle: number): Promise<Found | null> {
    const side = zoom * Math.max(face.x1 - face.x0, face.y1 - face.y0);
    const square = squareAt((face.x0 + face.x1) / 2, (face.y0 + face.y1) / 2, side);
    const seen = this.suppressed(await this.look(photo, { ...square, angle }));
    return seen.find((other) => overlap(face, other) > this.rule.nms.same_face_iou) ?? null;
  }

  /** The candidates with their heads' rotation, without false and nested ones. */
  private async checked(
    photo: Pixels,
    found: Found[],
    isFace: (photo: Pixels, face: Found) => Promise<boolean>,
  ): Promise<Found[]> {
    const faces: Found[] = [];
    for (const candidate of found) {
      const face = await this.upright(photo, candidate);
      if (await isFace(photo, face)) faces.push(face);
    }
    return withoutNested(faces, this.rule.nms.nested_share);
  }

  /** A face as detected in a rotated square, if its score is higher there and its head is turned. */
  private async upright(photo: Pixels, face: Found): Promise<Found> {
    const { search } = this.rule;
    if (face.score >= search.sure_score) return face;
    let [best, least] = [face, face.score + search.turn_margin];
    for (const angle of search.quarters) {
      const seen = await this.again(photo, face, search.second_look, angle);
      if (seen && seen.score > least && turnOf(seen.keypoints, this.crop.min_turn)) [best, least] = [seen, seen.score];
    }
    return best;
  }

  /** Whether its score is high enough, FaceMesh confirms it, or BlazeFace does in a wider square. */
  private async isFace(photo: Pixels, face: Found): Promise<boolean> {
    if (face.score >= this.rule.search.sure_score) return true;
    this.mesh ??= this.openMesh();
    if ((await meshScore(await this.mesh, this.check, photo, face)) >= this.check.min_score) return true;
    const afar = await this.again(photo, face, this.check.afar, turnOf(face.keypoints, this.crop.min_turn));
    return afar !== null && afar.score >= this.check.min_afar_score;
  }

  /** The candidates in a rotated square around the whole photo, `zoom` times as wide as its longer side. */
  private async lookAround([small, factor]: Halved, zoom = 1, angle = 0): Promise<Found[]> {
    const found = await this.look(small, around(small, zoom, angle));
    return found.map((face) => enlarged(face, factor));
  }

  private async look(photo: Pixels, square: Box): Promise<Found[]> {
    const { input, decode } = this.rule;
    const [size] = input.shape;
    const values = Float32Array.from(cropSquare(photo, square, size), (value) => value * input.multiply + input.add);
    const outputs = await runNamed(this.model, values, [1, ...input.shape]);
    const [numbers, logits] = [outputs.regressors, outputs.classificators];
    const found: Found[] = [];
    this.centers.forEach(([centerX, centerY], i) => {
      const score = 1 / (1 + Math.exp(-logits[i]));
      if (score < decode.candidate_score) return;
      const pairs = Array.from({ length: 8 }, (_, j) =>
        Array.from(numbers.subarray(16 * i + 2 * j, 16 * i + 2 * j + 2), (value) => value / size),
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

  /** From BlazeFace's square to the standard crop: see cropping.box_from_detector. */
  private standard(face: Found): ScoredBox {
    const side = (face.x1 - face.x0 + face.y1 - face.y0) / 2;
    const angle = turnOf(face.keypoints, this.crop.min_turn);
    const down = this.crop.detector_shift * side;
    const x = (face.x0 + face.x1) / 2 - down * Math.sin(angle);
    const y = (face.y0 + face.y1) / 2 + down * Math.cos(angle);
    return { ...squareAt(x, y, this.crop.detector_scale * side), angle, score: face.score };
  }
}

/** The rotated square around a whole photo, `zoom` times as wide as its longer side. */
function around(photo: Size, zoom = 1, angle = 0): Box {
  const side = zoom * Math.max(photo.width, photo.height);
  return { ...squareAt(photo.width / 2, photo.height / 2, side), angle };
}
