// The .tflite files, run by LiteRT in WebAssembly.

import { type CompiledModel, loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";

type Numbers = Float32Array<ArrayBuffer> | Uint8Array<ArrayBuffer>;

export async function start(folder: string): Promise<void> {
  await loadLiteRt(folder);
}

export async function open(url: string): Promise<CompiledModel> {
  return loadAndCompile(url, { accelerator: "wasm" });
}

/** Run a network of one input; outputs by name. */
export async function runNamed(
  model: CompiledModel,
  values: Numbers,
  shape: number[],
): Promise<Record<string, Float32Array>> {
  const input = new Tensor(values, shape);
  const name = model.getInputDetails()[0].name;
  const outputs = await model.run({ [name]: input });
  input.delete();
  const found: Record<string, Float32Array> = {};
  for (const [key, tensor] of Object.entries(outputs)) {
    found[key] = Float32Array.from(tensor.toTypedArray() as Float32Array);
    tensor.delete();
  }
  return found;
}
