// Pictures from any source to pixels, and drawing of faces on them.

import type { Face } from "./face";
import type { Box } from "./image";

const LARGEST = 1600; // px of a photo's longer side; larger photos are shrunk

/** The picture's pixels, on white if it is transparent; throws if the browser cannot read it. */
export async function pixels(source: ImageBitmapSource): Promise<ImageData> {
  const bitmap = await createImageBitmap(source, { imageOrientation: "from-image" });
  const zoom = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(Math.round(side * zoom), 1));
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

/** Draw the photo with the landmarks of a face, or only the photo. */
export function drawFace(canvas: HTMLCanvasElement, photo: ImageData, face: Pick<Face, "landmarks" | "box"> | null): void {
  canvas.width = photo.width;
  canvas.height = photo.height;
  const context = canvas.getContext("2d")!;
  context.putImageData(photo, 0, 0);
  if (!face) return;
  context.fillStyle = "#37e08a";
  for (let i = 0; i < face.landmarks.length; i += 3) {
    context.beginPath();
    context.arc(face.landmarks[i] + 0.5, face.landmarks[i + 1] + 0.5, face.box.side / 110, 0, 2 * Math.PI);
    context.fill();
  }
}

/** Draw a square of a photo in the size of the canvas. */
export function drawSquare(canvas: HTMLCanvasElement, photo: ImageData, { x0, y0, side }: Box): void {
  const whole = new OffscreenCanvas(photo.width, photo.height);
  whole.getContext("2d")!.putImageData(photo, 0, 0);
  canvas.getContext("2d")!.drawImage(whole, x0, y0, side, side, 0, 0, canvas.width, canvas.height);
}
