import { describe, expect, it } from "vitest";

import { spreadOut } from "./blending";
import { labOf, lightFromLab } from "./color";
import { solve } from "./light";
import { blur, components, dilate, enlarge, erode, median, quantile, shrink, square } from "./maps";
import { interpolate, rasterize, smoothNormals } from "./raster";

const dot = (side: number, at: number) => new Float32Array(side * side).map((_, i) => Number(i === at));

describe("colors", () => {
  it("are CIE L*a*b* of D65", () => {
    // Of sRGB's red and of middle gray, by Lindbloom's calculator.
    expect(labOf([1, 0, 0]).map(Math.round)).toEqual([53, 80, 67]);
    expect(labOf([0.18, 0.18, 0.18])[0]).toBeCloseTo(49.5, 1);
  });

  it("come back", () => {
    for (const light of [[0.5, 0.3, 0.2], [0.002, 0.004, 0.001]]) {
      lightFromLab(labOf(light)).forEach((value, k) => expect(value).toBeCloseTo(light[k], 3));
    }
  });
});

describe("maps", () => {
  it("have medians and quantiles as NumPy's", () => {
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(quantile([0, 10, 20, 30], 0.7)).toBeCloseTo(21);
    expect(median([])).toBeNaN();
  });

  it("keep their sum when blurred, and their constant up to the edge", () => {
    const sum = blur(dot(21, 220), 21, 1.5).reduce((total, value) => total + value, 0);
    expect(sum).toBeCloseTo(1, 5);
    blur(new Float32Array(48).fill(3), 8, 2).forEach((value) => expect(value).toBeCloseTo(3, 5));
  });

  it("grow and shrink by a shape", () => {
    const cross = [0, 1, 0];
    expect([...dilate(dot(5, 12), 5, cross)].flatMap((value, at) => (value ? [at] : []))).toEqual([7, 11, 12, 13, 17]);
    expect(erode(dilate(dot(7, 24), 7, square(3)), 7, square(3))).toEqual(dot(7, 24));
    expect(erode(new Float32Array(9).fill(1), 3, square(3))).toEqual(new Float32Array(9).fill(1)); // the edge is open
  });

  it("fall into areas, by four neighbors or by eight", () => {
    const diagonal = Uint8Array.from([1, 1, 0, 0, 0, 1, 0, 0, 1]);
    expect(components(diagonal, 3).sizes).toEqual([0, 2, 2]);
    expect(components(diagonal, 3, true).sizes).toEqual([0, 4]);
    expect(components(Uint8Array.from([0, 0, 1, 1, 0, 0]), 3).sizes).toEqual([0, 1, 1]); // no way round the edge
  });

  it("become smaller by the means of areas, and larger between centers", () => {
    expect([...shrink([0, 2, 4, 6, 8, 10], 6, 1, 1, [3, 1])]).toEqual([1, 5, 9]);
    expect([...shrink([0, 3, 6], 3, 1, 1, [2, 1])]).toEqual([1, 5]); // a pixel and a half each
    expect([...enlarge(Float32Array.of(0, 4, 0, 4), 2, 1, 4)].slice(0, 4)).toEqual([0, 1, 3, 4]);
  });
});

describe("differences that are spread out", () => {
  it("solve the screened Poisson equation", () => {
    const [side, rule] = [6, { GRID: 6, REACH: 0.5, TRUST: 20, GAMMA: 2.2 }];
    const inside = new Uint8Array(36).map((_, at) => Number(at !== 14));
    const known = new Float32Array(36).map((_, at) => (at % 5 === 0 ? 0.8 : 0));
    const wanted = new Float32Array(108).map((_, i) => Math.sin(i));
    const found = spreadOut(rule, wanted, known, inside, side);
    const cells = [...inside.keys()].filter((at) => inside[at]);
    const rows = cells.map((at) => {
      const row = new Float64Array(cells.length + 1);
      const near = [at % side ? at - 1 : -1, at % side < side - 1 ? at + 1 : -1, at - side, at + side];
      const weight = rule.TRUST * known[at] ** 2;
      row[cells.indexOf(at)] = weight + 1 / (rule.REACH * side) ** 2;
      for (const to of near.filter((other) => inside[other])) {
        row[cells.indexOf(at)]++;
        row[cells.indexOf(to)]--;
      }
      row[cells.length] = weight * wanted[3 * at + 1];
      return row;
    });
    solve(rows).forEach((value, i) => expect(found[3 * cells[i] + 1]).toBeCloseTo(value, 3));
    expect(found[3 * 14 + 1]).toBe(0);
  });
});

describe("the rasterizer", () => {
  it("takes the nearer of two triangles", () => {
    const points = Float32Array.from([0, 0, 1, 0, 9, 1, 9, 0, 1, 0, 0, 5, 0, 9, 5, 9, 0, 5]);
    expect(rasterize(points, [0, 1, 2, 3, 4, 5], 10, 10).triangle[11]).toBe(1);
  });

  it("leaves out triangles seen from behind, if asked to", () => {
    const points = Float32Array.from([0, 0, 0, 0, 9, 0, 9, 0, 0]);
    const isSeen = (triangle: number[]) => rasterize(points, triangle, 10, 10, true).triangle[11] === 0;
    expect([isSeen([0, 1, 2]), isSeen([0, 2, 1])]).toEqual([true, false]);
  });

  it("goes from corner to corner evenly", () => {
    const points = Float32Array.from([0, 0, 0, 0, 8, 0, 8, 0, 0]);
    const values = interpolate(rasterize(points, [0, 1, 2], 10, 10), [0, 1, 2], points);
    expect([...values.slice(3 * 23, 3 * 24)]).toEqual([3, 2, 0]);
  });
});

describe("normals", () => {
  it("are one for all vertices in a place", () => {
    // A fold of two triangles along y, whose edge has two vertices at each end.
    const points = Float32Array.from([0, 0, 0, 0, 1, 0, -1, 0, -1, 0, 0, 0, 0, 1, 0, 1, 0, -1]);
    const normals = smoothNormals(points, [0, 1, 2, 3, 5, 4], [0, 1, 2, 0, 1, 5]);
    [0, 3].forEach((vertex) => expect([...normals.slice(3 * vertex, 3 * vertex + 3)]).toEqual([0, 0, 1]));
    expect(normals[3 * 2]).toBeLessThan(-0.7);
  });
});
