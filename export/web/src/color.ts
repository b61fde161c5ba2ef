// sRGB, linear light and CIE L*a*b* (D65), as in keras_scnn.geometry.colors.

export type Triple = [number, number, number];

export function linearFromSrgb(value: number): number {
  return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
}

export function srgbFromLinear(light: number): number {
  const value = Math.min(Math.max(light, 0), 1);
  return value <= 0.0031308 ? value * 12.92 : 1.055 * value ** (1 / 2.4) - 0.055;
}

// ITU-R BT.709's primaries and D65, divided by the white point.
const XYZ = [
  [0.412453 / 0.950456, 0.35758 / 0.950456, 0.180423 / 0.950456],
  [0.212671, 0.71516, 0.072169],
  [0.019334 / 1.088754, 0.119193 / 1.088754, 0.950227 / 1.088754],
];
const RGB = [
  [3.240479 * 0.950456, -1.53715, -0.498535 * 1.088754],
  [-0.969256 * 0.950456, 1.875991, 0.041556 * 1.088754],
  [0.055648 * 0.950456, -0.204043, 1.057311 * 1.088754],
];
const CUT = 0.008856;

/** L, a, b of linear light, clipped to 0 to 1, written to `out` at `to`. */
export function labFromLinear(light: ArrayLike<number>, at: number, out: Float32Array, to: number): void {
  const r = Math.min(Math.max(light[at], 0), 1);
  const g = Math.min(Math.max(light[at + 1], 0), 1);
  const b = Math.min(Math.max(light[at + 2], 0), 1);
  const y = XYZ[1][0] * r + XYZ[1][1] * g + XYZ[1][2] * b;
  const fx = root(XYZ[0][0] * r + XYZ[0][1] * g + XYZ[0][2] * b);
  const fy = root(y);
  out[to] = y > CUT ? 116 * fy - 16 : 903.3 * y;
  out[to + 1] = 500 * (fx - fy);
  out[to + 2] = 200 * (fy - root(XYZ[2][0] * r + XYZ[2][1] * g + XYZ[2][2] * b));
}

/** L, a, b of one color. */
export function labOf(light: ArrayLike<number>): Triple {
  const out = new Float32Array(3);
  labFromLinear(light, 0, out, 0);
  return [out[0], out[1], out[2]];
}

/** Linear light, 0 to 1, from L, a, b. */
export function lightFromLab([lightness, a, b]: ArrayLike<number> & Iterable<number>): Triple {
  const fy = lightness > 903.3 * CUT ? (lightness + 16) / 116 : 7.787 * (lightness / 903.3) + 16 / 116;
  const y = lightness > 903.3 * CUT ? fy ** 3 : lightness / 903.3;
  const [x, z] = [fy + a / 500, fy - b / 200].map((f) => (f > 6 / 29 ? f ** 3 : (f - 16 / 116) / 7.787));
  return RGB.map((row) => Math.min(Math.max(row[0] * x + row[1] * y + row[2] * z, 0), 1)) as Triple;
}

function root(value: number): number {
  return value > CUT ? Math.cbrt(value) : 7.787 * value + 16 / 116;
}
