/**
 * Times one recommendation in the page by Tigret and by onnxruntime-web, on the same weights and
 * history, with the same answer:
 *
 *     cargo xtask bench infer                      # writes .tigret/bench-infer
 *     npm install --prefix ort onnxruntime-web@1.30.0
 *     node tests/browser/bench-infer.mjs .tigret/bench-infer ort/node_modules/onnxruntime-web/dist
 *
 * onnxruntime-web runs an encoder graph and a graph of a decoder step with a cache of keys and
 * values and cross-attention computed once; the trie's mask and the choice of beams are JavaScript
 * between the steps. `--webgpu` times its WebGPU provider and ours instead: ten minutes on
 * SwiftShader. All run in turns, each time in a browser of its own; its memory is the most that the
 * page's process, worker included, ever had at once, less that of an empty page (Linux only; what a
 * GPU's process holds is not in it).
 */

import { existsSync, readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { argv, exit } from "node:process";
import { setTimeout } from "node:timers/promises";
import { brotliCompressSync, constants } from "node:zlib";
import { launch, packageFolder, serve } from "./support.mjs";

const [folder, ort, option] = argv.slice(2);
if (folder === undefined || ort === undefined) {
  console.error("usage: bench-infer.mjs FOLDER ORT_DIST [--webgpu]");
  exit(2);
}
for (const needed of [join(folder, "bias.json"), join(ort, "ort.wasm.min.mjs")]) {
  if (existsSync(needed)) continue;
  console.error(
    `bench-infer.mjs: there is no ${needed}; the head of this file says what writes it`,
  );
  exit(2);
}
const BEAMS = [10, 20, 50];
/** Machines slow down and recover while they are measured: all engines in turns, medians of these. */
const TURNS = 3;
/** Milliseconds between a browser's start and its navigation. */
const SETTLED = 1500;
/** Largest difference of a score to Tigret's f32 engine, where the weights are the same. */
const TOLERANCE = 5e-3;

const server = await serve({
  "/package/": packageFolder,
  "/bench/": resolve(folder),
  "/ort/": resolve(ort),
});
/** @type {Record<string, { id: string, score: number }[][]>} */
const answers = JSON.parse(await readFile(join(folder, "answers.json"), "utf8"));

/**
 * @typedef {{ id: string, score: number }[]} Answer
 * @typedef {{ cold: number, times: Record<number, number>, answers: Record<number, Answer> }} Measured
 * @typedef {Measured & { memory: number }} Weighed
 */

/**
 * @param {{ backend: import("tigret").Backend, bundle: string, warmUp: number, calls: number, beams: number[] }} options
 * @returns {Promise<Weighed>}
 */
async function tigret(options) {
  return inPage(async ({ backend, bundle, warmUp, calls, beams }) => {
    const { Recommender } = await import("/package/dist/index.js");
    const recommender = await Recommender.load(`/bench/${bundle}.safetensors`, { backend });
    const requests = await (await fetch("/bench/requests.json")).json();
    const { history } = requests[0];
    /** @param {number} width */
    const recommend = (width) => recommender.recommend({ history, top: width, beams: width });
    // In the page it is what `inPage` defines.
    return measure(recommend, { warmUp, calls, beams });
  }, options);
}

/**
 * @param {{ provider: string, kind: string, warmUp: number, calls: number, beams: number[] }} options
 * @returns {Promise<Weighed>}
 */
async function onnxruntime(options) {
  return inPage(async ({ provider, kind, warmUp, calls, beams }) => {
    const onGpu = provider === "webgpu";
    const ort = await import(onGpu ? "/ort/ort.webgpu.min.mjs" : "/ort/ort.wasm.min.mjs");
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = "/ort/";
    /** @param {string} name */
    const json = async (name) => (await fetch(`/bench/${name}.json`)).json();
    /** @param {string} part @param {string} kept */
    const session = (part, kept) =>
      ort.InferenceSession.create(`/bench/${part}.${kind}.onnx`, {
        executionProviders: [provider],
        // What only the next step reads stays on the GPU.
        ...(onGpu ? { preferredOutputLocation: { [kept]: "gpu-buffer" } } : {}),
      });
    const [encoder, decoder] = [await session("encoder", "cross"), await session("step", "longer")];
    const [requests, layout, catalog, bias] = [
      await json("requests"),
      await json("tokens"),
      await json("catalog"),
      await json("bias"),
    ];
    /** @type {Map<string, Set<number>>} */
    const children = new Map();
    /** @type {Map<string, string>} */
    const ids = new Map();
    for (const { id, codes } of catalog.items) {
      ids.set(codes.join(), id);
      for (let level = 0; level < codes.length; level++) {
        const prefix = codes.slice(0, level).join();
        const known = children.get(prefix);
        if (known) known.add(codes[level]);
        else children.set(prefix, new Set([codes[level]]));
      }
    }
    /** @param {number[]} values */
    const integers = (values) =>
      new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [values.length]);
    const tokens = requests[0].tokens;
    /** @param {number} width */
    async function recommend(width) {
      const input = new ort.Tensor("int64", BigInt64Array.from(tokens, BigInt), [1, tokens.length]);
      const { cross } = await encoder.run({ tokens: input });
      const [layers, , heads, , size] = cross.dims;
      let cache = new ort.Tensor("float32", new Float32Array(0), [layers, 2, 1, heads, 0, size]);
      let beams = [{ codes: /** @type {number[]} */ ([]), score: 0, parent: 0 }];
      for (let level = 0; level < layout.levels.length; level++) {
        const before = level === 0 ? layout.decoder_start : layout.levels[level - 1].offset;
        const last = beams.map((beam) => before + (beam.codes[level - 1] ?? 0));
        const back = bias.flatMap((/** @type {number[]} */ head) =>
          head.slice(0, level + 1).reverse(),
        );
        const outputs = await decoder.run({
          tokens: integers(last),
          parents: integers(beams.map((beam) => beam.parent)),
          cache,
          bias: new ort.Tensor("float32", Float32Array.from(back), [heads, level + 1]),
          cross,
        });
        if (cache.location === "gpu-buffer") cache.dispose();
        cache = outputs.longer;
        /** @type {Float32Array} */
        const logits = outputs.logits.data;
        const vocabulary = logits.length / beams.length;
        const { offset } = layout.levels[level];
        const candidates = [];
        for (const [row, beam] of beams.entries()) {
          const values = logits.subarray(row * vocabulary, (row + 1) * vocabulary);
          let largest = Number.NEGATIVE_INFINITY;
          for (const value of values) if (value > largest) largest = value;
          let sum = 0;
          for (const value of values) sum += Math.exp(value - largest);
          const normaliser = largest + Math.log(sum);
          for (const code of children.get(beam.codes.join()) ?? []) {
            const score = beam.score + (values[offset + code] ?? 0) - normaliser;
            candidates.push({ row, code, score });
          }
        }
        candidates.sort((a, b) => b.score - a.score);
        beams = candidates.slice(0, width).map(({ row, code, score }) => ({
          codes: [...(beams[row]?.codes ?? []), code],
          score,
          parent: row,
        }));
      }
      if (cache.location === "gpu-buffer") cache.dispose();
      if (cross.location === "gpu-buffer") cross.dispose();
      return beams.map(({ codes, score }) => ({ id: ids.get(codes.join()) ?? "", score }));
    }
    // In the page it is what `inPage` defines.
    return measure(recommend, { warmUp, calls, beams });
  }, options);
}

