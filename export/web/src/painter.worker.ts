// The worker of painter.ts: it receives the map first, and then one photo after another.

import { Atlas } from "./atlas";
import type { Order } from "./painter";
import { paintTexture } from "./texture";

let atlas: Atlas;

self.onmessage = ({ data }: MessageEvent<Order>) => {
  if ("chart" in data) {
    atlas = new Atlas(data.chart, data.maps);
    return;
  }
  try {
    const begin = performance.now();
    const pixels = paintTexture(atlas, data.photo, data.posed);
    self.postMessage({ pixels, ms: performance.now() - begin }, { transfer: [pixels.buffer] });
  } catch (error) {
    self.postMessage({ error: String(error) });
  }
};
