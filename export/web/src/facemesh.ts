// Confirms BlazeFace's detections with FaceMesh: see keras_scnn.photos.facemesh.

import type { CompiledModel } from "@litertjs/core";

import type { Found } from "./blazeface";
import { cropSquare, type Pixels, squareAt } from "./image";
import { runNamed } from "./litert";

/** Part of model.json: see export/pipeline.py. */
export interface CheckRule {
  input: { shape: number[]; multiply: number; add: number };
  score: string;
  crop_scale: number;
  min_score: number;
  afar: number;
  min_afar_score: number;
}

/** FaceMesh's confidence, 0 to 1, that there is a face. */
export async function meshScore(model: CompiledModel, rule: CheckRule, photo: Pixels, face: Found): Promise<number> {
  const [[leftX, leftY], [rightX, rightY]] = face.keypoints;
  const side = rule.crop_scale * Math.max(face.x1 - face.x0, face.y1 - face.y0);
  const square = squareAt((face.x0 + face.x1) / 2, (face.y0 + face.y1) / 2, side);
  const angle = Math.atan2(rightY - leftY, rightX - leftX);
  const crop = cropSquare(photo, { ...square, angle }, rule.input.shape[0]);
  const input = Float32Array.from(crop, (value) => value * rule.input.multiply + rule.input.add);
  const outputs = await runNamed(model, input, [1, ...rule.input.shape]);
  const [logit] = outputs[rule.score];
  return 1 / (1 + Math.exp(-logit));
}
