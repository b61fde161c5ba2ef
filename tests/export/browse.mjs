// Opens the page in Chromium, gives it a photo, and prints what it found as JSON.
// node browse.mjs PAGE_FOLDER ADDRESS PHOTO OTHER_PHOTO SCREENSHOT_STEM
// node browse.mjs PAGE_FOLDER ADDRESS PHOTO OTHER_PHOTO PHOTO OTHER_PHOTO ...   only compares the pairs

import { createRequire } from "node:module";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [folder, address, ...photos] = process.argv.slice(2);
const [photo, other, stem] = photos;
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
  "--use-fake-ui-for-media-stream",
  "--use-fake-device-for-media-stream",
];
const profile = mkdtempSync(join(tmpdir(), "chromium-"));
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: flags,
  viewport: { width: 1100, height: 760 },
});
const page = browser.pages()[0] ?? (await browser.newPage());
const problems = [];
const foreign = [];
page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
page.on("pageerror", (error) => problems.push(String(error)));
page.on("request", (request) => {
  const url = request.url();
  if (!url.startsWith(address) && !/^(data|blob):/.test(url)) foreign.push(url);
});

await page.goto(address);
await page.waitForSelector("body[data-ready]", { timeout: 60000 });
if (photos.length !== 3) {
  const answers = [];
  for (let i = 0; i < photos.length; i += 2) answers.push(await compared(photos[i], photos[i + 1]));
  await browser.close();
  process.stdout.write(JSON.stringify(answers));
  process.exit();
}
await page.setInputFiles("#photo", photo);
await page.waitForFunction(() => window.scnn);
const outputs = await page.evaluate(async () => ({
  vertices: Array.from(window.scnn.face.vertices),
  landmarks: Array.from(window.scnn.face.landmarks),
  box: window.scnn.face.box,
  networkMs: window.scnn.face.networkMs,
  glb: Array.from(new Uint8Array(await window.scnn.glb())),
}));
await page.setInputFiles("#other", other);
await page.waitForSelector("#comparison:not([hidden])");
outputs.verdict = await page.textContent("#verdict");
await page.waitForTimeout(500);
await page.screenshot({ path: `${stem}-desktop.png` });
await page.setViewportSize({ width: 390, height: 844 });
await page.waitForTimeout(500);
await page.screenshot({ path: `${stem}-phone.png`, fullPage: true });
outputs.overflow = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
// A fake camera shows a test pattern: no face, and no error either.
await page.click("#camera");
await page.waitForFunction(() => /no face in sight/.test(document.body.textContent), null, { timeout: 30000 });
await page.click("#camera");
await page.setInputFiles("#photo", { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("no picture") });
await page.waitForSelector("figcaption.error");
outputs.refusal = await page.textContent("#found");
await browser.close();
process.stdout.write(JSON.stringify({ ...outputs, problems, foreign }));

async function compared(first, second) {
  await page.evaluate(() => (window.scnn = undefined));
  await page.setInputFiles("#photo", first);
  await page.waitForFunction(() => window.scnn);
  await page.setInputFiles("#other", second);
  await page.waitForFunction(() => window.scnn.answer);
  return { ...(await page.evaluate(() => window.scnn.answer)), verdict: await page.textContent("#verdict") };
}
