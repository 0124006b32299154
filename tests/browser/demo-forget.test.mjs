/** `Forget me` in the built demo. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { describeDemo, serveModel, untilKept, untilModelKept, untilSays } from "./demo.mjs";
import { demoFolder, serve } from "./support.mjs";

describeDemo("forgetting", (demo) => {
  const { go } = demo;

  test("the history outlives a reload, and `Forget me` leaves nothing", async () => {
    const context = await demo.browser.newContext();
    const page = await context.newPage();
    await page.addInitScript(() => {
      navigator.clipboard.writeText = () => Promise.reject(new DOMException("", "NotAllowedError"));
    });
    await go(page);
    await page.locator("#items button").nth(1).click();
    await page.locator("#history li").waitFor();
    // The list shows the item at once; the device has it a moment later.
    await page.waitForSelector("#history[aria-busy=false]");
    await page.goto(`${demo.server.url}/blank.html`);
    await page.goto(`${demo.server.url}/?backend=cpu`);
    await page.locator("#history li").waitFor();
    await page.waitForSelector("html[data-ready]");
    await page.locator("#copy").click();
    await page.locator("#link").waitFor();
    assert.match(await page.locator("#link").inputValue(), /#history=/);
    // Firefox brings back at a reload what a field held, but where it is asked not to.
    assert.equal(await page.locator("#link").getAttribute("autocomplete"), "off");
    // What other pages of this origin keep is not the demo's to forget.
    await page.evaluate(() => caches.open("another page's"));
    await page.locator("summary").click();
    await page.locator("#forget").click();
    await untilSays(page, "#forgotten", "Nothing about you");
    const left = await page.evaluate(async () => ({
      databases: await indexedDB.databases(),
      caches: await caches.keys(),
      local: Object.keys(localStorage),
      workers: (await navigator.serviceWorker.getRegistrations()).length,
      hash: location.hash,
    }));
    assert.equal(await page.locator("#link").inputValue(), "");
    const others = ["another page's"];
    assert.deepEqual(left, { databases: [], caches: others, local: [], workers: 0, hash: "" });
    // The answer for a visitor of whom nothing is known does not take the place of these words.
    await untilSays(page, "#status", "20 items in");
    await page.waitForTimeout(300);
    assert.match((await page.locator("#forgotten").textContent()) ?? "", /^Nothing about you/);
    // The choice of an engine is kept, and that nothing is kept is not said any more.
    await page.locator("input[value=auto]").check({ force: true });
    await page.waitForFunction(() => localStorage.length > 0);
    assert.equal(await page.locator("#forgotten").textContent(), "");
    await context.close();
  });

  test("how a kept model came is told in words that stay true after `Forget me`", async () => {
    const other = await serveModel((response, bytes) => {
      const isKept = response.req.headers["if-none-match"] === '"1"';
      response.setHeader("etag", '"1"');
      response.writeHead(isKept ? 304 : 200).end(isKept ? undefined : bytes);
    });
    const context = await demo.browser.newContext();
    const page = await context.newPage();
    const told = () =>
      page.locator("#device div", { hasText: "Download" }).locator("dd").textContent();
    await go(page, `${other.url}/?backend=cpu`);
    await page.locator("summary").click();
    assert.match((await told()) ?? "", /^[\d.]+ MB$/);
    await untilModelKept(page);
    await page.reload();
    await page.waitForSelector("html[data-ready]");
    await page.locator("summary").click();
    await page.locator("#forget").click();
    await untilSays(page, "#forgotten", "nothing of this page, is kept on this device");
    assert.equal(await told(), "0 bytes: a copy of an earlier visit");
    await context.close();
    await other.close();
  });

  test("after `Forget me` the service worker of a page that is open keeps nothing, until the next visit", async () => {
    const context = await demo.browser.newContext();
    const page = await context.newPage();
    await go(page);
    await page.waitForFunction(() => navigator.serviceWorker.controller);
    await untilKept(page, (paths) => paths.includes("/"));
    await page.locator("summary").click();
    await page.locator("#forget").click();
    await untilSays(page, "#forgotten", "Nothing about you");
    const devtools = await context.newCDPSession(page);
    await devtools.send("ServiceWorker.enable");
    for (const isStopped of [false, true]) {
      // It then starts anew, and knows nothing of before.
      if (isStopped) await devtools.send("ServiceWorker.stopAllWorkers");
      const names = await page.evaluate(async () => {
        await (await fetch("./model/about.json")).text();
        await new Promise((resolve) => setTimeout(resolve, 200));
        return caches.keys();
      });
      assert.deepEqual(names, [], `${isStopped}`);
    }
    await page.reload();
    await page.waitForSelector("html[data-ready]");
    await untilKept(page, (paths) => paths.some((path) => path.endsWith(".wasm")));
    await context.close();
  });

  test("a service worker that is installed while all is forgotten keeps nothing", async () => {
    const script = readFileSync(join(demoFolder, "sw.js"), "utf8");
    let version = 1;
    const other = await serve(
      { "/": demoFolder },
      {
        "/sw.js": (_, response) => {
          response.setHeader("content-type", "text/javascript");
          // The newer one takes a while to install.
          const wait = "addEventListener('install', (e) => e.waitUntil(fetch('./slow')));";
          response.end(version === 1 ? script : wait + script);
        },
        "/slow": (_, response) => void setTimeout(() => response.end(), 1500),
      },
    );
    const context = await demo.browser.newContext();
    const page = await context.newPage();
    await go(page, `${other.url}/?backend=cpu`);
    await page.waitForFunction(() => navigator.serviceWorker.controller);
    await untilKept(page, (paths) => paths.includes("/"));
    version = 2;
    await page.evaluate(async () => {
      const registration = await navigator.serviceWorker.ready;
      await registration.update();
    });
    await page.locator("summary").click();
    await page.locator("#forget").click();
    await untilSays(page, "#forgotten", "Nothing about you");
    await page.waitForTimeout(2500);
    const names = await page.evaluate(async () => {
      await (await fetch("./model/about.json")).text();
      await new Promise((resolve) => setTimeout(resolve, 200));
      return caches.keys();
    });
    assert.deepEqual(names, []);
    await context.close();
    await other.close();
  });

  test("demos in different folders of an origin keep their histories and files apart", async () => {
    const context = await demo.browser.newContext();
    const page = await context.newPage();
    const other = `${demo.server.url}/other/`;
    const keeps = (/** @type {string} */ name) =>
      page.waitForFunction(async (name) => (await caches.keys()).includes(name), name);
    await go(page, `${other}index.html?backend=cpu`);
    await keeps("tigret-demo/other/");
    await page.locator("#items button").nth(1).click();
    await page.locator("#history li").waitFor();
    await page.waitForSelector("#history[aria-busy=false]");
    await go(page, `${demo.server.url}/?backend=cpu`);
    await keeps("tigret-demo/");
    assert.equal(await page.locator("#history li").count(), 0);
    await go(page, `${other}?backend=cpu`);
    assert.equal(await page.locator("#history li").count(), 1);
    // A worker of the folder above may have seen the page before it had its own.
    await page.evaluate(async (page) => {
      await (await caches.open("tigret-demo/")).put(page, new Response("old"));
    }, other);
    await page.locator("summary").click();
    await page.locator("#forget").click();
    await untilSays(page, "#forgotten", "Nothing about you");
    const left = await page.evaluate(async () => {
      const names = await caches.keys();
      const urls = (await (await caches.open("tigret-demo/")).keys()).map(({ url }) => url);
      return { names, workers: (await navigator.serviceWorker.getRegistrations()).length, urls };
    });
    assert.deepEqual(left.names, ["tigret-demo/"]);
    assert.equal(left.workers, 1);
    assert.ok(left.urls.length > 0 && left.urls.every((url) => !url.startsWith(other)));
    await context.close();
  });

  for (const { what, fault, says, databases } of [
    {
      what: "cannot empty the history deletes it",
      fault: () => {
        IDBObjectStore.prototype.delete = () => {
          throw new DOMException("the disk is broken", "UnknownError");
        };
      },
      says: "Nothing about you",
      databases: 0,
    },
    {
      what: "cannot delete the history says so, and deletes all else",
      fault: () => {
        IDBFactory.prototype.deleteDatabase = () => {
          const request = /** @type {any} */ ({ error: new DOMException("the disk is broken") });
          setTimeout(() => request.onerror(new Event("error")));
          return request;
        };
      },
      says: "Not everything is deleted: the histories could not be deleted (the disk is broken)",
      databases: 1,
    },
    {
      what: "cannot delete the page's own files says so, and deletes all else",
      fault: () => {
        ServiceWorkerRegistration.prototype.unregister = async () => {
          throw new DOMException("the disk is broken", "UnknownError");
        };
      },
      says: "Not everything is deleted: the page's own files could not be deleted (the disk is broken)",
      databases: 0,
    },
    {
      what: "is denied all storage has nothing to delete",
      fault: () => {
        const denied = () => new DOMException("denied", "SecurityError");
        IDBFactory.prototype.open = () => {
          throw denied();
        };
        CacheStorage.prototype.open = async () => {
          throw denied();
        };
        CacheStorage.prototype.delete = async () => {
          throw denied();
        };
        ServiceWorkerContainer.prototype.register = async () => {
          throw denied();
        };
        ServiceWorkerContainer.prototype.getRegistrations = async () => {
          throw denied();
        };
      },
      says: "Nothing about you",
      databases: 0,
    },
  ]) {
    test(`\`Forget me\` where the page ${what}`, async () => {
      const context = await demo.browser.newContext();
      const page = await context.newPage();
      await page.addInitScript(fault);
      await go(page);
      await page.locator("#items button").nth(1).click();
      await page.waitForSelector("#history[aria-busy=false]");
      await page.locator("summary").click();
      await page.locator("#forget").click();
      await untilSays(page, "#forgotten", says);
      assert.equal(await page.locator("#history li").count(), 0);
      const left = await page.evaluate(async () => ({
        databases: (await indexedDB.databases()).length,
        caches: (await caches.keys()).filter((name) => name === "tigret"),
      }));
      assert.deepEqual(left, { databases, caches: [] });
      assert.equal(await page.locator("#alert").isVisible(), false);
      await context.close();
    });
  }
});
