/**
 * Times one recommendation (20 items, 50 beams, a full history, the paper's sizes) in the page:
 * `npm run bench:browser`. The time is the page's own, from the call to the answer. The last line
 * is JSON for `cargo xtask bench`.
 */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randomBundle } from "./random-bundle.mjs";
import { launch, packageFolder, serve } from "./support.mjs";

const WARM_UP = 3;
const RUNS = 21;

const folder = await mkdtemp(join(tmpdir(), "tigret-bench-"));
await writeFile(join(folder, "model.safetensors"), randomBundle());
const server = await serve({ "/package/": packageFolder, "/bench/": folder });
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
          const recommender = await Recommender.load("/bench/model.safetensors", { backend });
          const history = Array.from({ length: 20 }, (_, i) => String(i * 577).padStart(5, "0"));
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
  if ("error" in cpu) throw new Error(cpu.error);
  const measured = "error" in webgpu ? cpu : webgpu;
  console.log(
    JSON.stringify({
      median_ms: measured.median,
      adapter: `${measured.engine}, Chromium ${browser.version()}`,
      cpu_median_ms: cpu.median,
    }),
  );
} finally {
  await browser.close();
  await server.close();
  await rm(folder, { recursive: true });
}