/**
 * In the page: the time of the first answer, then medians and answers by the number of beams.
 *
 * @param {(width: number) => Promise<Answer>} recommend
 * @param {{ warmUp: number, calls: number, beams: number[] }} options
 * @returns {Promise<Measured>}
 */
async function measure(recommend, { warmUp, calls, beams }) {
  await recommend(beams[beams.length - 1] ?? 1);
  const cold = performance.now();
  /** @type {Record<number, number>} */
  const times = {};
  /** @type {Record<number, Answer>} */
  const answers = {};
  for (const width of beams) {
    const spent = [];
    for (let call = 0; call < warmUp + calls; call++) {
      const start = performance.now();
      answers[width] = await recommend(width);
      if (call >= warmUp) spent.push(performance.now() - start);
    }
    times[width] = spent.sort((a, b) => a - b)[spent.length >> 1] ?? Number.NaN;
  }
  return { cold, times, answers };
}

/**
 * The most memory that a renderer of this browser ever had, in bytes; NaN where the system does not
 * say.
 *
 * @param {import("playwright-core").Browser} browser
 */
async function peakOf(browser) {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const renderers = processInfo.filter(({ type }) => type === "renderer");
  const peaks = renderers.map(({ id }) => {
    try {
      const status = readFileSync(`/proc/${id}/status`, "utf8");
      return Number(/^VmHWM:\s*(\d+) kB$/m.exec(status)?.[1]) * 1024;
    } catch {
      return Number.NaN;
    }
  });
  return Math.max(...peaks);
}

/**
 * Runs a function in a page of a new browser, where it finds `measure`; `cold` is the time from
 * navigation to its first answer.
 *
 * @template T
 * @param {(options: T) => Promise<Measured>} run
 * @param {T} options
 */
async function inPage(run, options) {
  const browser = await launch();
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(0);
    // A visitor's browser has long started; this one goes on doing so after it says that it has.
    await setTimeout(SETTLED);
    await page.addInitScript(`globalThis.measure = ${measure}`);
    await page.goto(`${server.url}/blank.html`);
    /** @type {Measured} */
    const measured = await page.evaluate(/** @type {any} */ (run), options);
    return { ...measured, memory: (await peakOf(browser)) - blank };
  } finally {
    await browser.close();
  }
}

