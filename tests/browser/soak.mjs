/**
 * The same questions over and over, in Chromium: every answer must be the one that was given the
 * first time, and the memory of the page's process must not grow.
 *
 *     TIGRET_PARITY_DIR=.tigret/parity node tests/browser/soak.mjs [cpu|webgpu] [CALLS]
 *
 * `cargo xtask test` leaves the bundles in `.tigret/parity`. Prints JSON; exit status 1 where an
 * answer changed or memory grew by more than 5 % after the first tenth of the calls (on Linux).
 */

import { readFileSync } from "node:fs";
import { launch, packageFolder, parityFolder, serve } from "./support.mjs";

const backend = process.argv[2] ?? "cpu";
const calls = Number(process.argv[3] ?? 10_000);
const GROWTH = 1.05;

if (!parityFolder) {
  console.error("soak: set TIGRET_PARITY_DIR to the folder of the parity bundles");
  process.exit(2);
}

const server = await serve({ "/package/": packageFolder, "/fixtures/": parityFolder });
const browser = await launch();
try {
  const page = await browser.newPage();
  await page.goto(`${server.url}/blank.html`);
  const session = await browser.newBrowserCDPSession();

  /** Bytes of the page's process in memory; `null` where there is no `/proc`. */
  const resident = async () => {
    const { processInfo } = await session.send("SystemInfo.getProcessInfo");
    const sizes = processInfo
      .filter(({ type }) => type === "renderer")
      .map(({ id }) => {
        try {
          const status = readFileSync(`/proc/${id}/status`, "utf8");
          return 1024 * Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0);
        } catch {
          return 0;
        }
      });
    return Math.max(0, ...sizes) || null;
  };

  await page.evaluate(async (backend) => {
    const code = "/package/dist/index.js";
    const { Recommender } = await import(code);
    const recommender = await Recommender.load("/fixtures/four-levels-q8.safetensors", { backend });
    const { ids } = await recommender.catalogue();
    const questions = Array.from({ length: 20 }, (_, index) => ({
      history: ids.slice(index, 2 * index),
      beams: [1, 3, 10, 20][index % 4],
      exclude: index % 2 ? "history" : ids.slice(0, index),
      ...(index % 5 === 4 && { allow: ids.slice(0, 10 * index) }),
      ...(index % 3 === 2 && { temperature: 1 + index / 10, seed: index }),
    }));
    const answer = async (/** @type {number} */ which) =>
      JSON.stringify(await recommender.recommend(questions[which]));
    /** @type {string[]} */
    const first = [];
    for (const which of questions.keys()) first.push(await answer(which));
    /** @type {any} */ (globalThis).ask = async (/** @type {number} */ count) => {
      let changed = 0;
      const times = [];
      for (let call = 0; call < count; call++) {
        const start = performance.now();
        if ((await answer(call % 20)) !== first[call % 20]) changed++;
        times.push(performance.now() - start);
      }
      return { changed, times };
    };
  }, backend);

  const ask = (/** @type {number} */ count) =>
    page.evaluate((count) => /** @type {any} */ (globalThis).ask(count), count);
  const begin = Date.now();
  const parts = [await ask(Math.ceil(calls / 10))];
  const warm = await resident();
  parts.push(await ask(calls - Math.ceil(calls / 10)));
  const end = await resident();
  const changed = parts.reduce((sum, part) => sum + part.changed, 0);
  const times = parts.flatMap((part) => part.times).sort((a, b) => a - b);
  const flat = warm === null || end === null || end <= GROWTH * warm;
  console.log(
    JSON.stringify({
      backend,
      calls,
      changed_answers: changed,
      resident_bytes_after_a_tenth: warm,
      resident_bytes_at_the_end: end,
      median_ms: times[calls >> 1],
      p99_ms: times[calls - 1 - Math.floor(calls / 100)],
      seconds: (Date.now() - begin) / 1000,
    }),
  );
  process.exitCode = changed === 0 && flat ? 0 : 1;
} finally {
  await browser.close();
  await server.close();
}
