// Opens the page in Chromium and prints what it found as JSON.
// node browse.mjs PAGE_FOLDER ADDRESS tour PHOTO OTHER TWO_FACES   goes through all that the page does
// node browse.mjs PAGE_FOLDER ADDRESS PHOTO OTHER PHOTO OTHER ...  only compares the pairs
// node browse.mjs PAGE_FOLDER ADDRESS colors PHOTO ...              the pixels that it shows of photos
// node browse.mjs PAGE_FOLDER ADDRESS broken                       a site that lacks a file

import { createRequire } from "node:module";
import { existsSync, mkdtempSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

const [folder, address, ...words] = process.argv.slice(2);
const { chromium } = createRequire(join(folder, "package.json"))("playwright-core");
const flags = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--use-gl=angle",
  "--use-angle=swiftshader",
  "--enable-unsafe-swiftshader",
  "--enable-unsafe-webgpu", // imitated; the page takes it where it is asked to only
  "--use-fake-ui-for-media-stream",
  "--use-fake-device-for-media-stream",
  ...(existsSync("camera.mjpeg") ? [`--use-file-for-fake-video-capture=${resolve("camera.mjpeg")}`] : []),
];
const profile = mkdtempSync(join(tmpdir(), "chromium-"));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: flags,
  viewport: { width: 1280, height: 900 },
});
const problems = [];
const foreign = [];
const page = browser.pages()[0] ?? (await browser.newPage());
watch(page);

await page.addInitScript(() => {
  // Playwright takes seconds to hand over a million numbers.
  window.base64 = (bytes) =>
    new Promise((done) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result.split(",")[1]);
      reader.readAsDataURL(new Blob([bytes]));
    });
  window.drawn = 0;
  const { drawElements } = WebGL2RenderingContext.prototype;
  WebGL2RenderingContext.prototype.drawElements = function (...shape) {
    window.drawn++;
    drawElements.apply(this, shape);
  };
  window.said = []; // what is read out
  addEventListener("DOMContentLoaded", () => {
    const found = document.getElementById("found");
    new MutationObserver(() => window.said.push(found.textContent)).observe(found, { childList: true });
  });
});
await page.goto(address);
if (words[0] !== "broken") await ready(page);
const modes = { tour, colors, broken };
const outputs = words[0] in modes ? await modes[words[0]](...words.slice(1)) : await pairs(words);
await browser.close();
process.stdout.write(JSON.stringify(outputs));

function watch(tab) {
  tab.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  tab.on("pageerror", (error) => problems.push(String(error)));
  tab.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(address) && !/^(data|blob):/.test(url)) foreign.push(url);
  });
}

async function ready(tab) {
  await tab.waitForSelector("body[data-ready]", { timeout: 90000 });
}

/** What stands on the page once all files have come or failed. */
async function broken() {
  await page.waitForSelector("#found.error", { timeout: 90000 });
  await page.waitForLoadState("networkidle");
  return { said: await page.textContent("#found"), hasBar: await page.isVisible("#progress") };
}

/** Width, height and RGBA values of each photo, with its landmarks, as the page shows it. */
async function colors(...photos) {
  const shown = [];
  for (const photo of photos) {
    await page.evaluate(() => (window.scnn = undefined));
    await page.setInputFiles("#photo", photo);
    await page.waitForFunction(() => window.scnn);
    shown.push(await page.evaluate(async () => {
      const { width, height } = document.getElementById("picture");
      const { data } = document.getElementById("picture").getContext("2d").getImageData(0, 0, width, height);
      return { width, height, rgba: await window.base64(data) };
    }));
  }
  return shown;
}

async function pairs(photos) {
  const answers = [];
  for (let i = 0; i < photos.length; i += 2) {
    await page.evaluate(() => (window.scnn = undefined));
    await page.setInputFiles("#photo", photos[i]);
    await page.waitForFunction(() => window.scnn);
    const score = await page.evaluate(() => window.scnn.face.score);
    await page.setInputFiles("#other", photos[i + 1]);
    await page.waitForFunction(() => window.scnn.answer);
    answers.push({ ...(await page.evaluate(() => window.scnn.answer)), score, verdict: await page.textContent("#verdict") });
  }
  return answers;
}

async function tour(photo, other, two) {
  const found = { progress: await page.evaluate(() => window.said.filter((text) => /^loading/.test(text)).at(-1)) };
  await page.setInputFiles("#photo", photo);
  await page.waitForFunction(() => window.scnn);
  Object.assign(found, await reconstruction());
  await page.setInputFiles("#other", other);
  await page.waitForSelector("#comparison:not([hidden])");
  found.verdict = await page.textContent("#verdict");
  found.looks = await looks();
  found.keys = await keys();
  await page.setViewportSize({ width: 1280, height: 900 });
  found.faces = await chooseFaces(two);
  found.pasted = await handOver("paste", other);
  found.dropped = await handOver("drop", photo);
  found.refusal = await refusal();
  found.camera = await followCamera();
  found.offline = await withoutNetwork();
  return { ...found, webgpu: await onGraphicsCard(photo), problems, foreign };
}

async function reconstruction() {
  return page.evaluate(async () => ({
    accelerator: window.scnn.accelerator,
    vertices: Array.from(window.scnn.face.vertices),
    landmarks: Array.from(window.scnn.face.landmarks),
    expression: Array.from(window.scnn.face.expression),
    bars: Object.fromEntries([...document.querySelectorAll("meter")].map((meter) => [meter.ariaLabel, meter.value])),
    glb: await window.base64(await window.scnn.glb()),
  }));
}

