import { describe, expect, it } from "vitest";

import { anchors, type DetectorRule, enlarged, overlap, type Point, suppress, turnedWith, withoutNested } from "./blazeface";
import { certainty, measure, photoQuality } from "./comparison";
import { isClear, turnOf } from "./detector";
import { eulerDegrees, type Face, project, turned } from "./face";
import { interleaved } from "./files";
import { boxOfLandmarks, cropSquare, halved, photoFromCrop, uprightBox } from "./image";
import { OneEuro } from "./one_euro";

function face(x0: number, y0: number, x1: number, y1: number, score: number) {
  return { x0, y0, x1, y1, score, keypoints: [[x0, y0]] as Point[] };
}

function ramp(width: number, height: number): ImageData {
  const data = new Uint8ClampedArray(4 * width * height);
  for (let i = 0; i < width * height; i++) data.set([i % width, Math.floor(i / width), 7, 255], 4 * i);
  return { data, width, height, colorSpace: "srgb" } as ImageData;
}

describe("a photo's quality", () => {
  it("is the inverse of a shape's expected variance", () => {
    const of = (yaw: number, score: number, side: number) =>
      photoQuality({ degrees: [0, yaw, 0], score, box: { x0: 0, y0: 0, side } });
    expect(of(0, 0.9, 1e6)).toBeCloseTo(1, 9);
    expect(of(-55, 0.9, 1e6)).toBeCloseTo(0.5, 9);
    expect(of(0, 0.8, 1e6)).toBeCloseTo(Math.exp(-0.6), 9);
    expect(of(0, 0.9, 25)).toBeCloseTo(0.5, 9);
  });

  it("leaves as much certainty as Python gives it", () => {
    expect(certainty(1, 1.7)).toBe(1);
    expect(certainty(0.5, 1.4)).toBeCloseTo(0.5 ** 0.4, 12);
  });
});

describe("a comparison", () => {
  it("has a cosine from -1 to 1, however features are rounded", () => {
    const features = Float32Array.of(0.6, 0.8); // in single precision a little longer than 1
    const one = { identity: new Float32Array(1), features, degrees: [0, 0, 0], score: 1, box: { side: 100 } } as unknown as Face;
    const other = { ...one, features: features.map((value) => -value) };
    const space = { coordinates: [[1]], scaled_coordinates: null };
    expect(measure(space, one, one).cosine).toBe(1);
    expect(measure(space, one, other).cosine).toBe(-1);
  });
});

describe("a file in two halves", () => {
  it.each([4, 5])("of %d bytes comes together as Python took it apart", (length) => {
    const bytes = Uint8Array.from({ length }, (_, i) => i + 1);
    const planes = [...bytes.filter((_, i) => i % 2 === 0), ...bytes.filter((_, i) => i % 2)];
    expect(interleaved(Uint8Array.from(planes))).toEqual(bytes);
  });
});

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

describe("a large photo", () => {
  it("is halved until it is small enough, means rounded up", () => {
    // Columns 0 1 | 2 3 | 4 5 | 6 7 have the means 0.5, 2.5, 4.5, 6.5; then 1 3 | 5 7 have 2 and 6.
    const [small, factor] = halved(ramp(8, 4), 4);
    expect(factor).toBe(4);
    expect(small).toEqual({ width: 2, height: 1, data: Uint8ClampedArray.from([2, 2, 7, 255, 6, 2, 7, 255]) });
  });

  it.each([[8, 4, 9], [9, 4, 4], [8, 5, 4]])("of %d x %d px and the limit %d stays", (width, height, limit) => {
    const photo = ramp(width, height);
    expect(halved(photo, limit)).toEqual([photo, 1]);
  });
});

describe("a turned square", () => {
  it("by a quarter shows the photo's right as its top", () => {
    // Clockwise by 90 degrees: the crop's x axis points down in the photo.
    const box = { x0: 4, y0: 4, side: 8, angle: Math.PI / 2 };
    const crop = cropSquare(ramp(20, 16), box, 8);
    expect(Array.from(crop.slice(0, 6))).toEqual([11, 4, 7, 11, 5, 7]);
    const corner = photoFromCrop(box, 8)(0, 0);
    expect(corner[0]).toBeCloseTo(11);
    expect(corner[1]).toBeCloseTo(4);
  });

  it("about a head that lies on its side is the upright head's square, turned", () => {
    // Upright at (0, 0), (20, 0), (20, 40), seen after a quarter turn clockwise about the origin.
    const lying = Float32Array.from([0, 0, 1, 0, 20, 1, -40, 20, 1]);
    const box = uprightBox(lying, Math.PI / 2);
    expect(box.side).toBeCloseTo(Math.hypot(20, 40), 4);
    expect(box.x0 + box.side / 2).toBeCloseTo(-19.5, 4);
    expect(box.y0 + box.side / 2).toBeCloseTo(10.5, 4);
  });
});

