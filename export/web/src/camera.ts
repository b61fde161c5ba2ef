// Smoothed faces from a camera's frames, one after another.

import type { Face, Reconstructor } from "./face";
import { boxOfLandmarks } from "./image";
import { OneEuro } from "./one_euro";
import { pixels } from "./photos";

/** Called for each frame; `face` is null if none is visible. */
export type Seen = (photo: ImageData, face: Face | null, begin: number) => void;

export class Camera {
  private stream: MediaStream | null = null;

  constructor(private readonly reconstructor: Reconstructor) {}

  get isOn(): boolean {
    return this.stream !== null;
  }

  /** Throws if there is no camera, or no permission to use it. */
  async open(): Promise<void> {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
    this.stop();
    this.stream = stream;
  }

  /** Follow the largest face until the camera is stopped; each frame's landmarks give the next crop. */
  async run(seen: Seen): Promise<void> {
    const { stream } = this;
    const video = document.createElement("video");
    video.srcObject = stream;
    video.playsInline = true;
    await video.play();
    const smooth = new Smoother();
    let last: Face | null = null;
    while (stream && this.stream === stream) {
      const begin = performance.now();
      const photo = await pixels(video);
      const face: Face | null = await this.reconstructor.follow(photo, last);
      last = face && isPlausible(face, last) ? face : null;
      if (this.stream !== stream) return;
      seen(photo, smooth.filter(last, begin / 1000), begin);
      await new Promise(requestAnimationFrame);
    }
  }

  stop(): void {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
  }
}

/** One Euro filters for the displayed values of a face. */
class Smoother {
  private readonly filters = {
    landmarks: new OneEuro(),
    vertices: new OneEuro(0.5, 0.01),
    expression: new OneEuro(1, 0.5),
  };

  filter(face: Face | null, seconds: number): Face | null {
    if (!face) {
      Object.values(this.filters).forEach((filter) => filter.reset());
      return null;
    }
    const { landmarks, vertices, expression } = this.filters;
    return {
      ...face,
      landmarks: landmarks.filter(face.landmarks, seconds),
      vertices: vertices.filter(face.vertices, seconds),
      expression: expression.filter(face.expression, seconds),
    };
  }
}

/** If the face is lost, the landmarks jump, and it must be detected again. */
function isPlausible(face: Face, before: Face | null): boolean {
  if (!before) return true;
  const [now, then] = [boxOfLandmarks(face.landmarks), before.box];
  return now.side < 1.5 * then.side && now.side > then.side / 1.5;
}
