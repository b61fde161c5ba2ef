// The files of the page: their sizes, download progress, and the service worker that caches them.

interface List {
  version: string;
  /** The folder of LiteRT's WebAssembly. */
  runtime: string;
  /** By path: size in bytes, and the bytes sent by a server that compresses. */
  files: Record<string, { bytes: number; sent: number }>;
}

const CONTROL_MS = 3000; // how long to wait for the service worker before continuing without it

export class Files {
  private readonly parts = new Map<string, number>();

  private constructor(
    private readonly list: List,
    private readonly onProgress: (done: number, total: number) => void,
  ) {}

  /** `onProgress` is called with the received and the total bytes of the expected files. */
  static async open(onProgress: (done: number, total: number) => void): Promise<Files> {
    const answer = await fetch("files.json", { cache: "no-cache" });
    if (!answer.ok) throw new Error(`files.json: ${answer.status} ${answer.statusText}`);
    const list: List = await answer.json();
    await underControl(list.version);
    return new Files(list, onProgress);
  }

  get runtime(): string {
    return this.list.runtime;
  }

  /** Announce files that will be read, so that the progress includes them. */
  expect(...paths: string[]): void {
    for (const path of paths) this.parts.set(path, 0);
    this.report();
  }

  address(path: string): string {
    return `${path}?${this.list.version}`;
  }

  /** A file of the folder model/. */
  async model(name: string): Promise<Uint8Array<ArrayBuffer>> {
    return this.read(`model/${name}`, this.address(`model/${name}`));
  }

  /** Load a file of the runtime into the cache, from which the runtime itself will load it. */
  async warm(name: string): Promise<void> {
    await this.read(`${this.runtime}/${name}`, `${this.runtime}/${name}`);
  }

  private async read(path: string, address: string): Promise<Uint8Array<ArrayBuffer>> {
    const answer = await fetch(address);
    if (!answer.ok || !answer.body) throw new Error(`${path}: ${answer.status} ${answer.statusText}`);
    const content = new Uint8Array(this.list.files[path].bytes);
    const reader = answer.body.getReader();
    let length = 0;
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      if (length + part.value.length > content.length) throw new Error(`${path} is longer than listed in files.json`);
      content.set(part.value, length);
      length += part.value.length;
      if (!this.parts.has(path)) continue;
      this.parts.set(path, length / content.length);
      this.report();
    }
    if (length < content.length) throw new Error(`${path} is truncated`);
    return content;
  }

  private report(): void {
    let [done, total] = [0, 0];
    for (const [path, share] of this.parts) {
      const { sent } = this.list.files[path];
      done += share * sent;
      total += sent;
    }
    this.onProgress(done, total);
  }
}

/** Register the service worker and wait for it, so that it caches every file; the page also works without it. */
async function underControl(version: string): Promise<void> {
  const workers = navigator.serviceWorker; // missing without https or localhost
  if (!workers) return;
  const isReady = new Promise<void>((resolve) => {
    workers.addEventListener("controllerchange", () => resolve(), { once: true });
    setTimeout(resolve, CONTROL_MS);
  });
  try {
    const registration = await workers.register(`sw.js?version=${version}`);
    if (!registration.active?.scriptURL.endsWith(`=${version}`)) await isReady;
  } catch (error) {
    console.info(`not cached for offline use: ${error}`);
  }
}

/** Merge a file stored as its bytes at even positions followed by those at odd positions. */
export function interleaved(planes: Uint8Array): Uint8Array<ArrayBuffer> {
  const content = new Uint8Array(planes.length);
  const half = Math.ceil(planes.length / 2);
  for (let i = 0; i < half; i++) content[2 * i] = planes[i];
  for (let i = half; i < planes.length; i++) content[2 * (i - half) + 1] = planes[i];
  return content;
}
