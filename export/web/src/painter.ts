// Paints textures in a worker, so that the page is not blocked.

import type { Chart } from "./atlas";

export interface Painted {
  /** RGBA of the map, first row at v = 1. */
  pixels: Uint8ClampedArray<ArrayBuffer>;
  ms: number;
}

export type Order = { chart: Chart; maps: ArrayBuffer } | { photo: ImageData; posed: Float32Array };

export class Painter {
  private readonly worker = new Worker(new URL("./painter.worker.ts", import.meta.url), { type: "module" });
  private broken: Error | null = null; // set if the worker failed
  private readonly waiting: { resolve: (painted: Painted) => void; reject: (error: Error) => void }[] = [];

  constructor(chart: Chart, maps: ArrayBuffer) {
    this.worker.onmessage = ({ data }: MessageEvent<Painted | { error: string }>) => {
      const first = this.waiting.shift();
      if ("error" in data) first?.reject(new Error(data.error));
      else first?.resolve(data);
    };
    this.worker.onerror = ({ message }) => this.fail(message);
    this.worker.onmessageerror = () => this.fail("");
    this.send({ chart, maps }, [maps]);
  }

  get isBusy(): boolean {
    return this.waiting.length > 0;
  }

  /** The texture of a face; `posed` is N x (x, y, depth), px of the photo. */
  paint(photo: ImageData, posed: Float32Array): Promise<Painted> {
    if (this.broken) return Promise.reject(this.broken);
    this.send({ photo, posed });
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }

  private fail(message: string): void {
    this.broken = new Error(message || "the texture cannot be made");
    for (const { reject } of this.waiting.splice(0)) reject(this.broken);
  }

  private send(order: Order, given: Transferable[] = []): void {
    this.worker.postMessage(order, given);
  }
}
