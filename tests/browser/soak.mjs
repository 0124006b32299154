/**
 * The same questions over and over, in Chromium: every answer must be the one that was given the
 * first time, and memory must not grow. Ten of twelve calls recommend, the others explain and trace.
 *
 *     TIGRET_PARITY_DIR=.tigret/parity node tests/browser/soak.mjs [cpu|webgpu] [CALLS|MINUTESm]
 *
 * `cargo xtask test` leaves the bundles in `.tigret/parity`. Prints JSON; exit status 1 where an
 * answer changed or memory grew by more than 5 % in the second half. The first is for the browser,
 * which compiles code anew while a page runs. Memory is that of the objects of page and worker after
 * a collection, and of the wasm module; what the browser keeps beside them is its own. Times are
 * those of the calls that recommend.
 */

import { fileURLToPath } from "node:url";
import { launch, packageFolder, parityFolder, serve } from "./support.mjs";

const backend = process.argv[2] ?? "cpu";
const wanted = process.argv[3] ?? "10000";
const minutes = wanted.endsWith("m") ? Number(wanted.slice(0, -1)) : undefined;
const calls = minutes === undefined ? Number(wanted) : Number.POSITIVE_INFINITY;
const GROWTH = 1.05;
/** Calls between two looks at the clock from outside: no request to the browser takes long. */
const PORTION = 100;

if (!parityFolder || !(calls >= 100 && (minutes ?? 1) > 0)) {
  console.error(
    "soak: TIGRET_PARITY_DIR has to name the parity bundles, CALLS be 100 or more, or 60m say",
  );
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

  await page.evaluate(async (backend) => {
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
    const recommend = questions.map((question) => () => recommender.recommend(question));
    const others = [5, 6].flatMap((which) => [
      async () => {
        const [pick] = await recommender.recommend(questions[which]);
        return pick && recommender.explain(pick);
      },
      () => recommender.trace(questions[which]),
    ]);
    const asks = [...recommend, ...others];
    const answer = async (/** @type {number} */ which) => JSON.stringify(await asks[which]?.());
    /** @type {string[]} */
    const first = [];
    for (const which of asks.keys()) first.push(await answer(which));
    // Counts of times by size, each 2 % above the one before: made before memory is looked at.
    const times = new Uint32Array(1200);
    const step = Math.log(1.02);
    let asked = 0;
    Object.assign(globalThis, {
      times,
      ask: async (/** @type {number} */ count) => {
        let changed = 0;
        for (let call = 0; call < count; call++) {
          const which = asked++ % asks.length;
          const start = performance.now();
          if ((await answer(which)) !== first[which]) changed++;
          const microseconds = Math.max(1, 1000 * (performance.now() - start));
          const size = Math.floor(Math.log(microseconds) / step);
          if (which < questions.length) times[size] = (times[size] ?? 0) + 1;
        }
        return changed;
      },
    });
  }, backend);

  const ask = (/** @type {number} */ count) =>
    page.evaluate((count) => /** @type {any} */ (globalThis).ask(count), count);
  const begin = performance.now();
  const done = () =>
    minutes === undefined ? asked / calls : (performance.now() - begin) / 60_000 / minutes;
  let [asked, changed] = [0, 0];
  let middle;
  while (done() < 1) {
    const portion = Math.min(PORTION, calls - asked);
    changed += await ask(portion);
    asked += portion;
    if (done() >= 0.5) middle ??= await memory();
  }
  const end = await memory();
  middle ??= end;
  /** @type {number[]} */
  const times = await page.evaluate(() => [.../** @type {any} */ (globalThis).times]);
  const quantile = (/** @type {number} */ share) => {
    const wanted = share * times.reduce((sum, count) => sum + count, 0);
    let below = 0;
    const at = times.findIndex((count) => {
      below += count;
      return below > wanted;
    });
    return 1.02 ** at / 1000;
  };
  const flat = end.objects <= GROWTH * middle.objects && end.wasm <= GROWTH * middle.wasm;
  console.log(
    JSON.stringify({
      backend,
      calls: asked,
      changed_answers: changed,
      bytes_at_half: middle,
      bytes_at_the_end: end,
      median_ms: quantile(0.5),
      p99_ms: quantile(0.99),
      seconds: (performance.now() - begin) / 1000,
    }),
  );
  process.exitCode = changed === 0 && flat ? 0 : 1;
} finally {
  await browser.close();
  await server.close();
}
