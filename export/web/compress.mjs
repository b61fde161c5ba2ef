// Writes FILE.br and FILE.gz beside every compressible file of a folder: node compress.mjs FOLDER QUALITY
// QUALITY, 1 to 11, is Brotli's; 11 takes a minute or two on one core, mostly for the WebAssembly.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { brotliCompress, constants, gzip } from "node:zlib";

const LEAST_BYTES = 1000;
const DONE = /\.(br|gz|jpg|zip)$/;
const [folder, quality] = process.argv.slice(2);
const brotli = { params: { [constants.BROTLI_PARAM_QUALITY]: Number(quality), [constants.BROTLI_PARAM_LGWIN]: 24 } };

await Promise.all(
  readdirSync(folder, { recursive: true, withFileTypes: true }).map(async (entry) => {
    const path = join(entry.parentPath ?? entry.path, entry.name);
    if (!entry.isFile() || DONE.test(path)) return;
    const content = readFileSync(path);
    if (content.length < LEAST_BYTES) return;
    writeFileSync(`${path}.br`, await promisify(brotliCompress)(content, brotli));
    writeFileSync(`${path}.gz`, await promisify(gzip)(content, { level: 9 }));
  }),
);
