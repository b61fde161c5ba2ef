// The page answers as comparisons.json says, which lies beside this file when it runs.

import { describe, expect, it } from "vitest";

import { answer, type Calibration, inWords } from "./comparison";
import table from "./comparisons.json";

describe("the golden comparisons", () => {
  it.each(table)("$name", ({ calibration, probabilities, ...one }) => {
    const result = answer(calibration as Calibration | null, one);
    expect(result.probability_by).toBe(one.probability_by);
    expect(Object.keys(result.probabilities).sort()).toEqual(Object.keys(probabilities).sort());
    for (const [kind, value] of Object.entries(probabilities)) {
      expect(result.probabilities[kind as keyof Calibration]).toBeCloseTo(value as number, 9);
    }
    if (one.probability === null) return expect(inWords(result)).not.toContain("%");
    expect(result.probability).toBeCloseTo(one.probability, 9);
    expect(inWords(result)).toContain(`${Math.round(100 * one.probability)} % (by ${one.probability_by})`);
  });
});
