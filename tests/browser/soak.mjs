/**
 * The same questions over and over, in Chromium: every answer must be the one that was given the
 * first time, and memory must not grow.
 *
 *     TIGRET_PARITY_DIR=.tigret/parity node tests/browser/soak.mjs [cpu|webgpu] [CALLS]
 *
 * `cargo xtask test` leaves the bundles in `.tigret/parity`. Prints JSON; exit status 1 where an
 * answer changed or memory grew by more than 5 % in the second half of the calls. The first is for
 * the browser, which compiles code anew while a page runs. Memory is that of the objects of page and
 * worker after a collection, and of the wasm module; what the browser keeps beside them is its own.
 */

import { fileURLToPath } from "node:url";
import { launch, packageFolder, parityFolder, serve } from "./support.mjs";

const backend = process.argv[2] ?? "cpu";
const calls = Number(process.argv[3] ?? 10_000);
const GROWTH = 1.05;

if (!parityFolder || !(calls >= 100)) {
  console.error("soak: TIGRET_PARITY_DIR has to name the parity bundles, CALLS be 100 or more");
  process.exit(2);
}

const here = fileURLToPath(new URL(".", import.meta.url));
const folders = { "/package/": packageFolder, "/fixtures/": parityFolder, "/tests/": here };
const server = await serve(folders);
// The measurement collects garbage first, and does not wait until that would happen anyway.
const browser = await launch({ flags: ["--enable-blink-features=ForceEagerMeasureMemory"] });
try {
  const page = await browser.newPage();
  await page.goto(`${server.url}/blank.html`);
  const memory = async () => {
    /** @type {number} */
    const objects = await page.evaluate(async () => {
      const { bytes } = await /** @type {any} */ (performance).measureUserAgentSpecificMemory();
      return bytes;
    });
    const [worker] = page.workers();
    /** @type {number} */
    const wasm = await worker?.evaluate(
      () => /** @type {any} */ (globalThis).wasmMemory.buffer.byteLength,
    );
    return { objects, wasm };
  };

  await page.evaluate(
    async ([backend, calls]) => {
      const code = "/package/dist/index.js";
      const { Recommender } = await import(code);
      const url = "/fixtures/four-levels-q8.safetensors";
      const recommender = await Recommender.load(url, {
        backend,
        worker: () => new Worker("/tests/measured-worker.mjs", { type: "module" }),
      });
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
      // Made before memory is looked at, so that it is no growth.
      const times = new Float64Array(calls);
      let asked = 0;
      Object.assign(globalThis, {
        times,
        ask: async (/** @type {number} */ count) => {
          let changed = 0;
          for (let call = 0; call < count; call++) {
            const start = performance.now();
            if ((await answer(call % 20)) !== first[call % 20]) changed++;
            times[asked++] = performance.now() - start;
          }
          return changed;
        },
      });
    },
    /** @type {[string, number]} */ ([backend, calls]),
  );

  const ask = (/** @type {number} */ count) =>
    page.evaluate((count) => /** @type {any} */ (globalThis).ask(count), count);
  const begin = Date.now();
  const half = calls >> 1;
  let changed = await ask(half);
  const middle = await memory();
  changed += await ask(calls - half);
  const end = await memory();
  /** @type {number[]} */
  const times = await page.evaluate(() => [.../** @type {any} */ (globalThis).times.sort()]);
  const flat = end.objects <= GROWTH * middle.objects && end.wasm <= GROWTH * middle.wasm;
  console.log(
    JSON.stringify({
      backend,
      calls,
      changed_answers: changed,
      bytes_at_half: middle,
      bytes_at_the_end: end,
      median_ms: times[half],
      p99_ms: times[calls - 1 - Math.floor(calls / 100)],
      seconds: (Date.now() - begin) / 1000,
    }),
  );
  process.exitCode = changed === 0 && flat ? 0 : 1;
} finally {
  await browser.close();
  await server.close();
}
