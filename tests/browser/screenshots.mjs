/** Pictures of the demo page, wide and narrow, light and dark: `npm run screenshots -- FOLDER`. */

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { demoFolder, launch, serve } from "./support.mjs";

const folder = process.argv[2] ?? "screenshots";
/** Ids of the catalogue that the pictures show as liked. */
const history = process.argv[3] ?? "";

await mkdir(folder, { recursive: true });
const server = await serve({ "/": demoFolder });
const browser = await launch();
try {
  for (const [name, viewport] of /** @type {const} */ ([
    ["wide", { width: 1280, height: 860 }],
    ["narrow", { width: 390, height: 844 }],
  ])) {
    for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
      const page = await browser.newPage({ viewport, colorScheme, deviceScaleFactor: 2 });
      await page.goto(`${server.url}/#history=${history}`);
      await page.waitForSelector("html[data-ready]");
      // As one's own; a shared history says on the page that it is one.
      if (history) await page.locator("#keep").click();
      // Until the map has lit up.
      await page.waitForTimeout(2000);
      const path = join(folder, `demo-${name}-${colorScheme}.png`);
      await page.screenshot({ path });
      console.log(path);
      await page.close();
    }
  }
} finally {
  await browser.close();
  await server.close();
}
