// The page's cropper cuts the crops of crops.json, which lies beside this file when it runs.

import { describe, expect, it } from "vitest";

import table from "./crops.json";
import { type Box, cropSquare } from "./image";

interface Case {
  name: string;
  photo: number[];
  box?: (number | string)[];
  center?: (number | string)[];
  side?: number | string;
  degrees?: number;
  crop?: string;
}

/** The pattern of make_crops.py. */
function photo([width, height]: number[]): ImageData {
  const data = new Uint8ClampedArray(4 * width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let channel = 0; channel < 3; channel++) {
        data[4 * (y * width + x) + channel] = ((x * x + 3 * x * y + 5 * y * (channel + 1)) >> 3) & 255;
      }
    }
  }
  return { data, width, height, colorSpace: "srgb" } as ImageData;
}

/** The case as the page's square; undefined where its box is no exact square. */
function square(one: Case): Box | undefined {
  if (one.box) {
    const [x0, y0, x1, y1] = one.box.map(Number);
    const isSquare = !(Math.abs(x1 - x0 - (y1 - y0)) > 1e-9);
    return isSquare ? { x0, y0, side: x1 - x0 } : undefined;
  }
  const [[x, y], side] = [one.center!.map(Number), Number(one.side)];
  return { x0: x - side / 2, y0: y - side / 2, side, angle: (one.degrees! * Math.PI) / 180 };
}

const withSquare = (cases: Case[]) => cases.filter(square);

describe("the golden crops", () => {
  it.each(withSquare(table.cases))("$name", (one) => {
    const crop = cropSquare(photo(one.photo), square(one)!, table.size);
    const expected = Uint8Array.from(atob(one.crop!), (letter) => letter.charCodeAt(0));
    const differences = Array.from(crop, (value, i) => Math.abs(value - expected[i]));
    expect(crop.length).toBe(expected.length);
    expect(Math.max(...differences)).toBeLessThanOrEqual(1);
  });

  it.each(withSquare(table.refused))("refused: $name", (one) => {
    expect(() => cropSquare(photo(one.photo), square(one)!, table.size)).toThrow(RangeError);
  });
});
