import { describe, expect, it } from "vitest";

import { anchors, overlap, suppress } from "./detector";
import { project } from "./face";
import { boxOfLandmarks, cropSquare } from "./image";
import { OneEuro } from "./one_euro";

const face = (x0: number, y0: number, x1: number, y1: number, score: number) => ({ x0, y0, x1, y1, score });

function ramp(width: number, height: number): ImageData {
  const data = new Uint8ClampedArray(4 * width * height);
  for (let i = 0; i < width * height; i++) data.set([i % width, Math.floor(i / width), 7, 255], 4 * i);
  return { data, width, height, colorSpace: "srgb" } as ImageData;
}

describe("crops", () => {
  it("copy a square of the same size unchanged", () => {
    const crop = cropSquare(ramp(20, 16), { x0: 5, y0: 2, side: 8 }, 8);
    expect(Array.from(crop.slice(0, 6))).toEqual([5, 2, 7, 6, 2, 7]);
    expect(Array.from(crop.slice(-3))).toEqual([12, 9, 7]);
  });

  it("are black outside of the photo", () => {
    const crop = cropSquare(ramp(20, 16), { x0: -30, y0: -30, side: 8 }, 8);
    expect(Math.max(...crop)).toBe(0);
  });

  it("average whole blocks where the square is larger", () => {
    const crop = cropSquare(ramp(64, 64), { x0: 0, y0: 0, side: 32 }, 8);
    // The first block's columns are 0 to 3, their mean 1.5, which rounds to 2.
    expect(crop[0]).toBe(2);
    expect(crop[3]).toBe(6);
  });

  it("stand about the landmarks, with the diagonal as side", () => {
    const box = boxOfLandmarks(Float32Array.from([10, 10, 5, 40, 50, -5]));
    expect(box).toEqual({ x0: 0.5, y0: 5.5, side: 50 });
  });
});

describe("BlazeFace", () => {
  it("has 896 anchors, two a cell of stride 8 and six a cell of stride 16", () => {
    const all = anchors();
    expect(all.length).toBe(896);
    expect(all[0]).toEqual([4 / 128, 4 / 128]);
    expect(all[895]).toEqual([120 / 128, 120 / 128]);
  });

  it("makes one face of boxes that overlap, weighted by score", () => {
    const found = suppress([face(0, 0, 10, 10, 0.9), face(1, 0, 11, 10, 0.3), face(50, 50, 60, 60, 0.5)]);
    expect(found.length).toBe(2);
    expect(found[0].x0).toBeCloseTo(0.25);
    expect(found[0].score).toBe(0.9);
    expect(overlap(face(0, 0, 10, 10, 1), face(5, 0, 15, 10, 1))).toBeCloseTo(1 / 3);
  });
});

describe("the camera", () => {
  it("maps points by its rows", () => {
    const camera = Float32Array.from([2, 0, 0, 10, 0, -2, 0, 20, 0, 0, 2, 0]);
    expect(Array.from(project(camera, Float32Array.from([1, 2, 3])))).toEqual([12, 16, 6]);
  });
});

describe("the One Euro filter", () => {
  it("follows a step more the longer it lasts, and smooths noise", () => {
    const filter = new OneEuro(1, 0);
    filter.filter(Float32Array.of(0), 0);
    const first = filter.filter(Float32Array.of(1), 0.1)[0];
    // 1 / (1 + 1 / (2 pi 1 Hz 0.1 s)), the paper's equation
    expect(first).toBeCloseTo(0.3859, 3);
    expect(filter.filter(Float32Array.of(1), 0.2)[0]).toBeGreaterThan(first);
  });

  it("follows fast things more closely", () => {
    const [lazy, quick] = [new OneEuro(1, 0), new OneEuro(1, 1)];
    for (const filter of [lazy, quick]) filter.filter(Float32Array.of(0), 0);
    expect(quick.filter(Float32Array.of(9), 0.1)[0]).toBeGreaterThan(lazy.filter(Float32Array.of(9), 0.1)[0]);
  });
});
