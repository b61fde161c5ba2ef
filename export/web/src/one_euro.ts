// Casiez, Roussel, Vogel, "1 EUR Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
// Interactive Systems", 2012: strong smoothing at rest, weak smoothing in motion.

export class OneEuro {
  private values: Float32Array | null = null;
  private speeds = new Float32Array();
  private seconds = 0;

  /**
   * @param minCutoff Hz, for values at rest.
   * @param beta increase of the cutoff with speed, Hz per (unit per second).
   * @param speedCutoff Hz, of the speed itself.
   */
  constructor(
    private readonly minCutoff = 1.2,
    private readonly beta = 0.02,
    private readonly speedCutoff = 1,
  ) {}

  reset(): void {
    this.values = null;
  }

  filter(values: Float32Array, seconds: number): Float32Array {
    const step = seconds - this.seconds;
    this.seconds = seconds;
    if (!this.values || this.values.length !== values.length || step <= 0) {
      this.speeds = new Float32Array(values.length);
      this.values = values.slice();
      return values;
    }
    const before = this.values;
    const trust = share(this.speedCutoff, step);
    this.values = values.map((value, i) => {
      const speed = (value - before[i]) / step;
      this.speeds[i] += trust * (speed - this.speeds[i]);
      const cutoff = this.minCutoff + this.beta * Math.abs(this.speeds[i]);
      return before[i] + share(cutoff, step) * (value - before[i]);
    });
    return this.values;
  }
}

function share(cutoff: number, step: number): number {
  return 1 / (1 + 1 / (2 * Math.PI * cutoff * step));
}
