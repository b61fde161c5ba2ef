// Prints as JSON what window.face becomes on pages in Chromium.
// node browse.mjs ADDRESS ...; playwright-core lies in the working folder's node_modules.

import { createRequire } from "node:module";
import { join } from "node:path";

const { chromium } = createRequire(join(process.cwd(), "package.json"))("playwright-core");
const options = { executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] };
const browser = await chromium.launch(options);
const faces = [];
for (const address of process.argv.slice(2)) {
  const page = await browser.newPage();
  const failure = new Promise((_, reject) => page.on("pageerror", reject));
  await page.goto(address);
  await Promise.race([failure, page.waitForFunction(() => window.face !== undefined)]);
  faces.push(await page.evaluate(() => window.face));
}
await browser.close();
process.stdout.write(JSON.stringify(faces));
