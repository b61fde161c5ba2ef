// The page: the actions of its buttons, and its messages.

import { Bars } from "./bars";
import { Camera } from "./camera";
import { type Answer, inWords } from "./comparison";
import { Detector } from "./detector";
import { type Face, type Model, Reconstructor } from "./face";
import { Files, interleaved } from "./files";
import * as litert from "./litert";
import { drawFace, drawSquare, pixels } from "./photos";
import { View } from "./view";

const THUMBNAIL = 64; // px
const MB = 1e6;
const LATER_MS = 1000;
const element = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const picture = element<HTMLCanvasElement>("picture");

interface Shot {
  photo: ImageData;
  faces: Face[];
}

let files: Files;
let reconstructor: Reconstructor;
let camera: Camera;
let view: View;
let bars: Bars;
let accelerator: string;
let shot: Shot | null = null;
let chosen = 0; // of the shot's faces
let newest = 0; // counts the user's requests: results of older ones are dropped

declare global {
  interface Window {
    /** For tests: the last face and the last comparison. */
    scnn?: { face: Face; faces: Face[]; accelerator: string; glb: () => Promise<ArrayBuffer>; answer?: Answer };
  }
}

async function start(): Promise<void> {
  files = await Files.open(showProgress);
  const isGpu = await litert.wantsGpu();
  const runtime = await litert.runtimeName(isGpu);
  const names = ["model.json", "maps.bin", "scnn.bin", "blazeface.tflite"];
  files.expect(...names.map((name) => `model/${name}`), ...[".js", ".wasm"].map((end) => `${files.runtime}/${runtime}${end}`));
  const [[text, maps, network, blazeface]] = await Promise.all([
    Promise.all(names.map((name) => files.model(name))),
    ...[".js", ".wasm"].map((end) => files.warm(runtime + end)),
  ]);
  await litert.start(`${files.runtime}/${runtime}.js`);
  const model: Model = JSON.parse(new TextDecoder().decode(text));
  const compiled = await litert.openFastest(interleaved(network), model.crop.size, isGpu);
  accelerator = compiled.accelerator;
  const openMesh = async () => litert.open(await files.model("facemesh.tflite"));
  const detector = new Detector(await litert.open(blazeface), model.detector, model.check, model.crop, openMesh);
  reconstructor = new Reconstructor(model, compiled.network, detector);
  camera = new Camera(reconstructor);
  view = new View(element("view"), model, maps.buffer);
  bars = new Bars(element("bars"), model.expression_names);
  element("expression").hidden = !model.expression_names.length;
  ready();
}

function ready(): void {
  for (const id of ["photo", "camera", "other", "sample"]) element<HTMLInputElement>(id).disabled = false;
  element("progress").hidden = true;
  say("choose a photo, or start the camera");
  document.body.dataset.ready = "true";
  // For uncertain faces; loading it now makes it available offline.
  setTimeout(() => files.model("facemesh.tflite").catch(() => {}), LATER_MS);
}

function showProgress(done: number, total: number): void {
  if (element("found").classList.contains("error")) return; // keep a failed file's message while others still load
  element<HTMLProgressElement>("progress").value = done / total;
  element("found").textContent = `loading ${(done / MB).toFixed(1)} of ${(total / MB).toFixed(1)} MB`;
}

function say(text: string, isError = false): void {
  const found = element("found");
  found.ariaBusy = "false"; // true while loading, so that screen readers skip the byte counts
  if (found.textContent !== text) found.textContent = text; // so that screen readers announce it once
  found.classList.toggle("error", isError);
}

/** Show an error, without an older face beside it. */
function fail(text: string): void {
  clear();
  say(text, true);
}

function clear(): void {
  shot = null;
  window.scnn = undefined;
  view?.clear();
  element("result").hidden = true;
  element("comparison").hidden = true;
  element("welcome").hidden = false;
  element("faces").hidden = true;
  element("faces").replaceChildren();
  for (const id of ["angles", "speed"]) element(id).textContent = "";
  bars?.clear();
  element<HTMLButtonElement>("download").disabled = true;
}

/** The faces of a picture; null if there is a newer request, or `report` showed an error. */
async function read(source: Blob, name: string, report: (text: string) => void): Promise<Shot | null> {
  const order = ++newest;
  say(`reading ${name} …`);
  let photo: ImageData;
  try {
    photo = await pixels(source);
  } catch {
    if (order === newest) report(`${name} is not a picture that this browser can read`);
    return null;
  }
  const faces = await reconstructor.all(photo);
  if (order !== newest) return null;
  if (!faces.length) report(`no face found in ${name}`);
  return faces.length ? { photo, faces } : null;
}

async function showPhoto(source: Blob, name: string): Promise<void> {
  stopCamera();
  const begin = performance.now();
  const found = await read(source, name, fail);
  if (!found) return;
  clear();
  shot = found;
  listFaces(found);
  await choose(0, begin);
}

/** Show a button for each face, if there are several. */
function listFaces({ photo, faces }: Shot): void {
  const home = element("faces");
  home.hidden = faces.length < 2;
  home.replaceChildren(
    ...faces.map((face, i) => {
      const button = document.createElement("button");
      const canvas = Object.assign(document.createElement("canvas"), { width: THUMBNAIL, height: THUMBNAIL });
      button.ariaLabel = `face ${i + 1} of ${faces.length}`;
      drawSquare(canvas, photo, face.box);
      button.append(canvas);
      button.addEventListener("click", () => guarded(choose(i, performance.now())));
      return button;
    }),
  );
}

