/** What fails around the package, in Chromium: each fault ends in the right answer or a typed error. */

import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  faultLimit,
  faultRounds,
  faultSeed,
  launch,
  launchProfile,
  load,
  open as openPage,
  packageFolder,
  parityFolder,
  serve,
} from "./support.mjs";

/** @typedef {import("playwright-core").Page} Page */

const skip = parityFolder ? false : "TIGRET_PARITY_DIR is not set";
const folder = parityFolder ?? "";
const here = fileURLToPath(new URL(".", import.meta.url));
const NAME = "four-levels-f32.safetensors";
const BUNDLE = `/fixtures/${NAME}`;
/** The route whose answers a test chooses. */
const FAULTY = "/faulty.safetensors";

/** A GPU takes seconds to set up again on a software adapter: the quick form has two. */
const LOSSES = faultRounds({ webgpu: 2 });
const KILLS = faultRounds({ cpu: 40, webgpu: 0 });

describe("faults", { skip }, () => {
  /** @type {Awaited<ReturnType<typeof serve>>} */
  let server;
  /** @type {Awaited<ReturnType<typeof launch>>} */
  let browser;
  const bundle = skip ? Buffer.alloc(0) : readFileSync(join(folder, NAME));
  const other = skip ? bundle : readFileSync(join(folder, "three-levels-of-seven.safetensors"));
  const whole = {
    "content-type": "application/octet-stream",
    "content-length": bundle.length,
    etag: '"good"',
  };

  /** @type {import("node:http").RequestListener} */
  const healthy = (request, response) => {
    if (request.headers["if-none-match"] === whole.etag) response.writeHead(304).end();
    else response.writeHead(200, whole).end(bundle);
  };
  /** What answers `FAULTY`, the worker's script and the module of `/altered/`. */
  let answer = healthy;
  /** @type {string[]} What a visit answers that nothing disturbs. */
  let ids = [];
  /** How often it was asked. */
  let asked = 0;

  before(async () => {
    assert.ok(existsSync(join(packageFolder, "dist/index.js")), "run `npm run build` first");
    /** @type {import("node:http").RequestListener} */
    const route = (request, response) => {
      asked++;
      answer(request, response);
    };
    server = await serve(
      {
        "/package/": packageFolder,
        "/altered/": packageFolder,
        "/other/": packageFolder,
        "/no-wasm/": packageFolder,
        "/fixtures/": folder,
        "/tests/": here,
      },
      {
        [FAULTY]: route,
        "/altered/pkg/tigret_infer_bg.wasm": route,
        "/other/dist/worker.js": route,
        "/no-wasm/dist/worker.js": (_, response) => {
          response.setHeader("content-security-policy", "script-src 'self'");
          response.setHeader("content-type", "text/javascript");
          response.end(readFileSync(join(packageFolder, "dist/worker.js")));
        },
        "/no-workers.html": (_, response) => {
          response.setHeader("content-security-policy", "worker-src 'none'");
          response.setHeader("content-type", "text/html").end("<!doctype html><title>no</title>");
        },
      },
    );
    // A GPU process that crashes is not held against the page.
    browser = await launch({ flags: ["--disable-domain-blocking-for-3d-apis"] });
    const { context, page } = await open();
    ids = (await visit(page, BUNDLE)).ids ?? [];
    assert.ok(ids.length > 0);
    await context.close();
  });

  after(async () => {
    await browser?.close();
    await server?.close();
  });

  const open = () => openPage(browser, `${server.url}/blank.html`);

  /** @param {Page} page @param {Parameters<typeof load>[2]} [options] */
  const visit = (page, url = FAULTY, options) => load(page, url, options);

  /**
   * Lets the page's clock run faster than time until something has ended.
   *
   * @template T @param {Page} page @param {Promise<T>} ending @param {number} step milliseconds
   */
  async function hurried(page, ending, step) {
    let over = false;
    const ended = ending.finally(() => {
      over = true;
    });
    while (!over) {
      await page.clock.runFor(step);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return ended;
  }

  for (const [what, backend, rounds] of /** @type {const} */ ([
    ["device", "webgpu", LOSSES.webgpu],
    ["worker", "cpu", KILLS.cpu],
    ["worker", "webgpu", KILLS.webgpu],
  ])) {
    test(`the ${what} is lost at random moments of calls (${backend})`, {
      ...faultLimit,
      skip: rounds === 0 && "TIGRET_FAULT_ROUNDS is not set",
    }, async (context) => {
      const { context: own, page } = await open();
      const { ends, failures, struck, inCall } = await page.evaluate(
        async ({ what, url, backend, seed, rounds }) => {
          const tigret = await import("/package/dist/index.js");
          const { holdStrikes } = await import("/tests/fault-calls.mjs");
          return holdStrikes(tigret, url, backend, what, seed, rounds);
        },
        { what, url: BUNDLE, backend, seed: faultSeed, rounds },
      );
      await own.close();
      context.diagnostic(
        `${JSON.stringify({ ...ends, struck, inCall })}, TIGRET_FAULT_SEED=${faultSeed}`,
      );
      assert.deepEqual(failures, [], `TIGRET_FAULT_SEED=${faultSeed}`);
      assert.ok(struck > 0, "no call was struck");
      if (backend === "cpu") assert.ok(inCall > 0, "none was struck while it was answered");
    });
  }

  test("the browser's whole GPU process crashes in mid-call", faultLimit, async () => {
    const { context, page } = await open();
    const before = await page.evaluate(async (url) => {
      const { Recommender } = await import("/package/dist/index.js");
      const recommender = await Recommender.load(url, { backend: "webgpu" });
      const kept = { recommender, lost: 0 };
      Object.assign(globalThis, { kept });
      recommender.on("device-lost", () => kept.lost++);
      return recommender.recommend({ history: [], beams: 512 });
    }, BUNDLE);
    const calls = page.evaluate(async () => {
      const { kept } = /** @type {any} */ (globalThis);
      let answers = [];
      // Until one of the calls was struck, and one more.
      for (let more = 1; more >= 0; more -= kept.lost > 0 ? 1 : 0) {
        answers.push(await kept.recommender.recommend({ history: [], beams: 512 }));
        answers = answers.slice(-2);
      }
      return answers;
    });
    const devtools = await browser.newBrowserCDPSession();
    await devtools.send("Browser.crashGpuProcess");
    for (const picks of await calls) {
      const ids = (/** @type {{ id: string }[]} */ all) => all.map(({ id }) => id);
      assert.deepEqual(ids(picks), ids(before));
    }
    await context.close();
  });

  test("a GPU that hangs in a call", faultLimit, async () => {
    const { context, page } = await open();
    await page.clock.install();
    // At the clock's own pace: a GPU that is slow to load does not hang.
    const loaded = await page.evaluateHandle(async (url) => {
      const { Recommender } = await import("/package/dist/index.js");
      const { startedWorkers } = await import("/tests/started-workers.mjs");
      const { workers, worker } = startedWorkers("/tests/breaking-worker.mjs");
      const recommender = await Recommender.load(url, { backend: "webgpu", worker });
      return { recommender, workers };
    }, BUNDLE);
    const calls = loaded.evaluate(async ({ recommender, workers }) => {
      let failure = "";
      recommender.on("device-lost", (/** @type {any} */ { error }) => (failure = error.message));
      workers[0]?.postMessage("hang");
      const picks = await recommender.recommend({ history: [] });
      const found = picks.map((/** @type {{ id: string }} */ { id }) => id);
      return { failure, found, engine: recommender.engine, workers: workers.length };
    });
    const seen = await hurried(page, calls, 200);
    const failure = "the GPU did not answer within 30 seconds";
    assert.deepEqual(seen, { failure, found: ids, engine: "cpu", workers: 2 });
    await context.close();
  });

  test(
    "a search that is too much for the GPU is the CPU's, and the next one the GPU's",
    faultLimit,
    async () => {
      const { context, page } = await open();
      const { reports, wide, told, workers } = await page.evaluate(async (url) => {
        const { Recommender } = await import("/package/dist/index.js");
        const { startedWorkers } = await import("/tests/started-workers.mjs");
        const { workers, worker } = startedWorkers("/tests/breaking-worker.mjs");
        const recommender = await Recommender.load(url, { backend: "webgpu", worker });
        /** @type {string[]} */
        const told = [];
        recommender.on("device-lost", () => told.push("device-lost"));
        recommender.on("backend-changed", () => told.push("backend-changed"));
        await recommender.recommend({ history: [] });
        workers[0]?.postMessage("full");
        const reports = [];
        for (const beams of [512, 50, 512, 50]) {
          const { engine, picks } = await recommender.report({ history: [], beams });
          reports.push({ engine, ids: picks.map(({ id }) => id) });
        }
        await recommender.use("cpu");
        const wide = await recommender.recommend({ history: [], beams: 512 });
        return { reports, wide: wide.map(({ id }) => id), told, workers: workers.length };
      }, BUNDLE);
      const [byCpu, byGpu] = [
        { engine: "cpu", ids: wide },
        { engine: "webgpu", ids },
      ];
      assert.deepEqual(reports, [byCpu, byGpu, byCpu, byGpu]);
      assert.deepEqual([told, workers], [["backend-changed"], 1]);
      await context.close();
    },
  );

  for (const [fault, said] of /** @type {const} */ ([
    ["refuse", /submit/i],
    ["drop", /no sense/],
  ])) {
    test(
      `a submit that the GPU may ${fault} is not answered with the call before`,
      faultLimit,
      async () => {
        const { context, page } = await open();
        const { failure, found, expected } = await page.evaluate(
          async ({ url, fault }) => {
            const { Recommender } = await import("/package/dist/index.js");
            const { startedWorkers } = await import("/tests/started-workers.mjs");
            const { workers, worker } = startedWorkers("/tests/refusing-worker.mjs");
            const recommender = await Recommender.load(url, { backend: "webgpu", worker });
            let failure = "";
            recommender.on("device-lost", (/** @type {any} */ { error }) => {
              failure = error.message;
            });
            const ids = async (/** @type {object} */ options) => {
              const picks = await recommender.recommend(options);
              return picks.map((/** @type {{ id: string }} */ { id }) => id);
            };
            const [first, second] = await ids({ history: [], top: 2 });
            await ids({ history: [] });
            for (const worker of workers) worker.postMessage(fault);
            const options = { history: [], exclude: [first, second] };
            const found = await ids(options);
            const expected = await ids(options);
            recommender.dispose();
            return { failure, found, expected };
          },
          { url: BUNDLE, fault },
        );
        assert.match(failure, said);
        assert.ok(found.length > 0);
        assert.deepEqual(found, expected);
        await context.close();
      },
    );
  }

  test("kernels that the GPU refuses, several at once", faultLimit, async () => {
    const { context, page } = await open();
    const seen = await page.evaluate(async (url) => {
      const { Recommender } = await import("/package/dist/index.js");
      const worker = () => new Worker("/tests/kernels-refusing-worker.mjs", { type: "module" });
      /** @param {object} options */
      const load = async (options) => {
        try {
          const recommender = await Recommender.load(url, { worker, ...options });
          const picks = await recommender.recommend({ history: [] });
          recommender.dispose();
          return `${picks.length} picks`;
        } catch (caught) {
          const error = /** @type {any} */ (caught);
          return `${error.code}: ${error.message}`;
        }
      };
      return {
        all: await load({ backend: "webgpu" }),
        fewer: await load({ backend: "webgpu", gpu: { subgroups: false } }),
        auto: await load({ backend: "auto" }),
        remembered: Object.keys(localStorage).some((key) => key.startsWith("tigret:engine|")),
      };
    }, BUNDLE);
    assert.match(seen.all, /^device-lost: .*no [a-z_0-9]+_subgroups here/);
    assert.match(seen.fewer, /^[1-9]\d* picks$/);
    assert.match(seen.auto, /^[1-9]\d* picks$/);
    // The worker did not end of it, which would say nothing of the device.
    assert.ok(seen.remembered);
    await context.close();
  });

  for (const [what, twice, code] of /** @type {const} */ ([
    ["is dead before it starts", false, "crashed"],
    ["the page hands out twice", true, "bad-request"],
  ])) {
    test(`a worker that ${what}`, faultLimit, async () => {
      const { context, page } = await open();
      await page.clock.install();
      const loading = page.evaluate(
        async ([url, twice]) => {
          const { Recommender } = await import("/package/dist/index.js");
          const make = () => new Worker("/package/dist/worker.js", { type: "module" });
          const first = make();
          const dead = make();
          dead.terminate();
          const workers = [first, twice ? first : dead];
          const worker = () => workers.shift() ?? dead;
          const recommender = await Recommender.load(url, { backend: "cpu", worker });
          first.terminate();
          Object.assign(globalThis, { restarts: true });
          return recommender.recommend({ history: [] }).catch((/** @type {any} */ e) => e.code);
        },
        /** @type {const} */ ([BUNDLE, twice]),
      );
      await page.waitForFunction("globalThis.restarts");
      assert.equal(await hurried(page, loading, 1000), code);
      assert.deepEqual((await visit(page, BUNDLE)).code, null);
      await context.close();
    });
  }

  test("memory that cannot grow", faultLimit, async () => {
    const { context, page } = await open();
    /** @type {Set<string>} */
    const ends = new Set();
    /** Sizes at which the model fits once and not again: how much it takes depends on what was before. */
    let borders = 0;
    // From less than the module asks for to more than the largest search needs.
    for (let pages = 18; pages <= 60; pages += 3) {
      const end = await page.evaluate(
        async ({ url, pages }) => {
          const { Recommender, TigretError } = await import("/package/dist/index.js");
          const say = (/** @type {any} */ error) =>
            error instanceof TigretError ? error.message : `not typed: ${error}`;
          const address = `/tests/limited-worker.mjs?${pages}`;
          try {
            const recommender = await Recommender.load(url, {
              backend: "cpu",
              worker: () => new Worker(address, { type: "module" }),
            });
            const large = await recommender
              .recommend({ history: [], beams: 512 })
              .then(() => "answered", say);
            const next = await recommender
              .recommend({ history: [], beams: 1 })
              .then((/** @type {unknown[]} */ picks) => picks.length, say);
            recommender.dispose();
            return { loaded: "loaded", large, next };
          } catch (error) {
            return { loaded: say(error), large: "", next: 0 };
          }
        },
        { url: BUNDLE, pages },
      );
      for (const said of [end.loaded, end.large]) {
        if (["loaded", "answered", ""].includes(said)) continue;
        assert.match(said, /too little memory/, `${pages} pages`);
      }
      if (end.large !== "answered" && /too little memory/.test(String(end.next))) borders++;
      else assert.equal(end.next, end.loaded === "loaded" ? 1 : 0, `${pages} pages`);
      const short = (/** @type {string} */ said) => (said.includes("memory") ? "no memory" : said);
      ends.add(`${short(end.loaded)}, ${short(end.large)}`);
    }
    assert.deepEqual([...ends], ["no memory, ", "loaded, no memory", "loaded, answered"]);
    assert.ok(borders <= 1, `${borders} sizes`);
    await context.close();
  });

  test("storage that is full", faultLimit, async () => {
    const { context, page } = await open();
    const devtools = await context.newCDPSession(page);
    const full = { origin: server.url, quotaSize: 1 };
    await devtools.send("Storage.overrideQuotaForOrigin", full);
    answer = healthy;
    for (let time = 0; time < 2; time++) {
      const seen = await visit(page);
      assert.deepEqual(seen.ids, ids);
      assert.equal(seen.downloaded, bundle.length, "nothing was kept");
    }
    const add = () =>
      page.evaluate(async () => {
        const { HistoryStore } = await import("/package/dist/index.js");
        const store = new HistoryStore();
        const failed = await store.add("x".repeat(100_000)).then(
          () => null,
          (/** @type {any} */ error) => `${error.code}: ${error.message}`,
        );
        const entries = (await store.list()).length;
        await store.close();
        return { failed, entries };
      });
    const seen = await add();
    assert.match(seen.failed ?? "", /^storage: .*Quota/);
    assert.equal(seen.entries, 0);
    await devtools.send("Storage.overrideQuotaForOrigin", { origin: server.url });
    assert.deepEqual(await add(), { failed: null, entries: 1 });
    // The last visit may still have been trying to keep its bundle when the room came.
    assert.ok([0, bundle.length].includes((await visit(page)).downloaded));
    assert.equal((await visit(page)).downloaded, 0);
    await context.close();
  });

  test("storage that the visitor denies", faultLimit, async () => {
    const profile = mkdtempSync(join(tmpdir(), "tigret-profile-"));
    mkdirSync(join(profile, "Default"));
    // "Block all cookies" in the settings: it stands for all that a page can store.
    const preferences = { profile: { default_content_setting_values: { cookies: 2 } } };
    writeFileSync(join(profile, "Default/Preferences"), JSON.stringify(preferences));
    const denying = await launchProfile(profile);
    try {
      const page = await denying.newPage();
      await page.goto(`${server.url}/blank.html`);
      const denied = await page.evaluate(() => {
        try {
          return localStorage.length;
        } catch (error) {
          return /** @type {Error} */ (error).name;
        }
      });
      assert.equal(denied, "SecurityError", "the profile denies nothing");
      answer = healthy;
      for (const backend of ["auto", "cpu"]) {
        const seen = await visit(page, FAULTY, { backend });
        assert.deepEqual([seen.ids, seen.downloaded], [ids, bundle.length]);
      }
      const seen = async (/** @type {string} */ address) => {
        const { HistoryStore, forget } = await import(address);
        const store = new HistoryStore();
        const first = { list: await store.list(), persistent: await store.persistent() };
        await store.add("a");
        const then = { list: await store.list(), persistent: await store.persistent() };
        await forget();
        return [first, then, await store.list()];
      };
      const address = `${server.url}/package/dist/index.js`;
      const inWorker = (/** @type {string} */ code) =>
        new Promise((resolve, reject) => {
          const text = new Blob([code], { type: "text/javascript" });
          const worker = new Worker(URL.createObjectURL(text));
          worker.onmessage = ({ data }) => resolve(data);
          worker.onerror = ({ message }) => reject(new Error(message));
        });
      const code = `(${seen})("${address}").catch(String).then((seen) => postMessage(seen))`;
      for (const history of [
        await page.evaluate(seen, address),
        await page.evaluate(inWorker, code),
      ]) {
        assert.deepEqual(history, [
          { list: [], persistent: false },
          { list: ["a"], persistent: false },
          // What is in memory is forgotten, too.
          [],
        ]);
      }
    } finally {
      await denying.close();
      rmSync(profile, { recursive: true, force: true });
    }
  });

  for (const [what, stub] of /** @type {[string, () => void][]} */ ([
    [
      "a cache",
      () => {
        CacheStorage.prototype.open = () => new Promise(() => {});
      },
    ],
    [
      "a list of databases",
      () => {
        IDBFactory.prototype.databases = () => new Promise(() => {});
      },
    ],
    [
      "a database",
      () => {
        IDBFactory.prototype.open = () => /** @type {any} */ ({});
        IDBFactory.prototype.databases = async () => [{ name: "tigret", version: 1 }];
      },
    ],
    [
      "a transaction",
      () => {
        const opening = indexedDB.open("tigret", 1);
        opening.onupgradeneeded = () => void opening.result.createObjectStore("histories");
        opening.onsuccess = () => {
          // Another script's, which goes on.
          const store = opening.result
            .transaction("histories", "readwrite")
            .objectStore("histories");
          const goOn = () => {
            store.get("x").onsuccess = goOn;
          };
          goOn();
        };
      },
    ],
  ])) {
    test(`${what} that does not answer`, faultLimit, async () => {
      const { context, page } = await open();
      await page.evaluate(stub);
      answer = healthy;
      const seen = await page.evaluate(async (url) => {
        const { Recommender } = await import("/package/dist/index.js");
        const recommender = await Recommender.load(url, { backend: "cpu" });
        const start = performance.now();
        /** @param {Promise<unknown[]>} call */
        const told = async (call) => {
          const how = await call.then(
            ({ length }) => (length > 0 ? "answered" : "empty"),
            (/** @type {any} */ error) => error.code,
          );
          return { how, late: performance.now() - start > 4000 };
        };
        const calls = [told(recommender.recommend()), told(recommender.recommend({ history: [] }))];
        const answered = await Promise.all(calls);
        const disposed = told(recommender.recommend());
        recommender.dispose();
        return [...answered, { how: (await disposed).how }];
      }, FAULTY);
      const isHeld = ["a database", "a transaction"].includes(what);
      const stored = isHeld ? { how: "storage", late: true } : null;
      assert.deepEqual(seen, [
        stored ?? { how: "answered", late: false },
        { how: "answered", late: false },
        { how: "disposed" },
      ]);
      await context.close();
    });
  }

  test(
    "a cache that does not end to delete keeps no history on the device",
    faultLimit,
    async () => {
      const { context, page } = await open();
      const seen = await page.evaluate(async () => {
        const { HistoryStore, forget } = await import("/package/dist/index.js");
        const store = new HistoryStore();
        await store.add("a");
        localStorage.setItem("tigret:engine|x", "cpu 1");
        CacheStorage.prototype.delete = () => new Promise(() => {});
        const code = await forget().catch((/** @type {any} */ error) => error.code);
        return [code, await store.list(), await indexedDB.databases(), localStorage.length];
      });
      assert.deepEqual(seen, ["storage", [], [], 0]);
      await context.close();
    },
  );

  test(
    "a page that may have no worker says so before the bundle has come",
    faultLimit,
    async () => {
      const { context, page } = await open();
      await page.goto(`${server.url}/no-workers.html`);
      answer = (_, response) => {
        response.writeHead(200, whole);
        response.write(bundle.subarray(0, 5000));
      };
      const seen = await visit(page);
      assert.equal(seen.code, "crashed");
      assert.match(seen.message, /worker-src/);
      await context.close();
    },
  );

  test(
    "a policy without WebAssembly, or no module, is told of before the bundle has come",
    faultLimit,
    async () => {
      const { context, page } = await open();
      const faults = /** @type {const} */ ([
        ["/no-wasm/dist/worker.js", /allow 'wasm-unsafe-eval' in script-src/],
        ["/altered/dist/worker.js", /serve pkg\/ beside dist\//],
      ]);
      for (const [worker, helps] of faults) {
        answer = (request, response) => {
          if (request.url !== FAULTY) return response.writeHead(404).end();
          response.writeHead(200, whole);
          return response.write(bundle.subarray(0, 5000));
        };
        const seen = await visit(page, FAULTY, { worker });
        assert.equal(seen.code, "crashed");
        assert.match(seen.message, helps);
      }
      await context.close();
    },
  );

  /** @type {Record<string, [code: string | null, faulty: import("node:http").RequestListener]>} */
  const servers = {
    "has no such file": ["download", (_, response) => response.writeHead(404).end("no")],
    fails: ["download", (_, response) => response.writeHead(503).end("busy")],
    "sends its page for files that it does not have": [
      "download",
      (_, response) =>
        response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html>"),
    ],
    "sends an error as JSON with status 200": [
      "bad-bundle",
      (_, response) => response.writeHead(200, { "content-type": "application/json" }).end("{}"),
    ],
    "names the type wrongly": [
      null,
      (_, response) =>
        response.writeHead(200, { ...whole, "content-type": "image/png" }).end(bundle),
    ],
    "sends nothing": ["bad-bundle", (_, response) => response.writeHead(200).end()],
    "has no content": ["download", (_, response) => response.writeHead(204).end()],
    "sends a part that nobody asked for": [
      "download",
      (_, response) =>
        response.writeHead(206, { "content-range": "bytes 0-9/10" }).end("0123456789"),
    ],
    "says that the file is unchanged to who has none": [
      "download",
      (_, response) => response.writeHead(304).end(),
    ],
    "sends around in circles": [
      "download",
      (_, response) => response.writeHead(302, { location: FAULTY }).end(),
    ],
    "hangs up": ["download", (request) => request.destroy()],
    "ends too early without saying how long the file is": [
      "bad-bundle",
      (_, response) => response.writeHead(200).end(bundle.subarray(0, 5000)),
    ],
    "always breaks off": [
      "download",
      (_, response) => {
        response.writeHead(200, { ...whole, etag: '"other"' });
        response.write(bundle.subarray(0, 5000), () => setTimeout(() => response.destroy(), 20));
      },
    ],
    "says that the file is shorter than it is": [
      "bad-bundle",
      (_, response) => {
        response.strictContentLength = false;
        response
          .writeHead(200, { ...whole, "content-length": 5000, connection: "close" })
          .end(bundle);
      },
    ],
    "sends more than a bundle": [
      "bad-bundle",
      (_, response) => response.writeHead(200).end(Buffer.concat([bundle, bundle])),
    ],
    "says that the file is larger than any memory": [
      "download",
      (_, response) => {
        response.writeHead(200, { ...whole, "content-length": 2 ** 52 });
        response.write(bundle);
      },
    ],
    "says that plain bytes are compressed": [
      "download",
      (_, response) => response.writeHead(200, { "content-encoding": "gzip" }).end(bundle),
    ],
  };

  for (const [what, [code, faulty]] of Object.entries(servers)) {
    test(`a server that ${what}`, faultLimit, async () => {
      const { context, page } = await open();
      await page.clock.install();
      answer = faulty;
      asked = 0;
      const seen = await hurried(page, visit(page), 200);
      assert.equal(seen.code, code, seen.message);
      assert.ok(code === null ? seen.ids : seen.typed, JSON.stringify(seen));
      if (code === "bad-bundle") assert.ok(seen.message.startsWith(server.url), seen.message);
      assert.ok(asked <= 30, `asked ${asked} times`);
      // The next call works, and nothing wrong was kept.
      answer = healthy;
      assert.deepEqual((await visit(page)).ids, ids);
      // With a good copy on the device the fault takes nothing away, unless the file itself is gone.
      answer = faulty;
      const isGone = what === "has no such file";
      const again = await hurried(page, visit(page), 200);
      assert.deepEqual([again.ids, again.code], isGone ? [null, code] : [ids, null]);
      answer = (request) => void request.destroy();
      assert.deepEqual((await visit(page)).ids, ids);
      await context.close();
    });
  }

  for (const [where, stalled] of /** @type {[string, import("node:http").RequestListener][]} */ ([
    ["before it answers", () => {}],
    [
      "in the middle",
      (request, response) => {
        const from = Number(/\d+/.exec(request.headers.range ?? "")?.[0] ?? 0);
        const range = `bytes ${from}-${bundle.length - 1}/${bundle.length}`;
        const length = bundle.length - from;
        response.writeHead(from ? 206 : 200, {
          ...whole,
          "content-length": length,
          ...(from && { "content-range": range }),
        });
        response.write(bundle.subarray(from, from + 5000));
      },
    ],
  ])) {
    test(`a server that stalls ${where}`, faultLimit, async () => {
      const { context, page } = await open();
      // The server stalls for real; only the page's clock runs faster.
      await page.clock.install();
      answer = stalled;
      const seen = await hurried(page, visit(page), 2000);
      assert.equal(seen.code, "download", JSON.stringify(seen));
      assert.match(seen.message, /nothing came for 30 seconds/);
      answer = healthy;
      assert.deepEqual((await visit(page)).ids, ids);
      await context.close();
    });
  }

  for (const [which, worker, helps] of /** @type {[string, string, RegExp][]} */ ([
    ["worker's script", "/other/dist/worker.js", /own origin.*tigret\/inline/],
    ["wasm module", "/altered/dist/worker.js", /\/altered\/pkg\/tigret_infer_bg\.wasm\)/],
  ])) {
    test(`a ${which} that is not there, is another file or does not come`, faultLimit, async () => {
      const { context, page } = await open();
      /** @type {import("node:http").RequestListener[]} */
      const faults = [
        (_, response) => response.writeHead(404).end(),
        (_, response) => response.writeHead(200, { "content-type": "text/html" }).end("<p>page"),
        (_, response) => response.writeHead(200).end(),
        (request) => request.destroy(),
      ];
      for (const [index, faulty] of faults.entries()) {
        answer = faulty;
        const seen = await visit(page, BUNDLE, { worker });
        assert.equal(seen.code, "crashed", `${index}: ${JSON.stringify(seen)}`);
        assert.ok(seen.typed);
        assert.match(seen.message, helps, `${index}`);
      }
      // A signal ends the wait for it.
      answer = () => {};
      const name = await page.evaluate(
        async ({ url, worker }) => {
          const { Recommender } = await import("/package/dist/index.js");
          const controller = new AbortController();
          const loading = Recommender.load(url, {
            backend: "cpu",
            signal: controller.signal,
            worker: () => new Worker(/** @type {string} */ (worker), { type: "module" }),
          });
          setTimeout(() => controller.abort(), 300);
          return loading.catch((/** @type {Error} */ error) => error.name);
        },
        { url: BUNDLE, worker },
      );
      assert.equal(name, "AbortError");
      assert.deepEqual((await visit(page, BUNDLE)).ids, ids);
      await context.close();
    });
  }

  test("a wasm module that stalls on its way to a new worker", faultLimit, async () => {
    const { context, page } = await open();
    const wasm = readFileSync(join(packageFolder, "pkg/tigret_infer_bg.wasm"));
    let stalls = 0;
    answer = (_, response) => {
      const headers = { "content-type": "application/wasm", "content-length": wasm.length };
      response.writeHead(200, { ...headers, "cache-control": "no-store" });
      if (stalls-- > 0) response.write(wasm.subarray(0, 100_000));
      else response.end(wasm);
    };
    const loaded = await page.evaluateHandle(async (url) => {
      const { Recommender } = await import("/package/dist/index.js");
      const { startedWorkers } = await import("/tests/started-workers.mjs");
      const { workers, worker } = startedWorkers("/tests/hurried-worker.mjs");
      return { recommender: await Recommender.load(url, { backend: "cpu", worker }), workers };
    }, BUNDLE);
    const recommend = () =>
      loaded.evaluate(async ({ recommender, workers }) => {
        workers.at(-1)?.terminate();
        return recommender.recommend({ history: [] }).then(
          (/** @type {{ id: string }[]} */ picks) => picks.map(({ id }) => id),
          (/** @type {any} */ error) => `${error.code}: ${error.message}`,
        );
      });
    stalls = 1;
    assert.deepEqual(await recommend(), ids);
    stalls = 2;
    assert.match(String(await recommend()), /^crashed: .*nothing came for 30 seconds/);
    assert.deepEqual(await recommend(), ids);
    await context.close();
  });

  test(
    "a changed file that the browser keeps by itself, while the server says it is the same",
    faultLimit,
    async () => {
      const digest = await crypto.subtle.digest("SHA-256", bundle);
      const integrity = `sha256-${Buffer.from(digest).toString("base64")}`;
      const { context, page } = await open();
      const changed = Buffer.from(bundle);
      changed.writeUInt8(changed.readUInt8(changed.length - 9) ^ 1, changed.length - 9);
      answer = (_, response) => response.writeHead(200, whole).end(changed);
      assert.equal((await visit(page, FAULTY, { integrity })).code, "integrity");
      answer = healthy;
      assert.deepEqual((await visit(page, FAULTY, { integrity })).ids, ids);
      await context.close();
    },
  );

  test("another file in the place of the kept copy", faultLimit, async () => {
    /** Puts bytes into the cache as the package would. @param {Page} page @param {Buffer} bytes */
    const poison = (page, bytes) =>
      page.evaluate(
        async (numbers) => {
          const bytes = new Uint8Array(numbers);
          const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
          const hash = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
          const cache = await caches.open("tigret");
          let keys = await cache.keys();
          // The load did not wait for it.
          while (keys.length === 0) {
            await new Promise((wake) => setTimeout(wake, 10));
            keys = await cache.keys();
          }
          for (const request of keys) {
            const headers = new Headers((await cache.match(request))?.headers);
            headers.set("x-tigret-sha256", hash);
            await cache.put(request, new Response(bytes, { headers }));
          }
          return keys.length;
        },
        [...bytes],
      );
    const digest = await crypto.subtle.digest("SHA-256", bundle);
    const integrity = `sha256-${Buffer.from(digest).toString("base64")}`;

    // With its hash the page gets the file that it means, though the other is a bundle too.
    const { context, page } = await open();
    answer = healthy;
    assert.deepEqual((await visit(page, FAULTY, { integrity })).ids, ids);
    assert.equal(await poison(page, other), 1);
    assert.deepEqual((await visit(page, FAULTY, { integrity })).ids, ids);
    const kept = await visit(page, FAULTY, { integrity });
    assert.deepEqual([kept.ids, kept.downloaded], [ids, 0]);

    // Without it, what is no bundle is noticed when it is read, and fetched again.
    await poison(page, Buffer.from("no bundle"));
    assert.deepEqual((await visit(page)).ids, ids);
    answer = (request) => void request.destroy();
    assert.deepEqual((await visit(page)).ids, ids);
    // Where that fails it is the engine that has the last word.
    await poison(page, Buffer.from("no bundle"));
    assert.equal((await visit(page)).code, "bad-bundle");
    await context.close();
  });
});
