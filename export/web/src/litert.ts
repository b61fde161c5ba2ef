// Runs .tflite files with LiteRT: on the GPU with WebGPU, or in WebAssembly.

import { type CompiledModel, loadAndCompile, loadLiteRt, supportsFeature, Tensor } from "@litertjs/core";

type Numbers = Float32Array<ArrayBuffer> | Uint8Array<ArrayBuffer>;

const FORCED = new URLSearchParams(globalThis.location?.search).get("accelerator"); // webgpu or wasm
const MOST_APART = 0.1; // px, difference of landmarks between the GPU and WebAssembly
const TRIES = 5;
let isTrying = false; // while testing whether the GPU can run a network

/** A network and its accelerator. */
export interface Compiled {
  network: CompiledModel;
  accelerator: "webgpu" | "wasm";
}

/** Whether to try the GPU; a software fallback is slower than WebAssembly. */
export async function wantsGpu(): Promise<boolean> {
  if (FORCED === "wasm" || !(await supportsFeature("jspi")) || !(await supportsFeature("relaxedSimd"))) return false;
  const adapter = await navigator.gpu?.requestAdapter();
  return Boolean(adapter && (FORCED === "webgpu" || !adapter.info.isFallbackAdapter));
}

/** Name of the runtime's script for this browser, and of its WebAssembly. */
export async function runtimeName(isGpu: boolean): Promise<string> {
  if (isGpu) return "litert_wasm_jspi_internal";
  return (await supportsFeature("relaxedSimd")) ? "litert_wasm_internal" : "litert_wasm_compat_internal";
}

export async function start(script: string): Promise<void> {
  quieten();
  await loadLiteRt(script);
}

/** LiteRT logs everything as console errors: log messages that are not errors at debug level. */
function quieten(): void {
  const { error, debug } = console;
  console.error = (...words) => (isTrying || /^(INFO|WARNING|VERBOSE):/.test(String(words[0])) ? debug : error)(...words);
}

export async function open(content: Uint8Array): Promise<CompiledModel> {
  return loadAndCompile(content, { accelerator: "wasm" });
}

/** Open a network for crops on the GPU, if it is as exact there and faster; otherwise in WebAssembly. */
export async function openFastest(content: Uint8Array, size: number, isGpu: boolean): Promise<Compiled> {
  const safe = await open(content);
  if (!isGpu) return { network: safe, accelerator: "wasm" };
  try {
    isTrying = true; // WebAssembly runs operations that the GPU lacks, which are not errors
    const fast = await loadAndCompile(content, { accelerator: "webgpu", gpuOptions: { precision: "fp32" } });
    const crop = Uint8Array.from({ length: size * size * 3 }, (_, i) => 128 + 64 * Math.sin(i / 97) + 60 * Math.cos(i / 1237));
    const [slow, quick] = [await timed(safe, crop, size), await timed(fast, crop, size)];
    const apart = Math.max(...slow.landmarks.map((value, i) => Math.abs(value - quick.landmarks[i])));
    if (apart < MOST_APART && (quick.ms < slow.ms || FORCED)) {
      safe.delete();
      return { network: fast, accelerator: "webgpu" };
    }
    fast.delete();
    console.info(`using WebAssembly: with WebGPU landmarks differ by ${apart.toFixed(2)} px, in ${quick.ms} instead of ${slow.ms} ms`);
  } catch (error) {
    console.info(`using WebAssembly: ${error}`);
  } finally {
    isTrying = false;
  }
  return { network: safe, accelerator: "wasm" };
}

async function timed(network: CompiledModel, crop: Uint8Array<ArrayBuffer>, size: number) {
  const { landmarks } = await runNamed(network, crop, [1, size, size, 3]);
  const begin = performance.now();
  for (let i = 0; i < TRIES; i++) await runNamed(network, crop, [1, size, size, 3]);
  return { landmarks, ms: (performance.now() - begin) / TRIES };
}

let last: Promise<unknown> = Promise.resolve();

/** Run a network with one input, after all earlier requests; returns outputs by name. */
export function runNamed(
  model: CompiledModel,
  values: Numbers,
  shape: number[],
): Promise<Record<string, Float32Array>> {
  const work = last.then(() => runNow(model, values, shape));
  last = work.catch(() => {});
  return work;
}

async function runNow(model: CompiledModel, values: Numbers, shape: number[]): Promise<Record<string, Float32Array>> {
  const input = new Tensor(values, shape);
  const name = model.getInputDetails()[0].name;
  const outputs = await Promise.resolve(model.run({ [name]: input })).finally(() => input.delete());
  const found: Record<string, Float32Array> = {};
  for (const [key, tensor] of Object.entries(outputs)) {
    const here = tensor.accelerator === "wasm" ? tensor : await tensor.moveTo("wasm");
    found[key] = Float32Array.from(here.toTypedArray() as Float32Array);
    here.delete();
  }
  return found;
}
