/** The npm package in a browser, without a bundler: parity, refusals, signals, many calls. */

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { launch, packageFolder, parityFolder, serve } from "./support.mjs";

/** @typedef {{ id: string, score: number, codes: number[] }} Pick */
/** @typedef {{ request: Record<string, unknown>, expected: Pick[], keys: number[] }} Case */
/** @typedef {{ id: string, embedding: number[] }} NewItem */
/** @typedef {{ bundle: string, tolerance: number, add?: NewItem[], added?: { id: string, codes: number[] }[], cases: Case[] }} Parity */
/** @typedef {{ name: string, code?: string, message: string }} Failure */

const skip = parityFolder ? false : "TIGRET_PARITY_DIR is not set";
const folder = parityFolder ?? "";
const here = fileURLToPath(new URL(".", import.meta.url));
const ENGINES = /** @type {const} */ (["cpu", "webgpu"]);
/** The package's worker, and one whose adapter says that it is hardware. */
const [OWN, HARDWARE] = ["/package/dist/worker.js", "/tests/posing-worker.mjs?vendor=nvidia"];
/**
 * What an engine is loaded with: with nothing, by itself, with all that adapters may have, and with the
 * kernels for hardware.
 */
const VARIANTS = /** @type {const} */ ([
  ["cpu", "cpu", {}, OWN],
  [
    "webgpu and nothing more",
    "webgpu",
    { halves: false, packedProducts: false, subgroups: false },
    OWN,
  ],
  ["webgpu", "webgpu", {}, OWN],
  [
    "webgpu and all that it has",
    "webgpu",
    { halves: true, packedProducts: true, subgroups: true },
    OWN,
  ],
  ["hardware", "webgpu", {}, HARDWARE],
  ["hardware in floats", "webgpu", { packedProducts: false }, HARDWARE],
]);
/**
 * What an adapter says, as `pose.mjs` reads it; which kernels it is given for `q8` beside those that all
 * are given; and which engine answers a search of 1.5 million candidates.
 */
const DEVICES = /** @type {const} */ ([
  ["?SwiftShader", ["_wide"], "webgpu"],
  ["?vendor=nvidia", ["_packed"], "webgpu"],
  ["?vendor=apple", ["_split"], "webgpu"],
  ["?vendor=&on=Intel+Mac+OS+X", ["_split"], "webgpu"],
  // Firefox, which has Mesa's software on Linux and does not say so.
  ["?vendor=&on=X11;+Linux+x86_64", ["_packed"], "cpu"],
  ["?vendor=mesa&fallback", ["_wide"], "cpu"],
]);

/** @param {string} name @returns {unknown} */
const read = (name) => JSON.parse(readFileSync(join(folder, name), "utf8"));

/** A request of the Rust crate in the words of the page. @param {Record<string, any>} request */
function toOptions(request) {
  const { user_token, exclude_history, allow, exclude, temperature, seed, ...options } = request;
  return {
    ...options,
    // The page excludes the history or a list: a case with both becomes one list.
    exclude: exclude_history
      ? exclude?.length
        ? [...exclude, ...request.history]
        : "history"
      : exclude,
    ...(allow && { allow }),
    ...(temperature && { temperature, seed }),
    ...(user_token !== null && user_token !== undefined && { userToken: user_token }),
  };
}

/**
 * The contract's comparison: scores within the tolerance, and the same items in the same order
 * wherever neighbouring keys (what picks are ordered by: the scores but in a sample) differ by more
 * than it.
 *
 * @param {Pick[]} found @param {Case} native @param {number} tolerance @param {string} where
 */
function assertSame(found, { expected, keys }, tolerance, where) {
  assert.equal(found.length, expected.length, `${where}: number of items`);
  let start = 0;
  for (let end = 1; end <= expected.length; end++) {
    const gap = (keys[end - 1] ?? 0) - (keys[end] ?? Number.NEGATIVE_INFINITY);
    if (gap <= tolerance) continue;
    // A run of near ties at the very end may be cut among other items than the native one was.
    if (end < expected.length || start === end - 1) {
      const ids = (/** @type {Pick[]} */ picks) =>
        picks
          .slice(start, end)
          .map((pick) => pick.id)
          .sort();
      assert.deepEqual(ids(found), ids(expected), `${where}: items ${start} to ${end - 1}`);
    }
    start = end;
  }
  const byId = new Map(expected.map((pick) => [pick.id, pick]));
  for (const pick of found) {
    const twin = byId.get(pick.id);
    if (!twin) continue;
    const difference = Math.abs(pick.score - twin.score);
    assert.ok(difference <= tolerance, `${where}: score of ${pick.id} differs by ${difference}`);
    assert.deepEqual(pick.codes, twin.codes, `${where}: codes of ${pick.id}`);
  }
}

