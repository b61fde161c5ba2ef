// The page's textures of the photos in the folder PHOTOS, written beside them for test_page.py to compare.

import { readFileSync, writeFileSync } from "node:fs";
import { expect, it } from "vitest";

import { Atlas } from "./atlas";
import { paintTexture } from "./texture";

const folder = process.env.PHOTOS!;
const { names, width, height, chart } = JSON.parse(readFileSync(`${folder}/photos.json`, "utf8"));

function bytes(name: string): ArrayBuffer {
  return new Uint8Array(readFileSync(`${folder}/${name}`)).buffer;
}

const atlas = new Atlas(chart, bytes("maps.bin"));

it.each(names as string[])("%s is painted", (name) => {
  const photo = { data: new Uint8Array(bytes(`${name}.rgba`)), width, height };
  const pixels = paintTexture(atlas, photo, new Float32Array(bytes(`${name}.posed`)));
  expect(pixels.length).toBe(4 * atlas.size ** 2);
  writeFileSync(`${folder}/${name}.texture`, pixels);
});