/** Show one of the shot's faces. */
async function choose(i: number, begin: number): Promise<void> {
  if (!shot) return; // cleared in the meantime
  const { photo, faces } = shot;
  chosen = i;
  [...element("faces").children].forEach((button, k) => button.setAttribute("aria-pressed", String(k === i)));
  tell(photo, faces[i], faces);
  say(faces.length > 1 ? `face ${i + 1} of ${faces.length}` : "one face");
  const textureMs = await view.show(faces[i], photo);
  if (shot?.faces === faces) {
    element("speed").textContent = `${speed(faces[i])}, texture ${ms(textureMs)}, everything ${ms(performance.now() - begin)}`;
  }
}

/** Show everything about a face but the mesh. */
function tell(photo: ImageData, face: Face, faces: Face[]): void {
  window.scnn = { face, faces, accelerator, glb: () => view.glb() };
  element("result").hidden = false;
  element("welcome").hidden = true;
  element<HTMLButtonElement>("download").disabled = false;
  drawFace(picture, photo, face);
  bars.show(face.expression);
  element("angles").textContent = angles(face);
}

const ms = (value: number) => `${value.toFixed(0)} ms`;
const speed = (face: Face) => `network ${face.networkMs.toFixed(1)} ms (${accelerator === "webgpu" ? "WebGPU" : "WebAssembly"})`;

function angles(face: Face): string {
  const [pitch, yaw, roll] = Array.from(face.degrees, (angle) => angle.toFixed(0));
  return `pitch ${pitch}°, yaw ${yaw}°, roll ${roll}°`;
}

async function compare(source: Blob, name: string): Promise<void> {
  if (!shot) return fail("choose a first photo before the one to compare it with");
  stopCamera();
  element("comparison").hidden = true;
  const first = { photo: shot.photo, face: shot.faces[chosen] };
  const found = await read(source, name, (text) => say(text, true));
  if (!found) return;
  const second = { photo: found.photo, face: found.faces[0] };
  const result = reconstructor.compare(first.face, second.face);
  window.scnn = { ...window.scnn!, answer: result };
  drawSquare(element("first"), first.photo, first.face.box);
  drawSquare(element("second"), second.photo, second.face.box);
  element("comparison").hidden = false; // screen readers announce only changes of visible elements
  element("verdict").textContent = inWords(result);
  element("comparison").scrollIntoView({ block: "nearest" });
  say(`compared with ${name}`);
}

async function toggleCamera(): Promise<void> {
  if (camera.isOn) return stopCamera();
  const order = ++newest;
  clear();
  say("starting the camera …");
  try {
    await camera.open();
  } catch {
    return order === newest ? fail("no camera, or no permission to use it") : undefined;
  }
  if (order !== newest) return stopCamera(); // a photo was chosen in the meantime
  element("camera").ariaPressed = "true";
  await camera.run(showFrame);
}

function showFrame(photo: ImageData, face: Face | null, begin: number): void {
  if (!face) {
    clear();
    element("result").hidden = false;
    element("welcome").hidden = true;
    drawFace(picture, photo, null);
    return say("no face in sight");
  }
  shot = { photo, faces: [face] };
  chosen = 0;
  element("faces").hidden = true;
  tell(photo, face, shot.faces);
  say("a face in sight");
  guarded(view.follow(face, photo));
  element("speed").textContent = `${speed(face)}, everything ${ms(performance.now() - begin)}`;
}

function stopCamera(): void {
  camera.stop();
  element("camera").ariaPressed = "false";
}

async function download(): Promise<void> {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([await view.glb()], { type: "model/gltf-binary" }));
  link.download = "face.glb";
  link.click();
  URL.revokeObjectURL(link.href);
}

async function sample(): Promise<void> {
  const { src } = element("sample").querySelector("img")!;
  await showPhoto(await (await fetch(src)).blob(), "the sample picture");
}

function guarded(work: Promise<unknown>): void {
  work.catch((error) => {
    stopCamera();
    fail(String(error));
  });
}

/** Show the first pasted or dropped picture; another kind of file leads to an error message. */
function take(given: DataTransfer | null, event: Event): void {
  const all = [...(given?.files ?? [])];
  const file = all.find(({ type }) => type.startsWith("image/")) ?? all[0];
  if (!file) return;
  event.preventDefault(); // otherwise the browser leaves the page to show the file
  if (!document.body.dataset.ready) return;
  guarded(showPhoto(file, file.name));
}

function chooses(id: string, work: (file: File, name: string) => Promise<void>): void {
  const input = element<HTMLInputElement>(id);
  input.addEventListener("change", () => {
    const file = input.files?.[0];
    input.value = ""; // so that the same file can be chosen again
    if (file) guarded(work(file, file.name));
  });
}

chooses("photo", showPhoto);
chooses("other", compare);
element("camera").addEventListener("click", () => guarded(toggleCamera()));
element("download").addEventListener("click", () => guarded(download()));
element("sample").addEventListener("click", () => guarded(sample()));
addEventListener("paste", (event) => take(event.clipboardData, event));
addEventListener("drop", (event) => take(event.dataTransfer, event));
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
for (const end of ["drop", "dragleave"]) addEventListener(end, () => document.body.classList.remove("dropping"));
start().catch((error) => {
  element("progress").hidden = true;
  say(`cannot start: ${error}; reload the page to try again`, true);
});