describe("the head's angles", () => {
  const identity = Float32Array.from([1, 0, 0, 0, 1, 0, 0, 0, 1]);

  it("of no rotation are 0, and of a turned photo roll alone", () => {
    expect(eulerDegrees(identity).map(Math.abs)).toEqual([0, 0, 0]);
    const [pitch, yaw, roll] = eulerDegrees(turned(identity, Math.PI / 6));
    expect(Math.abs(pitch)).toBeCloseTo(0);
    expect(Math.abs(yaw)).toBeCloseTo(0);
    expect(roll).toBeCloseTo(30); // Rz = [c s 0; -s c 0; 0 0 1], as in 300W-LP's files
  });
});

const layers = [{ stride: 8, per_cell: 2 }, { stride: 16, per_cell: 6 }];
const search = { clear_score: 0.8, clear_share: [0.15, 0.7] };
const rule = { input: { shape: [128, 128, 3] }, anchors: { layers }, search } as DetectorRule;

describe("BlazeFace", () => {
  it("has 896 anchors, two a cell of stride 8 and six a cell of stride 16", () => {
    const all = anchors(rule);
    expect(all.length).toBe(896);
    expect(all[0]).toEqual([4 / 128, 4 / 128]);
    expect(all[895]).toEqual([120 / 128, 120 / 128]);
  });

  it("makes one face of boxes that overlap, weighted by score", () => {
    const found = suppress([face(0, 0, 10, 10, 0.9), face(1, 0, 11, 10, 0.3), face(50, 50, 60, 60, 0.5)], 0.3);
    expect(found.length).toBe(2);
    expect(found[0].x0).toBeCloseTo(0.25);
    expect(found[0].keypoints[0][0]).toBeCloseTo(0.25);
    expect(found[0].score).toBe(0.9);
    expect(overlap(face(0, 0, 10, 10, 1), face(5, 0, 15, 10, 1))).toBeCloseTo(1 / 3);
  });
});

describe("faces in each other", () => {
  it("leave the one with the highest score; one beside it stays", () => {
    const [large, inside, around] = [face(0, 0, 10, 10, 0.9), face(4, 4, 8, 8, 0.7), face(-20, -20, 40, 40, 0.8)];
    const beside = face(6, 0, 16, 10, 0.65);
    expect(withoutNested([inside, beside, large, around], 0.5)).toEqual([large, beside]);
  });
});

describe("a face of a halved photo", () => {
  it("is so many times as large, with its keypoints", () => {
    expect(enlarged(face(1, 2, 5, 8, 0.9), 4)).toEqual({ ...face(4, 8, 20, 32, 0.9), keypoints: [[4, 8]] });
  });
});

describe("a turned head", () => {
  const head: Point[] = [[-3, -2], [3, -2], [0, 1], [0, 4], [-6, -2], [6, -2]];
  const clockwise = (degrees: number): Point[] => {
    const [cos, sin] = [Math.cos((degrees * Math.PI) / 180), Math.sin((degrees * Math.PI) / 180)];
    return head.map(([x, y]) => [cos * x - sin * y, sin * x + cos * y]);
  };

  it.each([0, 40, 75, -75, 85, -120])("by %d degrees is taken as such beyond 80", (degrees) => {
    const expected = Math.abs(degrees) > 80 ? degrees : 0;
    expect((turnOf(clockwise(degrees), (80 * Math.PI) / 180) * 180) / Math.PI).toBeCloseTo(expected);
  });

  it("seen in a square turned by a quarter is below its center where it was right of it", () => {
    const seen = turnedWith({ x0: 0, y0: 0, side: 20, angle: Math.PI / 2 }, face(14, 9, 18, 11, 0.5));
    expect(seen.x0).toBeCloseTo(8);
    expect(seen.y0).toBeCloseTo(15);
    expect(seen.x1).toBeCloseTo(12);
    expect(seen.keypoints[0][0]).toBeCloseTo(11);
    expect(seen.keypoints[0][1]).toBeCloseTo(14);
  });
});

describe("a clear face", () => {
  const clear = face(20, 20, 60, 60, 0.9);

  it("is the only one, sure, and neither small nor as large as the photo", () => {
    expect(isClear([clear], 100, rule.search)).toBe(true);
    expect(isClear([clear, face(80, 80, 90, 90, 0.4)], 100, rule.search)).toBe(false);
    expect(isClear([{ ...clear, score: 0.79 }], 100, rule.search)).toBe(false);
    expect(isClear([clear], 300, rule.search)).toBe(false);
    expect(isClear([clear], 50, rule.search)).toBe(false);
    expect(isClear([], 100, rule.search)).toBe(false);
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
