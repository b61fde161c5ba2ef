import { type Answer, inWords } from "./comparison";
import { Detector } from "./detector";
import { type Face, type Model, Reconstructor } from "./face";
import { boxOfLandmarks } from "./image";
import * as litert from "./litert";
import { OneEuro } from "./one_euro";
import { View } from "./view";

const LARGEST = 1600; // px of a photo's longer side; larger ones are made smaller
const element = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const picture = element<HTMLCanvasElement>("picture");
const found = element("found");

let reconstructor: Reconstructor;
let view: View;
let current: { face: Face; photo: ImageData } | null = null;
let stream: MediaStream | null = null;

declare global {
  interface Window {
    /** For tests: the last face and the last comparison, as the page has them. */
    scnn?: { face: Face; glb: () => Promise<ArrayBuffer>; answer?: Answer };
  }
}

async function start(): Promise<void> {
  await litert.start("/wasm/");
  const model: Model = await (await fetch("/model/model.json")).json();
  const maps = await (await fetch("/model/maps.bin")).arrayBuffer();
  const [network, blazeface] = await Promise.all(
    ["/model/scnn.tflite", "/model/blazeface.tflite"].map(litert.open),
  );
  const openMesh = () => litert.open("/model/facemesh.tflite");
  reconstructor = new Reconstructor(model, network, new Detector(blazeface, model.crop, openMesh));
  view = new View(element("view"), model, maps);
  say("choose a photo, or start the camera");
  document.body.dataset.ready = "true";
}

function say(text: string, isError = false): void {
  found.textContent = text;
  found.classList.toggle("error", isError);
}

async function pixels(source: ImageBitmapSource): Promise<ImageData> {
  const bitmap = await createImageBitmap(source, { imageOrientation: "from-image" });
  const zoom = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.round(side * zoom));
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true })!;
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

async function readPhoto(input: HTMLInputElement): Promise<{ face: Face; photo: ImageData } | null> {
  const file = input.files?.[0];
  input.value = "";
  if (!file) return null;
  let photo: ImageData;
  try {
    photo = await pixels(file);
  } catch {
    say(`${file.name} is no picture that this browser can read`, true);
    return null;
  }
  const face = await reconstructor.reconstruct(photo);
  if (!face) say(`no face found in ${file.name}`, true);
  return face && { face, photo };
}

async function show(face: Face, photo: ImageData, begin: number, landmarks = face.landmarks): Promise<void> {
  current = { face, photo };
  window.scnn = { face, glb: () => view.glb() };
  picture.width = photo.width;
  picture.height = photo.height;
  const context = picture.getContext("2d")!;
  context.putImageData(photo, 0, 0);
  dots(context, landmarks, face.box.side);
  const [pitch, yaw, roll] = Array.from(face.degrees, (angle) => angle.toFixed(0));
  say(`pitch ${pitch}°, yaw ${yaw}°, roll ${roll}°`);
  element<HTMLButtonElement>("download").disabled = false;
  if (stream) view.follow(face, photo).catch((error) => say(String(error), true));
  const texture = stream ? null : await view.show(face, photo);
  const parts = [`network ${face.networkMs.toFixed(1)} ms`, `everything ${(performance.now() - begin).toFixed(0)} ms`];
  if (texture) parts.splice(1, 0, `texture ${texture.toFixed(0)} ms`);
  element("speed").textContent = parts.join(", ");
}

function dots(context: CanvasRenderingContext2D, points: Float32Array, side: number): void {
  context.fillStyle = "#37e08a";
  for (let i = 0; i < points.length; i += 3) {
    context.beginPath();
    context.arc(points[i] + 0.5, points[i + 1] + 0.5, side / 110, 0, 2 * Math.PI);
    context.fill();
  }
}

async function choosePhoto(input: HTMLInputElement): Promise<void> {
  stopCamera();
  const begin = performance.now();
  const result = await readPhoto(input);
  if (result) await show(result.face, result.photo, begin);
}

async function compare(input: HTMLInputElement): Promise<void> {
  if (!current) return say("choose a first photo before the one to compare it with", true);
  stopCamera();
  const first = current;
  const second = await readPhoto(input);
  if (!second) return;
  const result = reconstructor.compare(first.face, second.face);
  window.scnn = { ...window.scnn!, answer: result };
  element("verdict").textContent = inWords(result);
  [first, second].forEach((result, i) => thumbnail(["first", "second"][i], result.face, result.photo));
  element("comparison").hidden = false;
}

function thumbnail(id: string, face: Face, photo: ImageData): void {
  const canvas = element<HTMLCanvasElement>(id);
  const whole = new OffscreenCanvas(photo.width, photo.height);
  whole.getContext("2d")!.putImageData(photo, 0, 0);
  const { x0, y0, side } = face.box;
  canvas.getContext("2d")!.drawImage(whole, x0, y0, side, side, 0, 0, canvas.width, canvas.height);
}

async function toggleCamera(): Promise<void> {
  if (stream) return stopCamera();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
  } catch {
    return say("no camera, or it may not be used", true);
  }
  element("camera").setAttribute("aria-pressed", "true");
  const video = document.createElement("video");
  video.srcObject = stream;
  video.playsInline = true;
  await video.play();
  await follow(video, stream);
}

/** One frame after the other; the last frame's landmarks say where to look. */
async function follow(video: HTMLVideoElement, own: MediaStream): Promise<void> {
  const [points, shape] = [new OneEuro(), new OneEuro(0.5, 0.01)];
  let last: Face | null = null;
  while (stream === own) {
    const begin = performance.now();
    const photo = await pixels(video);
    const near: Face | null = last;
    const face = await reconstructor.reconstruct(photo, near);
    last = face && isPlausible(face, near) ? face : null;
    if (last && stream === own) {
      const seconds = begin / 1000;
      const smooth = { ...last, vertices: shape.filter(last.vertices, seconds) };
      void show(smooth, photo, begin, points.filter(last.landmarks, seconds));
    } else {
      points.reset();
      shape.reset();
      if (!last) say("no face in sight");
    }
    await new Promise(requestAnimationFrame);
  }
}

/** A face that was lost makes landmarks that jump; then it is looked for anew. */
function isPlausible(face: Face, before: Face | null): boolean {
  if (!before) return true;
  const [now, then] = [boxOfLandmarks(face.landmarks), before.box];
  return now.side < 1.5 * then.side && now.side > then.side / 1.5;
}

function stopCamera(): void {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  element("camera").setAttribute("aria-pressed", "false");
}

async function download(): Promise<void> {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([await view.glb()], { type: "model/gltf-binary" }));
  link.download = "face.glb";
  link.click();
  URL.revokeObjectURL(link.href);
}

const on = (id: string, kind: string, work: (target: HTMLInputElement) => Promise<unknown>) =>
  element(id).addEventListener(kind, (event) => {
    work(event.currentTarget as HTMLInputElement).catch((error) => say(String(error), true));
  });
on("photo", "change", choosePhoto);
on("other", "change", compare);
on("camera", "click", toggleCamera);
on("download", "click", download);
start().catch((error) => say(`cannot start: ${error}`, true));
