/** The built demo while the model loads, and where that or the engine fails. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { describeDemo, serveModel, untilSays } from "./demo.mjs";
import { demoFolder, launch, serve } from "./support.mjs";

describeDemo("model and engine", (demo) => {
  const { go, open } = demo;

  test("an engine that is chosen while the model loads is taken into use", async () => {
    /** @type {() => void} */
    let open = () => {};
    const gate = new Promise((resolve) => {
      open = () => resolve(undefined);
    });
    const other = await serveModel(async (response, bytes) => {
      await gate;
      response.end(bytes);
    });
    const page = await demo.browser.newPage();
    await page.goto(`${other.url}/?backend=cpu`);
    await page.locator("#items button").first().waitFor();
    await page.locator("summary").click();
    await page.locator("input[value=webgpu]").check({ force: true });
    open();
    await page.waitForSelector("html[data-ready]");
    assert.match((await page.locator("#status").textContent()) ?? "", /· WebGPU \(.+\)$/);
    assert.ok(await page.locator("input[value=webgpu]").isChecked());
    await page.close();
    await other.close();
  });

  test("a download is told of every two seconds, not with each piece", async () => {
    const other = await serveModel(async (response, bytes) => {
      response.setHeader("content-length", bytes.length);
      const piece = Math.ceil(bytes.length / 30);
      for (let at = 0; at < bytes.length; at += piece) {
        response.write(bytes.subarray(at, at + piece));
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      response.end();
    });
    const page = await demo.browser.newPage();
    await page.addInitScript(() => {
      const seen = {
        told: /** @type {string[]} */ ([]),
        times: /** @type {number[]} */ ([]),
        places: new Set(),
      };
      Object.assign(globalThis, { seen });
      new MutationObserver(() => {
        const told = document.querySelector("#status")?.textContent ?? "";
        if (told.startsWith("Downloading") && told !== seen.told.at(-1)) {
          seen.told.push(told);
          seen.times.push(performance.now());
        }
        const progress = document.querySelector("progress");
        if (progress?.hasAttribute("value")) seen.places.add(progress.value);
      }).observe(document, { subtree: true, childList: true, attributes: true });
    });
    await go(page, `${other.url}/?backend=cpu`);
    const { told, times, places } = await page.evaluate(() => {
      const { told, times, places } = /** @type {any} */ (globalThis).seen;
      return { told, times, places: places.size };
    });
    assert.ok(places > 5, `the bar moved ${places} times`);
    assert.ok(told.length >= 1);
    for (const [at, time] of times.slice(1).entries()) {
      assert.ok(time - times[at] >= 1900, `told after ${time - times[at]} ms: ${told.join()}`);
    }
    await page.close();
    await other.close();
  });

  test("new items that cannot be read are told of, and the page works without them", async () => {
    const other = await serve(
      { "/": demoFolder },
      { "/model/new.jsonl": (_, response) => response.end('{"id":"a"}\n{"id":') },
    );
    const page = await demo.browser.newPage();
    await page.goto(`${other.url}/?backend=cpu`);
    await page.waitForSelector("html[data-ready]");
    assert.match((await page.locator("#alert").textContent()) ?? "", /new\.jsonl: line 2: /);
    assert.match((await page.locator("#status").textContent()) ?? "", /items? in .+ ms · CPU$/);
    await page.close();
    await other.close();
  });

  test("the engine and the beams can be changed while the page is open", async () => {
    const { page } = await open();
    await page.locator("summary").click();
    await page.locator("input[value=webgpu]").check({ force: true });
    await page.waitForFunction(() =>
      /WebGPU \(/.test(document.querySelector("#status")?.textContent ?? ""),
    );
    await page.locator("#beams").fill("0");
    await page.waitForFunction(() => document.querySelectorAll("#picks li").length === 5);
    await page.close();
  });

  test("what could not be stored is told of still when the engine changes", async () => {
    const page = await demo.browser.newPage();
    await page.addInitScript(() => {
      IDBObjectStore.prototype.put = () => {
        throw new DOMException("the disk is broken", "UnknownError");
      };
    });
    await go(page);
    await page.locator("#items button").first().click();
    const alert = page.locator("#alert");
    await alert.waitFor();
    await page.locator("summary").click();
    await page.locator("input[value=webgpu]").check({ force: true });
    await untilSays(page, "#status", "WebGPU (");
    assert.match((await alert.textContent()) ?? "", /could not be stored/);
    assert.ok(await alert.isVisible());
    await page.close();
  });

  test("a page without its items stops for good, and says why", async () => {
    const page = await demo.browser.newPage({ serviceWorkers: "block" });
    await page.route("**/items.jsonl", (route) => route.fulfill({ status: 500 }));
    await page.route("**/model.safetensors", async (route) => {
      await new Promise((resolve) => setTimeout(resolve, 800));
      await route.continue().catch(() => {});
    });
    await page.goto(demo.server.url);
    await untilSays(page, "#status", "Stopped");
    assert.match((await page.locator("#alert").textContent()) ?? "", /items.jsonl.*status 500/);
    await page.waitForTimeout(1500);
    assert.equal(await page.locator("#status").textContent(), "Stopped");
    await page.close();
  });

  test("a bundle that is none is refused in words on the page", async () => {
    const page = await demo.browser.newPage({ serviceWorkers: "block" });
    await page.route("**/model.safetensors", (route) =>
      route.fulfill({ body: "not a bundle", contentType: "application/octet-stream" }),
    );
    await page.goto(demo.server.url);
    const alert = page.locator("#alert");
    await alert.waitFor({ state: "visible" });
    assert.match((await alert.textContent()) ?? "", /not a valid safetensors file/);
    await page.close();
  });

  test("without WebGPU the page says so and computes on the CPU", async () => {
    const plain = await launch({ webgpu: false });
    try {
      const page = await plain.newPage();
      await go(page, `${demo.server.url}/?backend=webgpu`);
      assert.ok(await page.locator("#alert").isVisible());
      assert.match((await page.locator("#alert").textContent()) ?? "", /no usable GPU/);
      assert.match((await page.locator("#status").textContent()) ?? "", /· CPU$/);
      // That holds until an engine is taken, as does what is said of another choice.
      const like = async (/** @type {number} */ nth) => {
        await page
          .locator("#picks li")
          .first()
          .evaluate((entry) => {
            entry.id = "before";
          });
        await page.locator("#items button").nth(nth).click();
        await page.locator("#before").waitFor({ state: "detached" });
      };
      await like(0);
      assert.ok(await page.locator("#alert").isVisible());
      await page.locator("summary").click();
      await page.locator("input[value=auto]").check({ force: true });
      await page.locator("#alert").waitFor({ state: "hidden" });
      await page.locator("input[value=webgpu]").check({ force: true });
      await page.locator("#alert").waitFor({ state: "visible" });
      await like(1);
      assert.ok(await page.locator("#alert").isVisible());
      await page.locator("input[value=auto]").check({ force: true });
      await page.locator("#alert").waitFor({ state: "hidden" });
    } finally {
      await plain.close();
    }
  });

  test("a GPU that hangs while the model loads is told of, and the CPU computes", async () => {
    const page = await demo.browser.newPage({ serviceWorkers: "block" });
    await page.clock.install();
    await page.addInitScript(() => {
      const { postMessage } = Worker.prototype;
      /** @this {Worker} @param {any} message @param {any} transfer */
      Worker.prototype.postMessage = function (message, transfer) {
        const isLost = message.method === "load" && message.engine === "webgpu";
        if (!isLost) postMessage.call(this, message, transfer);
      };
    });
    await page.goto(`${demo.server.url}/?backend=webgpu`);
    const isReady = () => page.evaluate(() => document.documentElement.dataset.ready === "true");
    while (!(await isReady())) await page.clock.runFor(200);
    const alert = (await page.locator("#alert").textContent()) ?? "";
    assert.match(alert, /did not answer within 30 seconds\. The CPU computes for now/);
    assert.match((await page.locator("#status").textContent()) ?? "", /· CPU$/);
    await page.close();
  });
});