/** Throws unless scores and items are those of Tigret's f32 engine. @param {string} name @param {Weighed} measured */
function check(name, measured) {
  for (const [width, found] of Object.entries(measured.answers)) {
    const expected = new Map(answers[width]?.[0]?.map(({ id, score }) => [id, score]));
    for (const { id, score } of found) {
      const own = expected.get(id);
      if (own !== undefined && Math.abs(own - score) > TOLERANCE) {
        throw new Error(`${name} scores ${id} ${score}, Tigret's f32 engine ${own}`);
      }
    }
    const shared = found.filter(({ id }) => expected.has(id)).length;
    if (shared < 0.95 * expected.size) throw new Error(`${name} shares ${shared} items only`);
  }
}

/** @param {number[]} values */
function median(values) {
  return values.sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

/**
 * A line of the table: medians over the turns, and the least where there are several.
 *
 * @param {string} name @param {Weighed[]} turns
 */
function row(name, turns) {
  const shown = BEAMS.map((width) => {
    const cells = turns.flatMap(({ times }) => times[width] ?? []);
    if (cells.length === 0) return "-";
    const least = cells.length > 1 ? ` (${Math.min(...cells).toFixed(1)})` : "";
    return median(cells).toFixed(1) + least;
  });
  const cold = median(turns.map(({ cold }) => cold)).toFixed(0);
  const megabytes = (median(turns.map(({ memory }) => memory)) / 1e6).toFixed(0);
  return `| ${name} | ${shown.join(" | ")} | ${cold} | ${megabytes} |`;
}

/** @param {string[]} paths */
async function compressed(...paths) {
  const options = { params: { [constants.BROTLI_PARAM_QUALITY]: 9 } };
  const sizes = paths.map(async (path) => brotliCompressSync(await readFile(path), options).length);
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}

/** The peak of an empty page. */
let blank = 0;
try {
  const empty = await launch();
  await (await empty.newPage()).goto(`${server.url}/blank.html`);
  blank = await peakOf(empty);
  console.log(`Chromium ${empty.version()}, one thread\n`);
  await empty.close();
  const onGpu = option === "--webgpu";
  const often = { warmUp: 100, calls: 41, beams: BEAMS };
  const seldom = { warmUp: 1, calls: 3, beams: [50] };
  const ours = (/** @type {string} */ bundle) => ({
    name: `Tigret, ${onGpu ? "WebGPU" : "CPU"}, ${bundle}`,
    run: () => tigret({ backend: onGpu ? "webgpu" : "cpu", bundle, ...(onGpu ? seldom : often) }),
    // q4 is another function.
    same: bundle !== "q4",
  });
  const theirs = (/** @type {string} */ kind) => ({
    name: `onnxruntime-web, ${onGpu ? "WebGPU" : "wasm"}, ${kind}`,
    run: () =>
      onnxruntime({ provider: onGpu ? "webgpu" : "wasm", kind, ...(onGpu ? seldom : often) }),
    same: kind === "f32",
  });
  const engines = [ours("q8"), theirs("int8"), ours("f32"), theirs("f32")];
  if (!onGpu) engines.push(ours("q4"));
  /** @type {Record<string, Weighed[]>} */
  const turns = {};
  for (let turn = 0; turn < TURNS; turn++) {
    for (const { name, run, same } of engines) {
      const measured = await run();
      if (same) check(name, measured);
      turns[name] = [...(turns[name] ?? []), measured];
      console.error(`turn ${turn + 1} of ${TURNS}: ${row(name, [measured])}`);
    }
  }
  const widths = BEAMS.map((width) => `${width} beams`);
  console.log(`| ms | ${widths.join(" | ")} | first answer | peak memory, MB |`);
  console.log(`|---|${"---|".repeat(BEAMS.length + 2)}`);
  for (const [name, measured] of Object.entries(turns)) console.log(row(name, measured));
  const own = [
    join(packageFolder, "pkg/tigret_infer_bg.wasm"),
    // What a browser loads: not the entry for Node, nor the one with all inside.
    ...["index.js", "worker.js"].map((name) => join(packageFolder, "dist", name)),
  ];
  const wasm = ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"];
  const runtime = wasm.map((name) => join(ort, name));
  const graphs = ["encoder", "step"].map((part) => join(folder, `${part}.int8.onnx`));
  const bytes = {
    "Tigret's runtime": await compressed(...own),
    "Tigret's runtime and model, q4": await compressed(...own, join(folder, "q4.safetensors")),
    "onnxruntime-web's runtime, wasm": await compressed(...runtime),
    "onnxruntime-web's runtime and model, int8": await compressed(...runtime, ...graphs),
  };
  console.log("\nKB, brotli (quality 9):");
  for (const [name, size] of Object.entries(bytes)) {
    console.log(`  ${name}: ${(size / 1000).toFixed(0)}`);
  }
} finally {
  await server.close();
}