/** Screenshots at both widths, light and dark, and what is seen of the page there. */
async function looks() {
  const seen = [];
  for (const [name, width, height] of [["desktop", 1280, 900], ["phone", 390, 844]]) {
    await page.setViewportSize({ width, height });
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      await page.evaluate(() => scrollTo(0, 0));
      await page.waitForTimeout(300);
      await page.screenshot({ path: `${name}-${colorScheme}.png` });
      seen.push(await page.evaluate(() => ({
        overflow: document.documentElement.scrollWidth > innerWidth,
        comparisonEnds: document.getElementById("comparison").getBoundingClientRect().bottom / innerHeight,
        nameless: [...document.querySelectorAll("canvas, button, meter, progress")].filter(
          (item) => item.checkVisibility() && !item.closest("button")?.textContent && !item.ariaLabel,
        ).length,
      })));
    }
  }
  return seen;
}

/** What the tab key reaches, in its order, whether arrow keys turn the face, and when it is drawn. */
async function keys() {
  const reached = [];
  await page.evaluate(() => document.activeElement.blur());
  for (let i = 0; i < 8; i++) {
    await page.keyboard.press("Tab");
    reached.push(await page.evaluate(() => document.activeElement.id || document.activeElement.parentElement.id));
    if (reached.at(-1) === "view") break;
  }
  const drawn = await page.evaluate(() => window.drawn);
  await page.waitForFunction((first) => window.drawn > first + 2, drawn); // it swings
  await page.keyboard.press("ArrowRight"); // and stands still
  await drawings();
  const before = await page.locator("#view canvas").screenshot();
  const still = await drawings();
  for (let i = 0; i < 4; i++) await page.keyboard.press("ArrowRight");
  await drawings();
  const after = await page.locator("#view canvas").screenshot();
  return { reached, turned: !before.equals(after), still };
}

/** How often the view is drawn in 300 ms. */
async function drawings() {
  const before = await page.evaluate(() => window.drawn);
  await page.waitForTimeout(300);
  return (await page.evaluate(() => window.drawn)) - before;
}

async function chooseFaces(two) {
  await page.setInputFiles("#photo", two);
  await page.waitForFunction(() => window.scnn?.faces.length === 2);
  const sides = await page.evaluate(() => window.scnn.faces.map(({ box }) => box.side));
  await page.locator("#faces button").nth(1).press("Enter");
  const isSecond = await page.waitForFunction(() => window.scnn.face === window.scnn.faces[1]);
  return { sides, isSecond: Boolean(isSecond), pressed: await page.locator("#faces [aria-pressed=true]").count() };
}

/** Paste or drop a photo, and the face's box. */
async function handOver(kind, photo) {
  await page.evaluate(
    ({ kind, content }) => {
      window.scnn = undefined;
      const data = new DataTransfer();
      const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
      data.items.add(new File([bytes], "given.png", { type: "image/png" }));
      const given = { bubbles: true, cancelable: true };
      const event = kind === "paste"
        ? new ClipboardEvent(kind, { ...given, clipboardData: data })
        : new DragEvent(kind, { ...given, dataTransfer: data });
      document.body.dispatchEvent(event);
    },
    { kind, content: readFileSync(photo, "base64") },
  );
  await page.waitForFunction(() => window.scnn);
  return page.evaluate(() => window.scnn.face.box);
}

async function refusal() {
  await page.setInputFiles("#photo", { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("no picture") });
  await page.waitForSelector("#found.error");
  const hidden = await page.evaluate(() => document.getElementById("result").hidden && !window.scnn);
  return { text: await page.textContent("#found"), hidden, live: await page.getAttribute("#found", "aria-live") };
}

/** The camera, a file, shows a face for a while, then none, and so on. */
async function followCamera() {
  await page.click("#camera");
  await page.waitForFunction(() => /^a face in sight/.test(document.getElementById("found").textContent));
  const landmarks = await page.evaluate(() => Array.from(window.scnn.face.landmarks));
  await page.waitForFunction(() => document.querySelector("#view canvas").checkVisibility());
  const lost = await page.waitForFunction(
    () => /^no face in sight/.test(document.getElementById("found").textContent) && { scnn: typeof window.scnn },
  );
  const isCleared = (await lost.jsonValue()).scnn === "undefined";
  await page.click("#camera");
  return { landmarks, isCleared, pressed: await page.getAttribute("#camera", "aria-pressed") };
}

async function withoutNetwork() {
  await browser.setOffline(true);
  await page.reload();
  await ready(page);
  await page.click("#sample");
  await page.waitForFunction(() => window.scnn);
  const landmarks = await page.evaluate(() => Array.from(window.scnn.face.landmarks));
  await browser.setOffline(false);
  return landmarks;
}

/** In a new tab. Chromium's imitated graphics card may crash, and the tab with it: so once more then. */
async function onGraphicsCard(photo) {
  return inNewTab(photo).catch((error) => {
    if (!/crashed/.test(error.message)) throw error;
    return inNewTab(photo);
  });
}

async function inNewTab(photo) {
  const tab = await browser.newPage();
  watch(tab);
  await tab.goto(`${address}?accelerator=webgpu`);
  await ready(tab);
  await tab.setInputFiles("#photo", photo);
  await tab.waitForFunction(() => window.scnn, null, { timeout: 90000 });
  return tab.evaluate(() => ({
    accelerator: window.scnn.accelerator,
    landmarks: Array.from(window.scnn.face.landmarks),
  }));
}
