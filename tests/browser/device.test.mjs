/** What the package keeps on the device, asks of the network and does to the page, in Chromium. */

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { launch, load, open as openPage, packageFolder, parityFolder, serve } from "./support.mjs";

const skip = parityFolder ? false : "TIGRET_PARITY_DIR is not set";
const BUNDLE = "/fixtures/four-levels-f32.safetensors";

describe("on the device", { skip }, () => {
  /** @type {Awaited<ReturnType<typeof serve>>} */
  let server;
  /** @type {Awaited<ReturnType<typeof launch>>} */
  let browser;
  /** What the route `/faulty` does, and the `range` headers that it was asked with. */
  let fault = "none";
  /** @type {(string | undefined)[]} */
  let ranges = [];
  /** What ends the answers that wait. @type {(() => void)[]} */
  const waiting = [];
  /** Whether the route `/moving` leads to another origin, and how often that one refused a header. */
  let [moved, refused] = [false, 0];
  /** @type {import("node:http").Server} */
  let elsewhere;
  /** The one that the route `/versions` has. */
  let version = 1;

  before(async () => {
    assert.ok(existsSync(join(packageFolder, "dist/index.js")), "run `npm run build` first");
    const folder = parityFolder ?? "";
    const bytes = readFileSync(join(folder, "four-levels-f32.safetensors"));
    const inline = readFileSync(join(packageFolder, "dist/inline.js"));
    /** What documents without an origin may read. @param {Buffer} file @param {string} type */
    const shared = (file, type) => (/** @type {unknown} */ _, /** @type {any} */ response) => {
      response.setHeader("access-control-allow-origin", "*");
      response.setHeader("content-type", type).end(file);
    };
    server = await serve(
      { "/package/": packageFolder, "/fixtures/": folder },
      {
        "/trusted.html": (_, response) => {
          const policy = "require-trusted-types-for 'script'; trusted-types tigret";
          response.setHeader("content-security-policy", policy);
          response.setHeader("content-type", "text/html").end("<!doctype html><title>t</title>");
        },
        "/sandbox.html": (_, response) => {
          response.setHeader("content-security-policy", "sandbox allow-scripts");
          response.setHeader("content-type", "text/html").end("<!doctype html><title>t</title>");
        },
        "/moving": (request, response) => {
          const { port } = /** @type {import("node:net").AddressInfo} */ (elsewhere.address());
          if (moved)
            return void response.writeHead(302, { location: `http://localhost:${port}/` }).end();
          response.setHeader("etag", '"1"');
          if (request.headers["if-none-match"] === '"1"') response.writeHead(304).end();
          else response.end(bytes);
        },
        "/versions": (request, response) => {
          response.setHeader("etag", `"${version}"`);
          if (request.headers["if-none-match"] === `"${version}"`) response.writeHead(304).end();
          else response.end(bytes);
        },
        "/shared/inline.js": shared(inline, "text/javascript"),
        "/shared/bundle": shared(bytes, "application/octet-stream"),
        "/faulty": (request, response) => {
          const { range } = request.headers;
          ranges.push(range);
          const from = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
          const rest = bytes.subarray(from);
          response.setHeader("content-length", rest.length).setHeader("etag", '"1"');
          if (from > 0) {
            response.setHeader(
              "content-range",
              `bytes ${from}-${bytes.length - 1}/${bytes.length}`,
            );
            response.statusCode = 206;
          }
          if (fault === "none") return void response.end(rest);
          if (fault === "waits") {
            response.write(rest.subarray(0, 5000));
            return void waiting.push(() => response.end(rest.subarray(5000)));
          }
          // Breaks off once, in the middle.
          if (fault === "breaks") fault = "none";
          response.write(rest.subarray(0, rest.length >> 1), () =>
            setTimeout(() => response.destroy(), 50),
          );
        },
      },
    );
    elsewhere = createServer((request, response) => {
      response.setHeader("access-control-allow-origin", "*");
      response.setHeader("access-control-expose-headers", "etag");
      response.setHeader("cross-origin-resource-policy", "cross-origin");
      if (request.method !== "OPTIONS") return void response.setHeader("etag", '"2"').end(bytes);
      refused++;
      response.writeHead(204).end();
    });
    await new Promise((resolve) => elsewhere.listen(0, () => resolve(undefined)));
    browser = await launch();
  });

  after(async () => {
    await browser?.close();
    await server?.close();
    elsewhere?.close();
  });

  const open = (path = "/blank.html") => openPage(browser, server.url + path);

  /** @param {import("playwright-core").Page} page @param {Parameters<typeof load>[2]} [options] */
  const visit = (page, url = BUNDLE, options) => load(page, url, options);

  test("a second visit works without a network, and downloads nothing", async () => {
    const { context, page } = await open();
    const first = await visit(page);
    assert.ok(first.ids?.length && first.downloaded > 0, JSON.stringify(first));
    // Scripts of the package come from the server too: only the bundle is cut off.
    await context.route(`**${BUNDLE}`, (route) => route.abort());
    const second = await visit(page);
    assert.deepEqual(second, { ...first, downloaded: 0 });
    const uncached = await visit(page, BUNDLE, { cache: false });
    assert.equal(uncached.code, "download");
    await context.close();
  });

  test("a bundle is kept in frames and workers that have no address of their own", async () => {
    const { context, page } = await open();
    const seen = await page.evaluate(async () => {
      const { origin } = location;
      const script = `(async () => {
        const { Recommender } = await import("${origin}/package/dist/index.js");
        const load = async () => {
          const recommender = await Recommender.load("${origin}/moving", { backend: "cpu" });
          recommender.dispose();
          return recommender.downloaded;
        };
        const first = await load();
        // The load did not wait for it.
        for (let wait = 0; wait < 300; wait++) {
          if ((await (await caches.open("tigret")).keys()).length > 0) break;
          await new Promise((wake) => setTimeout(wake, 10));
        }
        const seen = [location.protocol, first > 0, await load()];
        await caches.delete("tigret");
        return seen;
      })()`;
      const frame = document.createElement("iframe");
      frame.srcdoc = "<!doctype html><title>frame</title>";
      document.body.append(frame);
      await new Promise((resolve) => frame.addEventListener("load", resolve));
      const inFrame = await /** @type {any} */ (frame.contentWindow).eval(script);
      const blob = new Blob([`${script}.then(postMessage, (e) => postMessage(String(e)))`]);
      const worker = new Worker(URL.createObjectURL(blob));
      const inWorker = await new Promise((resolve) => {
        worker.addEventListener("message", ({ data }) => resolve(data));
      });
      return [inFrame, inWorker];
    });
    assert.deepEqual(seen, [
      ["about:", true, 0],
      ["blob:", true, 0],
    ]);
    await context.close();
  });

  test("a copy of before its address led to another origin is replaced", async () => {
    const { context, page } = await open();
    assert.equal((await visit(page, "/moving")).code, null);
    await page.waitForFunction(async () => (await (await caches.open("tigret")).keys()).length > 0);
    assert.equal((await visit(page, "/moving")).downloaded, 0);
    moved = true;
    const first = await visit(page, "/moving");
    assert.ok(first.ids?.length && first.downloaded > 0, JSON.stringify(first));
    // The answer of before is replaced a moment later.
    await page.waitForFunction(async () => {
      const cache = await caches.open("tigret");
      const [kept] = await cache.matchAll();
      return kept && !kept.headers.has("etag");
    });
    refused = 0;
    assert.ok((await visit(page, "/moving")).ids?.length);
    assert.equal(refused, 0);
    await context.close();
  });

  test("a new version is kept where there is no room for two", async () => {
    const { context, page } = await open();
    const session = await context.newCDPSession(page);
    const room = { origin: server.url, quotaSize: 300_000 };
    await session.send("Storage.overrideQuotaForOrigin", room);
    for (version = 1; version <= 2; version++) {
      assert.ok((await visit(page, "/versions")).downloaded > 0);
      await page.waitForFunction(async (etag) => {
        const kept = await (await caches.open("tigret")).matchAll();
        // What is not read takes room.
        for (const { body } of kept) await body?.cancel();
        return kept[0]?.headers.get("etag") === etag;
      }, `"${version}"`);
      assert.equal((await visit(page, "/versions")).downloaded, 0);
    }
    await context.close();
  });

  test("a download that breaks off goes on where it was", async () => {
    const { context, page } = await open();
    [fault, ranges] = ["breaks", []];
    const found = await visit(page, "/faulty");
    assert.ok(found.ids?.length, JSON.stringify(found));
    assert.equal(ranges.length, 2);
    assert.match(ranges[1] ?? "", /^bytes=[1-9]\d*-$/);
    await context.close();
  });

  test("a download that is cut off by a reload leaves nothing broken", async () => {
    const { context, page } = await open();
    await page.evaluate(async (url) => {
      const { Recommender } = await import("/package/dist/index.js");
      await new Promise((resolve) => {
        void Recommender.load(url, { onProgress: resolve }).catch(() => {});
      });
    }, BUNDLE);
    await page.reload();
    assert.ok((await visit(page)).ids?.length);
    await context.close();
  });

  test("a history outlives a reload, is seen by another tab, and can be forgotten", async () => {
    const { context, page } = await open();
    /** @param {import("playwright-core").Page} tab @param {string} code */
    const inTab = (tab, code) =>
      tab.evaluate(async (code) => {
        const tigret = await import("/package/dist/index.js");
        const kept = /** @type {any} */ (globalThis);
        kept.store ??= new tigret.HistoryStore();
        const store = kept.store;
        return new Function("store", "tigret", `return (async () => { ${code} })()`)(store, tigret);
      }, code);
    assert.equal(await inTab(page, "return store.persistent()"), true);
    await inTab(page, "await store.add('a'); await store.add('b');");
    await page.reload();
    assert.deepEqual(await inTab(page, "return store.list()"), ["a", "b"]);

    const other = await context.newPage();
    await other.goto(`${server.url}/blank.html`);
    await inTab(other, "globalThis.changes = 0; store.onChange(() => globalThis.changes++);");
    await inTab(page, "await Promise.all([store.add('c'), store.remove('a')]);");
    await other.waitForFunction("globalThis.changes === 2");
    assert.deepEqual(await inTab(other, "return store.list()"), ["b", "c"]);
    // Both at once lose nothing.
    await Promise.all(
      [page, other].map((tab, which) =>
        inTab(tab, `for (let i = 0; i < 20; i++) await store.add("${which}-" + i);`),
      ),
    );
    assert.equal((await inTab(page, "return store.list()")).length, 42);

    await visit(page, BUNDLE, { backend: "auto" });
    // Who listens hears of it, and to read then does not bring a database back.
    await inTab(
      page,
      "globalThis.reads = []; store.onChange(() => globalThis.reads.push(store.list()));",
    );
    await page.evaluate(() => caches.open("another page's"));
    await inTab(page, "await tigret.forget();");
    assert.deepEqual(await inTab(page, "return Promise.all(globalThis.reads)"), [[]]);
    const left = await page.evaluate(async () => ({
      databases: await indexedDB.databases(),
      caches: await caches.keys(),
      local: Object.keys(localStorage),
    }));
    assert.deepEqual(left, { databases: [], caches: ["another page's"], local: [] });
    assert.deepEqual(await inTab(other, "return store.list()"), []);
    // Nor does what finds nothing to take away bring it back.
    await inTab(other, "await store.remove('a'); await store.clear();");
    assert.equal(await inTab(other, "return store.persistent()"), true);
    assert.deepEqual(await inTab(other, "return indexedDB.databases()"), []);
    // Nor does what is being added meanwhile, with the database open or not.
    for (const before of ["", "await store.add('a');"]) {
      const forget = "const adding = store.add('b'); await tigret.forget(); await adding;";
      await inTab(other, `${before} ${forget}`);
      assert.deepEqual(await inTab(other, "return indexedDB.databases()"), [], before);
    }
    await context.close();
  });

  test("what another tab loads while all is forgotten is not kept", async () => {
    const { context, page } = await open();
    const other = await context.newPage();
    await other.goto(`${server.url}/blank.html`);
    fault = "waits";
    const loading = visit(other, "/faulty", { backend: "auto" });
    while (waiting.length === 0) await new Promise((wake) => setTimeout(wake, 10));
    await page.evaluate(async () => {
      const { forget } = await import("/package/dist/index.js");
      await forget();
    });
    fault = "none";
    for (const end of waiting.splice(0)) end();
    assert.ok((await loading).ids?.length);
    const left = await other.evaluate(async () => {
      await new Promise((resolve) => setTimeout(resolve, 500));
      return { caches: await caches.keys(), local: Object.keys(localStorage) };
    });
    assert.deepEqual(left, { caches: [], local: [] });
    // The next load is kept as ever.
    await visit(other, "/faulty");
    await other.waitForFunction(async () => (await caches.keys()).length > 0);
    await context.close();
  });

  test("tigret/inline works in a sandbox, whose documents have no origin and no storage", async () => {
    const { context, page } = await open("/sandbox.html");
    const seen = await page.evaluate(async () => {
      const code = "/shared/inline.js";
      const { Recommender } = await import(code);
      const recommender = await Recommender.load("/shared/bundle");
      const { ids } = await recommender.catalogue();
      await recommender.history.add(ids[0]);
      const picks = await recommender.recommend({ exclude: "history" });
      recommender.dispose();
      return { origin: globalThis.origin, items: picks.length };
    });
    assert.deepEqual(seen, { origin: "null", items: 20 });
    await context.close();
  });

  for (const backend of /** @type {const} */ (["cpu", "webgpu"])) {
    test(`a strict policy allows all of it, and after the load nothing is asked for (${backend})`, async () => {
      const { context, page } = await open("/strict.html");
      /** @type {string[]} */
      const violations = [];
      page.on("console", (message) => {
        if (message.text().includes("Content Security Policy")) violations.push(message.text());
      });
      await page.evaluate(
        async ({ url, backend }) => {
          const { Recommender } = await import("/package/dist/index.js");
          /** @type {any} */ (globalThis).recommender = await Recommender.load(url, { backend });
        },
        { url: BUNDLE, backend },
      );
      /** @type {string[]} */
      const traffic = [];
      context.on("request", (request) => traffic.push(request.url()));
      const before = server.requests.length;
      const items = await page.evaluate(async () => {
        const { recommender } = /** @type {any} */ (globalThis);
        const { ids } = await recommender.catalogue();
        let items = 0;
        for (let click = 0; click < 8; click++) {
          await recommender.history.add(ids[click]);
          const picks = await recommender.recommend({ exclude: "history" });
          items += picks.length;
          await recommender.explain(picks[0]);
          await recommender.trace();
        }
        await recommender.recommend({ temperature: 1.5, allow: ids.slice(0, 40) });
        await recommender.history.clear();
        return items;
      });
      assert.ok(items > 0);
      assert.deepEqual(violations, []);
      assert.deepEqual(traffic, []);
      assert.deepEqual(server.requests.slice(before), []);
      await context.close();
    });
  }

  test("a page with Trusted Types starts the worker itself", async () => {
    const { context, page } = await open("/trusted.html");
    assert.equal((await visit(page)).code, "crashed");
    const items = await page.evaluate(async (url) => {
      const { Recommender } = await import("/package/dist/index.js");
      const policy = /** @type {any} */ (globalThis).trustedTypes.createPolicy("tigret", {
        createScriptURL: (/** @type {string} */ address) => address,
      });
      const worker = () =>
        new Worker(policy.createScriptURL("/package/dist/worker.js"), { type: "module" });
      const recommender = await Recommender.load(url, { backend: "cpu", worker });
      return (await recommender.recommend({ history: [] })).length;
    }, BUNDLE);
    assert.ok(items > 0);
    await context.close();
  });

  test("the page's own thread stays free while a model loads and answers", async () => {
    // On a busy machine any task can be long: it has to stay free once in three times.
    /** @type {number[]} */
    let long = [];
    for (let attempt = 0; attempt < 3; attempt++) {
      const { context, page } = await open();
      long = await page.evaluate(async (url) => {
        /** @type {number[]} */
        const durations = [];
        const observer = new PerformanceObserver((list) => {
          for (const entry of list.getEntries()) durations.push(entry.duration);
        });
        observer.observe({ type: "longtask" });
        const { Recommender } = await import("/package/dist/index.js");
        const recommender = await Recommender.load(url, { backend: "cpu" });
        for (let call = 0; call < 50; call++) await recommender.recommend({ history: [] });
        await new Promise((resolve) => setTimeout(resolve, 100));
        return durations;
      }, BUNDLE);
      await context.close();
      if (long.length === 0) break;
    }
    assert.deepEqual(long, [], "long tasks, in milliseconds");
  });

  test("a page with a recommender is kept for the way back, and goes on there", async () => {
    // Playwright turns the cache off by itself.
    const caching = await launch({ without: ["--disable-back-forward-cache"] });
    try {
      const page = await caching.newPage();
      await page.goto(`${server.url}/blank.html`);
      await page.evaluate(async (url) => {
        const { Recommender } = await import("/package/dist/index.js");
        const recommender = await Recommender.load(url, { backend: "cpu" });
        await recommender.recommend({ history: [] });
        await recommender.history.add("a");
        Object.assign(globalThis, { recommender });
        addEventListener("pageshow", ({ persisted }) => Object.assign(globalThis, { persisted }));
      }, BUNDLE);
      // Other browsers than the one that runs this do not keep a page with locks.
      await page.waitForFunction(async () => {
        const { held = [], pending = [] } = await navigator.locks.query();
        return held.length + pending.length === 0;
      });
      await page.goto(`${server.url}/strict.html`);
      // What comes from the cache does not load.
      await page.goBack({ waitUntil: "commit" });
      const seen = await page.evaluate(async () => {
        const [entry] = performance.getEntriesByType("navigation");
        const { persisted = false, recommender } = /** @type {any} */ (globalThis);
        const items = await recommender?.recommend({ history: [] });
        return { persisted, items: items?.length, why: JSON.stringify(entry) };
      });
      assert.equal(seen.persisted, true, seen.why);
      assert.ok(seen.items > 0);
    } finally {
      await caching.close();
    }
  });
});
