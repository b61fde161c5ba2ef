// Whether FaceMesh sees a face where BlazeFace does: see keras_scnn.photos.facemesh.

import type { CompiledModel } from "@litertjs/core";

import type { Found } from "./detector";
import { cropSquare, squareAt } from "./image";
import { runNamed } from "./litert";

const INPUT = 192;
const CROP_SCALE = 1.5;

/** From 0 to 1: how sure FaceMesh is that there is a face. */
export async function meshScore(model: CompiledModel, photo: ImageData, face: Found): Promise<number> {
  const [[leftX, leftY], [rightX, rightY]] = face.keypoints;
  const side = CROP_SCALE * Math.max(face.x1 - face.x0, face.y1 - face.y0);
  const square = squareAt((face.x0 + face.x1) / 2, (face.y0 + face.y1) / 2, side);
  const angle = Math.atan2(rightY - leftY, rightX - leftX);
  const crop = cropSquare(photo, { ...square, angle }, INPUT);
  const input = Float32Array.from(crop, (value) => value / 255);
  const outputs = await runNamed(model, input, [1, INPUT, INPUT, 3]);
  const [logit] = Object.values(outputs).find((values) => values.length === 1)!;
  return 1 / (1 + Math.exp(-logit));
}
