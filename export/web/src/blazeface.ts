// BlazeFace's detections, as in keras_scnn.photos.blazeface.

import type { Box } from "./image";

/** Part of model.json, with the package's constants: see export/pipeline.py. */
export interface DetectorRule {
  input: { shape: number[]; multiply: number; add: number };
  anchors: { layers: { stride: number; per_cell: number }[] };
  decode: { candidate_score: number };
  nms: { same_face_iou: number; nested_share: number };
  search: {
    halve_from: number;
    clear_score: number;
    clear_share: number[];
    margin: number;
    second_look: number;
    min_score: number;
    sure_score: number;
    turn_margin: number;
    quarters: number[];
    turned_min_score: number;
  };
}

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

/** Centers of the anchors, as fractions of the input, in output order. */
export function anchors({ input, anchors: { layers } }: DetectorRule): Point[] {
  const centers: Point[] = [];
  for (const { stride, per_cell } of layers) {
    const cells = input.shape[0] / stride;
    for (let i = 0; i < cells * cells; i++) {
      const center: Point = [((i % cells) + 0.5) / cells, (Math.floor(i / cells) + 0.5) / cells];
      for (let copy = 0; copy < per_cell; copy++) centers.push(center);
    }
  }
  return centers;
}

/** Weighted non-maximum suppression: one box per face, highest score first. */
export function suppress(found: Found[], sameFace: number): Found[] {
  let left = [...found].sort((a, b) => b.score - a.score);
  const faces: Found[] = [];
  while (left.length) {
    const [best] = left;
    const same = left.filter((other) => other === best || overlap(best, other) > sameFace);
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

/** Faces not nested with one of a higher score; highest score first. */
export function withoutNested(found: Found[], nestedShare: number): Found[] {
  const kept: Found[] = [];
  for (const face of [...found].sort((a, b) => b.score - a.score)) {
    const isNested = (other: Found) =>
      sharedArea(face, other) > nestedShare * Math.min(area(face), area(other));
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

/** From a detection in a rotated square to the photo: see blazeface.rotate_detections. */
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

/** A face in coordinates of a photo that is `factor` times as large. */
export function enlarged(face: Found, factor: number): Found {
  const [x0, y0, x1, y1] = [face.x0, face.y0, face.x1, face.y1].map((value) => value * factor);
  return { x0, y0, x1, y1, score: face.score, keypoints: face.keypoints.map(([x, y]) => [x * factor, y * factor]) };
}
