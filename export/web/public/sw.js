// Caches everything the page has loaded, so that it opens again offline; one cache per version of the page.

const prefix = `keras-scnn ${self.registration.scope} `;
const name = prefix + new URL(self.location.href).searchParams.get("version");

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("fetch", (event) => {
  const { method, url, mode } = event.request;
  if (method !== "GET" || new URL(url).origin !== self.location.origin) return;
  const isFresh = mode === "navigate" || url.endsWith("/files.json"); // which defines the other files' version
  event.respondWith(isFresh ? networkFirst(event) : cacheFirst(event));
});

/** The page itself was loaded before this worker: load it again, mostly from the browser's own cache. */
async function install() {
  const { files } = await (await fetch("files.json", { cache: "no-cache" })).json();
  const shell = Object.keys(files).filter((path) => !/^(model|wasm|about)|^(sw\.js|files\.json)$/.test(path));
  // Revalidate the browser's own cache, which may have files of an older version.
  const fresh = ["./", "files.json", ...shell].map((path) => new Request(path, { cache: "no-cache" }));
  await (await caches.open(name)).addAll(fresh);
  await self.skipWaiting();
}

async function activate() {
  const old = (await caches.keys()).filter((key) => key.startsWith(prefix) && key !== name);
  await Promise.all(old.map((key) => caches.delete(key)));
  await self.clients.claim();
}

async function cacheFirst(event) {
  return (await (await caches.open(name)).match(event.request)) ?? fetchAndKeep(event);
}

async function networkFirst(event) {
  try {
    return await fetchAndKeep(event);
  } catch (error) {
    const kept = await (await caches.open(name)).match(event.request, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}

async function fetchAndKeep(event) {
  const response = await fetch(event.request);
  if (response.status === 200) {
    const copy = response.clone();
    event.waitUntil(caches.open(name).then((cache) => cache.put(event.request, copy)));
  }
  return response;
}
