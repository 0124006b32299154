/**
 * Times one recommendation (20 items, 50 beams, a full history, the paper's sizes) in the page, with
 * the model that the example `random_model` of `tigret-infer` writes, after `npm run build` in `web/`:
 *
 *     node tests/browser/bench.mjs FOLDER
 *
 * The time is the page's own, from the call to the answer. The last line is JSON for
 * `cargo xtask bench`, which calls this.
 */

import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { argv, exit } from "node:process";
import { launch, packageFolder, serve } from "./support.mjs";

const WARM_UP = 3;
const RUNS = 21;

const [folder] = argv.slice(2);
if (folder === undefined) {
  console.error("usage: bench.mjs FOLDER");
  exit(2);
}
const written = ["q8.safetensors", "requests.json"].map((name) => join(folder, name));
for (const needed of [...written, join(packageFolder, "dist/index.js")]) {
  if (existsSync(needed)) continue;
  console.error(`bench.mjs: there is no ${needed}; the head of this file says what writes it`);
  exit(2);
}
const server = await serve({ "/package/": packageFolder, "/bench/": resolve(folder) });
const browser = await launch();

/** @param {"cpu" | "webgpu"} backend @returns {Promise<{ engine: string, median: number } | { error: string }>} */
async function time(backend) {
  const page = await browser.newPage();
  try {
    await page.goto(`${server.url}/blank.html`);
    return await page.evaluate(
      async ({ backend, warmUp, runs }) => {
        const { Recommender } = await import("/package/dist/index.js");
        try {
          const recommender = await Recommender.load("/bench/q8.safetensors", { backend });
          const [{ history }] = await (await fetch("/bench/requests.json")).json();
          const times = [];
          for (let run = 0; run < warmUp + runs; run++) {
            const start = performance.now();
            const { engine } = await recommender.report({ history, top: 20, beams: 50 });
            if (engine !== backend) return { error: `${backend} failed, ${engine} took over` };
            if (run >= warmUp) times.push(performance.now() - start);
          }
          times.sort((a, b) => a - b);
          return { engine: recommender.engineName, median: times[runs >> 1] ?? Number.NaN };
        } catch (error) {
          return { error: /** @type {Error} */ (error).message };
        }
      },
      { backend, warmUp: WARM_UP, runs: RUNS },
    );
  } finally {
    await page.close();
  }
}

try {
  const cpu = await time("cpu");
  const webgpu = await time("webgpu");
  for (const [name, result] of Object.entries({ cpu, webgpu })) {
    const text =
      "error" in result ? result.error : `${result.median.toFixed(1)} ms (${result.engine})`;
    console.log(`${name}: ${text}`);
  }
  console.log(JSON.stringify({ cpu, webgpu, chromium: browser.version() }));
} finally {
  await browser.close();
  await server.close();
}
