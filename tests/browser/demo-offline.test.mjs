/** The service worker of the built demo, and the requests that the page counts. */

import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { test } from "node:test";
import {
  describeDemo,
  hasLoaded,
  keptPaths,
  untilKept,
  untilModelKept,
  untilSays,
} from "./demo.mjs";
import { demoFolder, launchProfile, serve } from "./support.mjs";

/** @typedef {import("playwright-core").Page} Page */
/** @typedef {{ "index.html"?: (text: string) => string, "sw.js"?: (text: string) => string }} Changes */

describeDemo("service worker", (demo) => {
  const { go } = demo;
  const assets = readdirSync(join(demoFolder, "assets")).map((name) => `/assets/${name}`);
  /** Paths without which there is no visit. */
  const needed = ["/", "/model/items.jsonl", ...assets];
  const isWhole = (/** @type {string[]} */ paths) => needed.every((path) => paths.includes(path));

  // Scripts of a newer version, and what names them in their place.
  const [script = "", worker = ""] = ["main", "worker"].map((name) =>
    assets.find((path) => path.startsWith(`/assets/${name}-`) && path.endsWith(".js")),
  );
  const newer = (/** @type {string} */ text) =>
    [script, worker].reduce(
      (text, path) => text.replaceAll(basename(path), basename(path).replace("-", "-newer-")),
      text,
    );
  const [newerScript, newerWorker] = [newer(script), newer(worker)];

  /** The page that is kept. @param {Page} page */
  function keptPage(page) {
    return page.evaluate(async () => {
      const cache = await caches.open("tigret-demo/");
      return (await cache.match(`${location.origin}/`))?.text();
    });
  }

  /**
   * Lets a page that will be opened wait for its service worker for as long as it takes: on a loaded
   * machine that may be longer than a visitor is made to wait.
   *
   * @param {Page} page
   */
  function waitForServiceWorker(page) {
    return page.addInitScript(() => {
      const { setTimeout } = globalThis;
      const patience = 1500;
      Object.assign(globalThis, {
        /** @param {TimerHandler} call @param {number} [delay] @param {unknown[]} rest */
        setTimeout: (call, delay, ...rest) =>
          delay === patience ? 0 : setTimeout(call, delay, ...rest),
      });
    });
  }

  test("a second visit works without a server", async () => {
    const other = await serve({ "/": demoFolder });
    const context = await demo.browser.newContext();
    const page = await context.newPage();
    await waitForServiceWorker(page);
    await go(page, `${other.url}/?backend=cpu`);
    // What was fetched before the service worker saw it is kept a moment later.
    await untilKept(page, isWhole);
    await untilModelKept(page);
    await other.close();
    await page.reload();
    await page.waitForSelector("html[data-ready]");
    assert.equal(await page.locator("#picks li").count(), 20);
    assert.equal(await page.locator("#alert").isVisible(), false);
    await context.close();
  });

  test("what is on its way when the service worker comes is kept, too", async () => {
    const other = await serve(
      { "/": demoFolder },
      {
        "/model/about.json": (_, response) => {
          const text = readFileSync(join(demoFolder, "model/about.json"));
          response.setHeader("content-type", "application/json");
          setTimeout(() => response.end(text), 2000);
        },
      },
    );
    const context = await demo.browser.newContext();
    const page = await context.newPage();
    await waitForServiceWorker(page);
    await go(page, `${other.url}/?backend=cpu`);
    await untilKept(page, hasLoaded);
    await context.close();
    await other.close();
  });

  test("a service worker that comes late keeps what a second visit needs, too, and the page counts it", async () => {
    const context = await demo.browser.newContext();
    const page = await context.newPage();
    await page.addInitScript(() => {
      const { register } = ServiceWorkerContainer.prototype;
      /** @this {ServiceWorkerContainer} @param {Parameters<typeof register>} how */
      ServiceWorkerContainer.prototype.register = async function (...how) {
        while (!document.documentElement.dataset.ready) {
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
        return register.apply(this, how);
      };
    });
    await go(page);
    await untilKept(page, isWhole);
    const { requests } = demo.server;
    const late = requests.slice(requests.lastIndexOf("/sw.js") + 1);
    assert.ok(late.length >= needed.length, late.join());
    await untilSays(page, "#requests", `${late.length} requests since`);
    await context.close();
  });

  test("a second visit works with a server that does not answer, and keeps what comes late but a page", async () => {
    let gate = Promise.resolve();
    const file = (
      /** @type {string} */ name,
      /** @type {string} */ type,
      /** @type {(text: string) => string} */ change,
    ) =>
      /** @type {import("node:http").RequestListener} */ (
        async (_, response) => {
          const late = gate;
          await late;
          const text = readFileSync(join(demoFolder, name), "utf8");
          response.setHeader("content-type", type).end(late === started ? text : change(text));
        }
      );
    const started = gate;
    const other = await serve(
      { "/": demoFolder },
      {
        "/": file("index.html", "text/html", newer),
        "/model/items.jsonl": file(
          "model/items.jsonl",
          "application/x-ndjson",
          (items) => `\n${items}`,
        ),
      },
    );
    const context = await demo.browser.newContext();
    const page = await context.newPage();
    await waitForServiceWorker(page);
    await go(page, `${other.url}/?backend=cpu`);
    await untilKept(page, (paths) => ["/", "/model/items.jsonl"].every((p) => paths.includes(p)));
    /** @type {() => void} */
    let open = () => {};
    gate = new Promise((resolve) => {
      open = () => resolve(undefined);
    });
    await page.reload({ timeout: 20_000 });
    await page.waitForSelector("html[data-ready]", { timeout: 20_000 });
    assert.equal(await page.locator("#picks li").count(), 20);
    open();
    await page.waitForFunction(async () => {
      const cache = await caches.open("tigret-demo/");
      const kept = await cache.match(`${location.origin}/model/items.jsonl`);
      return (await kept?.text())?.startsWith("\n");
    });
    // Its assets are others, which nobody has fetched.
    assert.ok((await keptPage(page))?.includes(script));
    await context.close();
    await other.close();
  });

  test("a second visit works with a server that is out of order", async () => {
    let isBroken = false;
    let refused = 0;
    const file = (/** @type {string} */ name) =>
      /** @type {import("node:http").RequestListener} */ (
        (_, response) => {
          if (isBroken) refused++;
          response.statusCode = isBroken ? 503 : 200;
          const type = name.endsWith("html") ? "text/html" : "application/x-ndjson";
          const text = isBroken ? "out of order" : readFileSync(join(demoFolder, name));
          response.setHeader("content-type", type).end(text);
        }
      );
    const changes = {
      "/": file("index.html"),
      "/model/items.jsonl": file("model/items.jsonl"),
    };
    const other = await serve({ "/": demoFolder }, changes);
    const context = await demo.browser.newContext();
    const page = await context.newPage();
    await waitForServiceWorker(page);
    await go(page, `${other.url}/?backend=cpu`);
    await untilKept(page, (paths) => Object.keys(changes).every((path) => paths.includes(path)));
    isBroken = true;
    await page.reload();
    await page.waitForSelector("html[data-ready]");
    assert.equal(await page.locator("#picks li").count(), 20);
    assert.ok(refused >= 2);
    await context.close();
    await other.close();
  });

  /**
   * Serves the demo with what `changes` make of a file.
   *
   * @param {() => Changes} changes
   * @param {Parameters<typeof serve>[1]} routes
   */
  function serveChanged(changes, routes = {}) {
    const types = { "index.html": "text/html", "sw.js": "text/javascript" };
    /** @param {keyof Changes} file @returns {import("node:http").RequestListener} */
    const route = (file) => (_, response) => {
      const text = readFileSync(join(demoFolder, file), "utf8");
      response.setHeader("content-type", types[file]).end(changes()[file]?.(text) ?? text);
    };
    const changed = { "/": route("index.html"), "/sw.js": route("sw.js") };
    return serve({ "/": demoFolder }, { ...changed, ...routes });
  }

  /** Waits until a newer service worker is the page's. @param {Page} page */
  function updateServiceWorker(page) {
    return page.evaluate(async () => {
      const { serviceWorker } = navigator;
      const registration = await serviceWorker.ready;
      const old = registration.active;
      await registration.update();
      // The first one may come only now, where the machine is slow.
      while (!serviceWorker.controller || serviceWorker.controller === old) {
        await new Promise((resolve) => {
          serviceWorker.addEventListener("controllerchange", resolve, { once: true });
        });
      }
    });
  }

  for (const [what, fault] of /** @type {const} */ ([
    [
      "full",
      "Cache.prototype.put = async () => { throw new DOMException('', 'QuotaExceededError') };",
    ],
    [
      "denied",
      "CacheStorage.prototype.open = async () => { throw new DOMException('', 'SecurityError') };",
    ],
  ])) {
    test(`where storage is ${what} the newest page comes from the network`, async () => {
      /** @type {Changes} */
      const changes = {};
      const other = await serveChanged(() => changes);
      const context = await demo.browser.newContext();
      const page = await context.newPage();
      await go(page, `${other.url}/?backend=cpu`);
      changes["sw.js"] = (text) => fault + text;
      await updateServiceWorker(page);
      changes["index.html"] = (text) => text.replace("<title>", "<title>Newer ");
      await page.reload();
      await page.waitForSelector("html[data-ready]");
      assert.match(await page.title(), /^Newer /);
      assert.equal(await page.locator("#alert").isVisible(), false);
      await context.close();
      await other.close();
    });
  }

  test("assets of an older page are deleted once no other window may need them", async () => {
    /** @type {Changes} */
    const changes = {};
    const other = await serveChanged(() => changes);
    const context = await demo.browser.newContext();
    const page = await context.newPage();
    await waitForServiceWorker(page);
    await go(page, `${other.url}/?backend=cpu`);
    const window = await context.newPage();
    await go(window, `${other.url}/?backend=cpu`);
    const old = "/assets/main-01234567.js";
    await untilKept(page, (paths) => paths.some((path) => path.endsWith(".wasm")));
    const current = (await keptPaths(page)).filter((path) => path.startsWith("/assets/"));
    // The page under its other address, which this version's visitors need not open.
    const oldPage = "/index.html";
    await page.evaluate(
      async ([path, page]) => {
        const cache = await caches.open("tigret-demo/");
        await cache.put(path, new Response("old"));
        const headers = { "content-type": "text/html" };
        await cache.put(page, new Response(`<script src=".${path}">`, { headers }));
      },
      /** @type {const} */ ([old, oldPage]),
    );
    changes["sw.js"] = (text) => `${text}\n// Another version.`;
    await updateServiceWorker(page);

    /** Asks as a page does, and waits until that is done. @param {string} path @param {string[]} loaded */
    const keep = async (path, loaded) => {
      await page.evaluate(
        (paths) => {
          const urls = paths.map((path) => new URL(path, location.href).href);
          const page = new URL("/", location.href).href;
          navigator.serviceWorker.controller?.postMessage({
            kind: "keep",
            page,
            urls,
            isLate: false,
          });
        },
        [...loaded, path],
      );
      await untilKept(page, (paths) => paths.includes(path));
    };
    await keep("/blank.html", []);
    assert.ok((await keptPaths(page)).includes(old), "another window may need it");
    await window.close();
    await keep("/strict.html", [old]);
    assert.ok((await keptPaths(page)).includes(old), "the page itself needs it");

    await page.reload();
    await untilKept(page, (paths) => !paths.includes(old) && !paths.includes(oldPage));
    const kept = await keptPaths(page);
    for (const path of current) assert.ok(kept.includes(path), `${path} is still kept`);
    await context.close();
    await other.close();
  });

  /** What answers with a script of the newer version. @param {string} path */
  const serveNewer = (path) =>
    /** @type {import("node:http").RequestListener} */ (
      (_, response) => {
        response.setHeader("content-type", "text/javascript");
        response.end(newer(readFileSync(join(demoFolder, path), "utf8")));
      }
    );

  /**
   * A visit that keeps all, after which the server has the newer version.
   *
   * @param {Parameters<typeof serve>[1]} routes
   */
  async function visitBeforeDeploy(routes = {}) {
    /** @type {Changes} */
    const changes = {};
    const other = await serveChanged(() => changes, {
      [newerScript]: serveNewer(script),
      [newerWorker]: serveNewer(worker),
      ...routes,
    });
    const context = await demo.browser.newContext();
    const page = await context.newPage();
    await waitForServiceWorker(page);
    await go(page, `${other.url}/?backend=cpu`);
    await untilKept(page, isWhole);
    await untilModelKept(page);
    Object.assign(changes, { "index.html": newer, "sw.js": newer });
    return { other, context, page };
  }

  const page404 = /** @type {const} */ ([200, "text/html"]);
  for (const [what, missing, [status, type]] of /** @type {const} */ ([
    ["is cut short before the script", newerScript, [503, "text/plain"]],
    ["is cut short before the worker", newerWorker, [503, "text/plain"]],
    ["is given a page in the place of the worker", newerWorker, page404],
  ])) {
    test(`a visit that ${what} of a newer version leaves the one before it whole`, async () => {
      const { other, context, page } = await visitBeforeDeploy({
        [missing]: (_, response) =>
          void response.writeHead(status, { "content-type": type }).end("<!doctype html>"),
      });
      // Under the service worker of the version before, and under its own.
      for (const visit of [1, 2]) {
        const failed = page.waitForResponse((response) => response.url().endsWith(missing));
        await page.reload();
        assert.equal((await failed).status(), status);
        await page.evaluate(async () => {
          const registration = await navigator.serviceWorker.ready;
          await registration.update();
          while (registration.installing || registration.waiting) {
            await new Promise((resolve) => setTimeout(resolve, 50));
          }
        });
        await page.waitForTimeout(300);
        assert.ok((await keptPage(page))?.includes(script), `${visit}`);
      }
      await other.close();
      await page.reload();
      await page.waitForSelector("html[data-ready]");
      assert.equal(await page.locator("#picks li").count(), 20);
      await context.close();
    });
  }

  test("the first visit after a deploy is enough for the newer version to be kept whole", async () => {
    const { other, context, page } = await visitBeforeDeploy();
    await page.reload();
    await page.waitForSelector("html[data-ready]");
    await page.evaluate(async () => void (await navigator.serviceWorker.ready).update());
    await untilKept(page, (paths) => paths.includes(newerWorker) && !paths.includes(worker));
    assert.ok((await keptPage(page))?.includes(newerScript));
    await other.close();
    await page.reload();
    await page.waitForSelector("html[data-ready]");
    assert.equal(await page.locator("#picks li").count(), 20);
    assert.equal(await page.locator(`script[src$="${newerScript}"]`).count(), 1);
    await context.close();
  });

  test("what the address of the page says is in no file that the service worker has written", async () => {
    /** @type {Changes} */
    const changes = {};
    const other = await serveChanged(() => changes);
    const profile = mkdtempSync(join(tmpdir(), "tigret-profile-"));
    const context = await launchProfile(profile);
    try {
      const page = await context.newPage();
      await waitForServiceWorker(page);
      await go(page, `${other.url}/?backend=cpu`);
      await untilKept(page, isWhole);
      // That the page of the next visit is kept is seen by its title.
      changes["index.html"] = (text) => text.replace("<title>", "<title>Newer ");
      await page.goto(`${other.url}/blank.html`);
      await go(page, `${other.url}/?backend=cpu&from=spring-letter#history=liked-by-a-friend`);
      await page.waitForFunction(async () => {
        const kept = await (await caches.open("tigret-demo/")).match(`${location.origin}/`);
        return (await kept?.text())?.includes("<title>Newer ");
      });
    } finally {
      await context.close();
      await other.close();
    }
    const folder = join(profile, "Default/Service Worker/CacheStorage");
    const files = readdirSync(folder, { encoding: "utf8", recursive: true })
      .map((name) => join(folder, name))
      .filter((path) => statSync(path).isFile())
      .map((path) => readFileSync(path));
    rmSync(profile, { recursive: true });
    const holding = (/** @type {string} */ text) => files.filter((file) => file.includes(text));
    assert.equal(holding("<title>Newer ").length, 1, "the files hold no page");
    for (const text of ["spring-letter", "liked-by-a-friend"]) {
      assert.equal(holding(text).length, 0, text);
    }
  });

  test("each tab counts its own requests, and those of its worker", async () => {
    const context = await demo.browser.newContext();
    const [first, second] = [await context.newPage(), await context.newPage()];
    // What the first visit loads before it has a service worker is asked for once more.
    await waitForServiceWorker(first);
    await go(first);
    await untilKept(first, isWhole);
    /** @param {Page} page */
    const count = (page) => page.locator("#requests").textContent();
    for (const page of [first, second]) {
      await go(page);
    }
    assert.match((await count(first)) ?? "", /^0 requests/);
    // A worker that ended is replaced by the next call: its script and its module are asked for.
    await second.workers()[0]?.evaluate(() => close());
    await second.waitForTimeout(200);
    await second.locator("#items button").first().click();
    await second.waitForFunction(() =>
      document.querySelector("#requests")?.textContent?.startsWith("2 requests"),
    );
    assert.match((await count(first)) ?? "", /^0 requests/);
    await context.close();
  });
});