describe("the package", { skip }, () => {
  /** @type {Awaited<ReturnType<typeof serve>>} */
  let server;
  /** @type {Awaited<ReturnType<typeof launch>>} */
  let browser;
  /** @type {import("playwright-core").Page} */
  let page;

  before(async () => {
    assert.ok(existsSync(join(packageFolder, "dist/index.js")), "run `npm run build` first");
    server = await serve({
      "/package/": packageFolder,
      "/fixtures/": folder,
      "/tests/": here,
    });
    browser = await launch();
    page = await browser.newPage();
    await page.goto(`${server.url}/blank.html`);
  });

  after(async () => {
    await browser?.close();
    await server?.close();
  });

  const parityFiles = skip
    ? []
    : readdirSync(folder).filter((name) => name.endsWith(".json") && name !== "bad.json");
  const parity = parityFiles.map((name) => /** @type {[string, Parity]} */ ([name, read(name)]));

  test("there is something to compare", async () => {
    assert.ok(parity.length > 0, `no NAME.json in ${folder}`);
    const has = await page.evaluate(async () => {
      const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
      const words = navigator.gpu.wgslLanguageFeatures;
      return {
        halves: adapter?.features.has("shader-f16") ?? false,
        packedProducts: words.has("packed_4x8_integer_dot_product"),
        subgroups: adapter?.features.has("subgroups") ?? false,
      };
    });
    for (const [name, there] of Object.entries(has)) {
      if (!there) console.log(`not compared, since this adapter has none: ${name}`);
    }
  });

  for (const [name, { bundle, tolerance, cases, add, added }] of parity) {
    for (const [variant, engine, gpu, script] of VARIANTS) {
      // The rest takes halves and packed products, which change no kernel of `f32`.
      if (variant === "webgpu and all that it has" && name.endsWith("-f32.json")) continue;
      // A model in each format is enough for the kernels, and packed products are no floats'.
      if (script === HARDWARE && !name.startsWith("four-levels-")) continue;
      if (variant === "hardware in floats" && /-f(16|32)\./.test(name)) continue;
      test(`${name} on ${variant} is what the native CPU engine answers`, async () => {
        const { answers, codes, embedding } = await page.evaluate(
          async ({ bundle, backend, gpu, script, requests, add }) => {
            const { Recommender } = await import("/package/dist/index.js");
            const worker = () => new Worker(script, { type: "module" });
            const options = { backend, gpu, worker };
            const recommender = await Recommender.load(`/fixtures/${bundle}`, options);
            const codes = add && (await recommender.addItems(add));
            const answers = [];
            for (const request of requests) answers.push(await recommender.report(request));
            const { embedding } = recommender.info;
            recommender.dispose();
            return { answers, codes, embedding };
          },
          {
            bundle,
            backend: engine,
            gpu,
            script,
            requests: cases.map(({ request }) => toOptions(request)),
            add,
          },
        );
        assert.deepEqual(codes, added, `${name}: semantic IDs of the added items`);
        // Null, and not undefined, where no item can be added.
        assert.ok(add ? embedding !== null : embedding === null, `${name}: ${embedding}`);
        cases.forEach((native, index) => {
          const where = `case ${index} of ${name}`;
          assert.equal(answers[index]?.engine, engine, `${where}: engine`);
          assertSame(answers[index]?.picks ?? [], native, tolerance, where);
        });
      });
    }
  }

  test("the kernels make use of what the adapter has, and of nothing that is switched off", async () => {
    const bundle = "four-levels-q8.safetensors";
    const { everything, nothing, has } = await page.evaluate(async (bundle) => {
      const { Recommender } = await import("/package/dist/index.js");
      /** @param {boolean} on */
      const compiled = async (on) => {
        /** @type {string[]} */
        const kernels = [];
        const name = `?kernels-${on}`;
        const channel = new BroadcastChannel(name);
        // The last kernel of a step.
        const last = new Promise((resolve) => {
          channel.onmessage = ({ data }) => {
            kernels.push(data);
            if (data.startsWith("select")) resolve(null);
          };
        });
        const gpu = { halves: on, packedProducts: on, subgroups: on };
        const worker = () => new Worker(`/tests/watched-worker.mjs${name}`, { type: "module" });
        const options = /** @type {const} */ ({ backend: "webgpu", gpu, worker });
        const recommender = await Recommender.load(`/fixtures/${bundle}`, options);
        await recommender.recommend({ history: [] });
        await last;
        recommender.dispose();
        return kernels;
      };
      const [everything, nothing] = [await compiled(true), await compiled(false)];
      const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
      const has = [...(adapter?.features ?? []), ...navigator.gpu.wgslLanguageFeatures];
      return { everything, nothing, has };
    }, bundle);
    /** @param {string[]} kernels @param {string} ending */
    const some = (kernels, ending) => kernels.some((name) => name.endsWith(ending));
    assert.equal(some(everything, "_subgroups"), has.includes("subgroups"));
    const packed = has.includes("packed_4x8_integer_dot_product");
    assert.equal(some(everything, "_packed"), packed);
    for (const ending of ["_subgroups", "_packed", "_wide"])
      assert.ok(!some(nothing, ending), ending);
    // A search compiles what it launches, and nothing for sampling.
    assert.equal(nothing.includes("perturb"), false, nothing.join(", "));
    assert.equal(nothing.length, new Set(nothing).size);
  });

  for (const [says, own, engine] of DEVICES) {
    test(`an adapter that says "${says}" is given its kernels, and no more than it can walk`, async () => {
      const seen = await page.evaluate(async (says) => {
        const { Recommender } = await import("/package/dist/index.js");
        /** @type {Set<string>} */
        const kernels = new Set();
        new BroadcastChannel(says).onmessage = ({ data }) => kernels.add(data);
        const worker = () => new Worker(`/tests/posing-worker.mjs${says}`, { type: "module" });
        const options = /** @type {const} */ ({ backend: "webgpu", worker });
        const bundle = "/fixtures/many-candidates.safetensors";
        const recommender = await Recommender.load(bundle, options);
        const engines = [];
        for (const beams of [50, 512])
          engines.push((await recommender.report({ history: [], beams })).engine);
        recommender.dispose();
        return { kernels: [...kernels], engines };
      }, says);
      const endings = ["_packed", "_split", "_wide"];
      const found = endings.filter((ending) => seen.kernels.some((name) => name.endsWith(ending)));
      assert.deepEqual([found, seen.engines], [own, ["webgpu", engine]]);
    });
  }

  test("an engine that another replaces gives its buffers back at once", async () => {
    const { held, left } = await page.evaluate(async (bundle) => {
      const { Recommender } = await import("/package/dist/index.js");
      let bytes = 0;
      new BroadcastChannel("?buffers-bytes").onmessage = ({ data }) => {
        bytes = data;
      };
      const worker = () => new Worker("/tests/watched-worker.mjs?buffers", { type: "module" });
      const options = /** @type {const} */ ({ backend: "webgpu", worker });
      const recommender = await Recommender.load(`/fixtures/${bundle}`, options);
      await recommender.recommend({ history: [] });
      // Messages of a channel take a moment.
      const after = async () => {
        await new Promise((resolve) => setTimeout(resolve, 200));
        return bytes;
      };
      const held = await after();
      await recommender.use("cpu");
      const left = await after();
      recommender.dispose();
      return { held, left };
    }, "four-levels-q8.safetensors");
    assert.ok(held > 0);
    assert.equal(left, 0);
  });

  /** @type {{ file: string, expect: string }[]} */
  const bad =
    !skip && existsSync(join(folder, "bad.json")) ? /** @type {any} */ (read("bad.json")) : [];

  test("there are bundles to refuse", () => {
    assert.ok(bad.length > 20, `${bad.length} in ${folder}/bad.json`);
  });

  for (const { file, expect } of bad) {
    test(`${file} is refused with a message that says "${expect}"`, async () => {
      const failure = await page.evaluate(async (file) => {
        const { Recommender } = await import("/package/dist/index.js");
        return Recommender.load(`/fixtures/${file}`, { backend: "cpu" }).then(
          () => null,
          (/** @type {any} */ error) => ({
            name: error.name,
            code: error.code,
            message: error.message,
          }),
        );
      }, file);
      assert.ok(failure, "the bundle was taken");
      assert.equal(failure.name, "TigretError");
      assert.equal(failure.code, "bad-bundle");
      assert.ok(failure.message.includes(expect), failure.message);
    });
  }

  for (const engine of ENGINES) {
    test(`calls, signals and disposal on ${engine}`, async () => {
      const bundle = parity[0]?.[1].bundle ?? "";
      const seen = await page.evaluate(
        async ({ bundle, backend }) => {
          const { Recommender } = await import("/package/dist/index.js");
          /** @type {{ loaded: number, total: number | null }[]} */
          const progress = [];
          const recommender = await Recommender.load(`/fixtures/${bundle}`, {
            backend,
            onProgress: (/** @type {any} */ at) => progress.push(at),
          });
          const name = (/** @type {any} */ error) =>
            error.name === "TigretError" ? error.code : error.name;
          const request = { history: [], top: 1 };
          const together = await Promise.all([1, 2, 3].map(() => recommender.recommend(request)));
          const controller = new AbortController();
          const running = recommender.recommend({ ...request, signal: controller.signal });
          const waiting = recommender.recommend({ ...request, signal: controller.signal });
          const other = recommender.recommend(request);
          controller.abort();
          const aborted = [await running.catch(name), await waiting.catch(name)];
          const afterAbort = await other;
          const refused = await recommender
            .recommend({ history: [], user: "x", userToken: 0 })
            .catch(name);
          const pending = recommender.recommend(request).catch(name);
          recommender.dispose();
          return {
            progress,
            together,
            aborted,
            afterAbort,
            refused,
            disposed: [await pending, await recommender.recommend(request).catch(name)],
          };
        },
        { bundle, backend: engine },
      );
      const last = seen.progress.at(-1);
      assert.ok(last && last.loaded === last.total, "the download reports its end");
      assert.deepEqual(seen.together[1], seen.together[0]);
      assert.deepEqual(seen.together[2], seen.together[0]);
      assert.deepEqual(seen.aborted, ["AbortError", "AbortError"]);
      assert.deepEqual(seen.afterAbort, seen.together[0]);
      assert.equal(seen.refused, "bad-request");
      assert.deepEqual(seen.disposed, ["disposed", "disposed"]);
    });
  }

  test("an aborted load rejects with AbortError", async () => {
    const name = await page.evaluate(async (bundle) => {
      const { Recommender } = await import("/package/dist/index.js");
      const controller = new AbortController();
      const loading = Recommender.load(`/fixtures/${bundle}`, { signal: controller.signal });
      controller.abort();
      return loading.catch((/** @type {Error} */ error) => error.name);
    }, parity[0]?.[1].bundle ?? "");
    assert.equal(name, "AbortError");
  });

  test("auto ends on an engine and remembers which", async () => {
    const seen = await page.evaluate(async (bundle) => {
      const { Recommender } = await import("/package/dist/index.js");
      const engines = [];
      for (let visit = 0; visit < 2; visit++) {
        const recommender = await Recommender.load(`/fixtures/${bundle}`);
        await recommender.recommend({ history: [] });
        engines.push(recommender.engine);
        recommender.dispose();
      }
      return { engines, remembered: Object.values(localStorage).map((text) => text.split(" ")[0]) };
    }, parity[0]?.[1].bundle ?? "");
    assert.equal(seen.engines[0], seen.engines[1]);
    assert.deepEqual(seen.remembered, [seen.engines[0]]);
  });

  test("a browser without WebGPU refuses webgpu and computes with auto", async () => {
    const plain = await launch({ webgpu: false });
    try {
      const other = await plain.newPage();
      await other.goto(`${server.url}/blank.html`);
      const seen = await other.evaluate(async (bundle) => {
        const { Recommender } = await import("/package/dist/index.js");
        const refused = await Recommender.load(`/fixtures/${bundle}`, { backend: "webgpu" }).then(
          () => null,
          (/** @type {any} */ error) => error.code,
        );
        const recommender = await Recommender.load(`/fixtures/${bundle}`);
        const { engine, picks } = await recommender.report({ history: [] });
        return { refused, engine, picks };
      }, parity[0]?.[1].bundle ?? "");
      assert.equal(seen.refused, "no-gpu");
      assert.equal(seen.engine, "cpu");
      assert.ok(seen.picks.length > 0);
    } finally {
      await plain.close();
    }
  });
});
