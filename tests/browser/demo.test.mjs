/** The built demo, as a visitor uses it. */

import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { demoFolder, launch, packageFolder, serve } from "./support.mjs";

/** @typedef {import("playwright-core").Page} Page */
/** @typedef {{ "index.html"?: (text: string) => string, "sw.js"?: (text: string) => string }} Changes */

const fromPackage = createRequire(join(packageFolder, "package.json"));
const axe = readFileSync(fromPackage.resolve("axe-core/axe.min.js"), "utf8");

const model = join(demoFolder, "model/model.safetensors");
const skip = existsSync(model) ? false : `there is no ${model}`;

describe("the demo", { skip }, () => {
  /** @type {Awaited<ReturnType<typeof serve>>} */
  let server;
  /** @type {Awaited<ReturnType<typeof launch>>} */
  let browser;

  before(async () => {
    server = await serve({ "/": demoFolder });
    browser = await launch();
  });

  after(async () => {
    await browser?.close();
    await server?.close();
  });

  /**
   * Opens the demo in a page, and waits until it has answered once.
   *
   * @param {Page} page
   */
  async function go(page, address = `${server.url}/?backend=cpu`) {
    await page.goto(address);
    await page.waitForSelector("html[data-ready]");
  }

  /** As {@link go}, in a page of its own. */
  async function open(address = "/?backend=cpu") {
    const page = await browser.newPage();
    /** @type {string[]} */
    const problems = [];
    page.on("pageerror", (error) => problems.push(error.message));
    await go(page, server.url + address);
    return { page, problems };
  }

  /** The ids in a list, in its order. @param {Page} page @param {string} list */
  function idsOf(page, list) {
    return page
      .locator(`${list} button[data-id]`)
      .evaluateAll((buttons) => buttons.map((button) => button.dataset.id ?? ""));
  }

  /** Waits until an element says it. @param {Page} page @param {string} selector @param {string} text */
  function untilSays(page, selector, text) {
    return page.waitForFunction(
      ([selector, text]) => document.querySelector(selector)?.textContent?.includes(text),
      /** @type {[string, string]} */ ([selector, text]),
    );
  }

  /** Waits until these ids are liked. @param {Page} page @param {string[]} ids */
  function untilLiked(page, ids) {
    return page.waitForFunction((expected) => {
      const buttons = [...document.querySelectorAll("#history button[data-id]")];
      return buttons.map((e) => /** @type {HTMLElement} */ (e).dataset.id).join() === expected;
    }, ids.join());
  }

  /** Opens the page anew, with another fragment too. @param {Page} page @param {string} address */
  async function reopen(page, address) {
    await page.goto(`${server.url}/blank.html`);
    await go(page, server.url + address);
  }

  for (const [backend, engine] of [
    ["cpu", /· CPU$/],
    ["webgpu", /· WebGPU \(.+\)$/],
  ]) {
    test(`clicking items brings recommendations, computed by ${backend}`, async () => {
      const { page, problems } = await open(`/?backend=${backend}`);
      const status = page.locator("#status");
      assert.match((await status.textContent()) ?? "", /** @type {RegExp} */ (engine));
      assert.match((await status.textContent()) ?? "", /^20 items in [\d.]+ ms/);
      const before = await page.locator("#picks .title").allTextContents();
      assert.equal(before.length, 20);

      await untilKept(page, hasLoaded);
      const requests = server.requests.length;
      const [address, entries] = [page.url(), await page.evaluate(() => history.length)];
      const items = page.locator("#items button");
      await items.nth(0).click();
      await items.nth(3).click();
      assert.equal(await items.nth(3).getAttribute("aria-pressed"), "true");
      const liked = await page.locator("#history .title").allTextContents();
      assert.deepEqual(liked, [
        await items.nth(0).locator(".title").textContent(),
        await items.nth(3).locator(".title").textContent(),
      ]);
      const history = await idsOf(page, "#history");
      assert.equal(history.length, 2);
      // Browsers keep addresses, and send them to other devices.
      assert.equal(page.url(), address);
      assert.equal(await page.evaluate(() => window.history.length), entries);
      // What is liked is not recommended, as soon as the last call is answered.
      await page.waitForFunction(
        ([history, old]) => {
          const buttons = [...document.querySelectorAll("#picks button")];
          const titles = [...document.querySelectorAll("#picks .title")];
          const ids = buttons.map((e) => /** @type {HTMLElement} */ (e).dataset.id ?? "");
          const changed = titles.map((e) => e.textContent).join() !== old;
          return changed && ids.length === 20 && !ids.some((id) => history.includes(id));
        },
        /** @type {[string[], string]} */ ([history, before.join()]),
      );

      await page.locator("#search").fill("no such thing anywhere");
      await page.waitForFunction(() => document.querySelectorAll("#items li").length === 0);
      await page.locator("#clear").click();
      assert.equal(await page.locator("#history li").count(), 0);
      assert.equal(server.requests.length, requests, "the page asks the server for nothing more");
      assert.deepEqual(problems, []);
      assert.equal(await page.locator("#alert").isVisible(), false);
      await page.close();
    });
  }

  test("a history in the address is used, and unknown ids are counted", async () => {
    const { page } = await open("/?backend=cpu#history=nobody-has-this-id");
    const unknown = page.locator("#unknown");
    assert.ok(await unknown.isVisible());
    assert.match((await unknown.textContent()) ?? "", /^1 id of the history/);
    // Screen readers read out what comes into a status that stands there.
    assert.equal(await unknown.getAttribute("role"), "status");
    await page.locator("#own").click();
    await page.waitForFunction(() => document.querySelector("#unknown")?.textContent === "");
    assert.ok(await unknown.evaluate((status) => status.checkVisibility()));
    assert.equal(new URL(page.url()).hash, "");
    await page.close();
  });

  for (const allowed of [true, false]) {
    test(`a link to the history is ${allowed ? "copied" : "shown where no page may copy"}`, async () => {
      const context = await browser.newContext({
        permissions: allowed ? ["clipboard-read", "clipboard-write"] : [],
      });
      const page = await context.newPage();
      if (!allowed) {
        await page.addInitScript(() => {
          navigator.clipboard.writeText = () =>
            Promise.reject(new DOMException("", "NotAllowedError"));
        });
      }
      await go(page);
      assert.equal(await page.locator("#copy").isVisible(), false, "there is nothing to link to");
      await page.locator("#items button").nth(0).click();
      await page.locator("#items button").nth(3).click();
      const liked = await idsOf(page, "#history");
      await page.locator("#copy").focus();
      await page.keyboard.press("Enter");
      await page.locator("#copied:not(:empty)").waitFor();
      assert.equal(await page.locator("#copied").getAttribute("role"), "status");
      let link = "";
      if (allowed) {
        assert.match((await page.locator("#copied").textContent()) ?? "", /^The link is copied/);
        link = await page.evaluate(() => navigator.clipboard.readText());
      } else {
        assert.equal(await page.evaluate(() => document.activeElement?.id), "link");
        link = await page.evaluate(() => String(getSelection()));
      }
      assert.equal(new URL(page.url()).hash, "");
      const other = await browser.newPage();
      await go(other, link);
      assert.deepEqual(await idsOf(other, "#history"), liked);
      await other.close();
      // What was said is gone with what it was said of.
      await page.locator("#items button").nth(0).click();
      assert.equal(await page.locator("#copied").textContent(), "");
      assert.equal(await page.locator("#link").isVisible(), false);
      await context.close();
    });
  }

  test("a shared history is stored only where the visitor keeps it", async () => {
    const context = await browser.newContext();
    const page = await context.newPage();
    await go(page);
    const ids = await idsOf(page, "#items");
    const [mine, theirs] = [ids.slice(0, 1), ids.slice(2, 4)];
    const link = `/?backend=cpu#history=${theirs.map(encodeURIComponent).join(",")}`;
    const focused = () => page.evaluate(() => document.activeElement?.id);
    await page.locator("#items button").nth(0).click();
    await page.waitForSelector("#history[aria-busy=false]");

    await reopen(page, link);
    assert.deepEqual(await idsOf(page, "#history"), theirs);
    assert.ok(await page.locator("#shared").isVisible());
    assert.equal(new URL(page.url()).hash, "");
    // Nor is what is changed in it.
    await page.locator("#items button").nth(5).click();
    await untilLiked(page, [...theirs, ids[5] ?? ""]);
    await reopen(page, "/?backend=cpu");
    assert.deepEqual(await idsOf(page, "#history"), mine);
    assert.equal(await page.locator("#shared").isVisible(), false);

    // A link that is followed while the page is open. Screen readers need a status that stands there
    // before it is filled.
    const told = page.locator("#shared-told");
    assert.equal(await told.getAttribute("role"), "status");
    assert.equal(await told.textContent(), "");
    assert.ok(await told.evaluate((status) => status.checkVisibility()));
    await page.goto(server.url + link);
    await untilLiked(page, theirs);
    assert.match((await told.textContent()) ?? "", /^This history came with a link/);
    assert.equal(new URL(page.url()).hash, "");
    await page.locator("#own").focus();
    await page.keyboard.press("Enter");
    await untilLiked(page, mine);
    assert.equal(await page.locator("#shared").isVisible(), false);
    assert.equal(await focused(), "copy");

    await reopen(page, link);
    await page.locator("#keep").focus();
    await page.keyboard.press("Enter");
    assert.equal(await page.locator("#shared").isVisible(), false);
    assert.equal(await focused(), "copy");
    await page.waitForSelector("#history[aria-busy=false]");
    await reopen(page, "/?backend=cpu");
    assert.deepEqual(await idsOf(page, "#history"), theirs);
    // The service worker, too, keeps the page without what its address says, with a query or not.
    await reopen(page, link.replace("?backend=cpu", ""));
    const keys = await page.evaluate(async () => {
      const cache = await caches.open("tigret-demo");
      return (await cache.keys()).map(({ url }) => url);
    });
    assert.deepEqual(
      keys.filter((url) => url.includes("history")),
      [],
    );
    await context.close();
  });

  test("two windows side by side show the same history, but for a shared one", async () => {
    const context = await browser.newContext();
    const [first, second] = [await context.newPage(), await context.newPage()];
    for (const page of [first, second]) {
      await go(page);
    }
    for (const page of [first, second]) {
      assert.equal(await page.evaluate(() => document.visibilityState), "visible");
    }
    const ids = await idsOf(first, "#items");
    await first.locator("#items button").nth(0).click();
    await first.locator("#items button").nth(1).click();
    await untilLiked(second, ids.slice(0, 2));
    const pressed = second.locator("#items button[aria-pressed=true]");
    assert.equal(await pressed.count(), 2);
    await second.locator("#history .remove").first().click();
    await untilLiked(first, ids.slice(1, 2));

    await second.evaluate((id) => location.assign(`#history=${id}`), ids[7]);
    await second.locator("#shared").waitFor();
    await first.locator("#items button").nth(2).click();
    await first.waitForSelector("#history[aria-busy=false]");
    await second.waitForTimeout(300);
    assert.deepEqual(await idsOf(second, "#history"), [ids[7]]);
    await second.locator("#own").click();
    await untilLiked(second, ids.slice(1, 3));
    await context.close();
  });

  /**
   * Serves the demo with a model that comes as `send` sends it.
   *
   * @param {(response: import("node:http").ServerResponse, bytes: Buffer) => unknown} send
   */
  function serveModel(send) {
    const bytes = readFileSync(model);
    return serve(
      { "/": demoFolder },
      { "/model/model.safetensors": (_, response) => void send(response, bytes) },
    );
  }

  test("what was liked is shown, and can be taken back, before the model is here", async () => {
    let gate = Promise.resolve();
    const other = await serveModel(async (response, bytes) => {
      await gate;
      response.end(bytes);
    });
    const context = await browser.newContext();
    const page = await context.newPage();
    await go(page, `${other.url}/?backend=cpu`);
    await page.locator("#items button").nth(1).click();
    await page.locator("#items button").nth(2).click();
    const ids = await idsOf(page, "#history");
    await page.waitForSelector("#history[aria-busy=false]");
    /** @type {() => void} */
    let open = () => {};
    gate = new Promise((resolve) => {
      open = () => resolve(undefined);
    });
    await page.reload();
    await untilLiked(page, ids);
    const item = page.locator("#items button").nth(1);
    assert.equal(await item.getAttribute("aria-pressed"), "true");
    await item.click();
    await untilLiked(page, ids.slice(1));
    await page.waitForSelector("#history[aria-busy=false]");
    assert.equal(await page.locator("html[data-ready]").count(), 0, "the model is not here yet");
    open();
    await page.waitForSelector("html[data-ready]");
    assert.deepEqual(await idsOf(page, "#history"), ids.slice(1));
    await page.reload();
    await untilLiked(page, ids.slice(1));
    await context.close();
    await other.close();
  });

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
    const page = await browser.newPage();
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
    const page = await browser.newPage();
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

  test("the focus stays where it was when lists change", async () => {
    const { page } = await open();
    const focused = () =>
      page.evaluate(() => {
        const { activeElement } = document;
        const list = activeElement?.closest("ol, ul");
        const at = list
          ? [...list.querySelectorAll("button")].indexOf(/** @type {any} */ (activeElement))
          : -1;
        const { id } = /** @type {HTMLElement} */ (activeElement).dataset;
        return { list: list?.id ?? activeElement?.id, at, id };
      });
    const gone = (/** @type {string} */ id) =>
      page.waitForFunction((id) => !document.querySelector(`#picks [data-id="${id}"]`), id);

    // A pick that is liked gives way to what took its place.
    const pick = (await idsOf(page, "#picks"))[2] ?? "";
    await page.locator("#picks button").nth(2).focus();
    await page.keyboard.press("Enter");
    await gone(pick);
    assert.deepEqual(await focused(), {
      list: "picks",
      at: 2,
      id: (await idsOf(page, "#picks"))[2],
    });

    // One that is still there keeps it, wherever it stands now.
    const kept = await page.locator("#picks button").first();
    const id = await kept.getAttribute("data-id");
    await kept.evaluate((button) => Object.assign(button, { isOld: true }));
    await kept.focus();
    await page.locator("#beams").evaluate((slider) => {
      Object.assign(slider, { value: "4" });
      slider.dispatchEvent(new Event("input"));
    });
    await page.waitForFunction(
      (id) => !(/** @type {any} */ (document.querySelector(`#picks [data-id="${id}"]`)).isOld),
      id,
    );
    assert.equal((await focused()).id, id);

    // What is taken out of the history gives way to the next, then to the one before.
    await page.locator("#items button").nth(0).click();
    await page.locator("#items button").nth(1).click();
    const liked = await idsOf(page, "#history");
    await page.locator("#history .remove").nth(1).focus();
    await page.keyboard.press("Enter");
    assert.deepEqual(await focused(), { list: "history", at: 1, id: liked[2] });
    await page.keyboard.press("Enter");
    assert.deepEqual(await focused(), { list: "history", at: 0, id: liked[0] });
    await page.keyboard.press("Enter");
    assert.equal((await focused()).list, "catalogue");

    // So does a new item that was added.
    const fresh = await idsOf(page, "#arrival-list");
    await page.locator("#arrival-list button").first().focus();
    await page.keyboard.press("Enter");
    await page.locator("#arrival-list .semantic-id").waitFor();
    assert.deepEqual(await focused(), { list: "arrival-list", at: 0, id: fresh[1] });

    // And a button that there is no use for any more.
    await page.locator("#items button").nth(0).click();
    await page.locator("#clear").focus();
    await page.keyboard.press("Enter");
    assert.equal((await focused()).list, "catalogue");
    await page.close();
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

  test("diversity draws a sample that can be drawn again, and a filter holds", async () => {
    const { page } = await open();
    const titles = () => page.locator("#picks .title").allTextContents();
    /** @param {() => Promise<unknown>} act */
    const changed = async (act) => {
      const before = (await titles()).join();
      await act();
      await page.waitForFunction(
        (old) =>
          [...document.querySelectorAll("#picks .title")].map((e) => e.textContent).join() !== old,
        before,
      );
      return titles();
    };
    await changed(() => page.locator("#diversity").fill("5"));
    assert.equal(await page.locator("#diversity-value").textContent(), "2");
    // Whoever hears the page is told the same, and not the place in a list.
    assert.equal(await page.locator("#diversity").getAttribute("aria-valuetext"), "2");
    assert.equal(await page.locator("#beams").getAttribute("aria-valuetext"), "50");
    await changed(() => page.locator("#again").click());
    const tag = await page.locator("#only option").nth(1).getAttribute("value");
    assert.ok(tag);
    const allowed = await changed(() => page.locator("#only").selectOption(tag));
    assert.ok(allowed.length > 0);
    await page.locator("#search").fill(tag);
    for (const title of allowed) {
      await page.locator("#search").fill(`${tag} ${title}`);
      assert.ok((await page.locator("#items li").count()) > 0, `${title} is ${tag}`);
    }
    await page.close();
  });

  test("the list goes on, an item can be taken back, and the map tells what lies under it", async () => {
    const { page } = await open();
    const entries = page.locator("#items li");
    assert.equal(await entries.count(), 60);
    await page.locator("#more").scrollIntoViewIfNeeded();
    await page.waitForFunction(() => document.querySelectorAll("#items li").length > 60);
    await page.locator("#items button").nth(4).click();
    await page.locator("#history .remove").click();
    assert.equal(await page.locator("#history li").count(), 0);
    assert.equal(await page.locator("#items button").nth(4).getAttribute("aria-pressed"), "false");
    // A pick is liked by a click, too.
    const pick = await page.locator("#picks .title").first().textContent();
    await page.locator("#picks button").first().click();
    assert.deepEqual(await page.locator("#history .title").allTextContents(), [pick]);

    const map = page.locator("#map");
    const about = await page.locator("#map-hint").textContent();
    await map.scrollIntoViewIfNeeded();
    assert.match((await map.getAttribute("aria-label")) ?? "", /over \d+ items.* kept \d+/);
    const { width = 0, height = 0 } = (await map.boundingBox()) ?? {};
    await map.hover({ position: { x: width / 2, y: height - 8 } });
    const hint = (await page.locator("#map-hint").textContent()) ?? "";
    const titles = hint.replace(/^[\d ·]+: /, "");
    assert.notEqual(titles, hint, "codes, then titles");
    // The same told anew, or read out at each move, would leave no word for anything else.
    const writes = await page.locator("#map-hint").evaluateHandle((hint) => {
      const seen = { texts: 0 };
      new MutationObserver((all) => {
        seen.texts += all.length;
      }).observe(hint, { childList: true, characterData: true, subtree: true });
      return seen;
    });
    for (const above of [9, 8]) {
      await map.hover({ position: { x: width / 2, y: height - above } });
      assert.equal(await page.locator("#map-hint").textContent(), hint);
    }
    assert.equal((await writes.jsonValue()).texts, 0);
    assert.equal(await page.locator("#map-hint").getAttribute("aria-live"), "off");
    await page.mouse.move(0, 0);
    assert.equal(await page.locator("#map-hint").textContent(), about);
    await page.locator("#search").fill(titles);
    assert.ok((await entries.count()) > 0, titles);
    await page.close();
  });

  test("picks say which liked item did most for them", async () => {
    const { page } = await open();
    const liked = page.locator("#items button").nth(2);
    await liked.click();
    await page.waitForFunction(() => document.querySelector("#picks .reason em") !== null);
    const title = await liked.locator(".title").textContent();
    assert.equal(await page.locator("#picks .reason em").first().textContent(), title);
    await page.close();
  });

  test("a new item gets its semantic ID, can be found, liked and is no request", async () => {
    const { page, problems } = await open();
    await untilKept(page, hasLoaded);
    const requests = server.requests.length;
    const before = await page.locator("#count").textContent();
    const entry = page.locator("#arrival-list li").first();
    const title = (await entry.locator(".title").textContent()) ?? "";
    // A second click finds it on its way, and adds nothing.
    await entry.locator("button").dblclick();
    await entry.locator(".semantic-id").waitFor();
    assert.equal(await page.locator("#alert").isVisible(), false);
    assert.match((await entry.locator(".semantic-id").textContent()) ?? "", /^\d+( · \d+)+$/);
    assert.notEqual(await page.locator("#count").textContent(), before);
    await page.locator("#search").fill(title);
    await page.locator("#items button").first().click();
    assert.deepEqual(await page.locator("#history .title").allTextContents(), [title]);
    assert.equal(await page.locator("#unknown").isVisible(), false);
    assert.equal(server.requests.length, requests);
    assert.match((await page.locator("#requests").textContent()) ?? "", /^0 requests/);
    assert.deepEqual(problems, []);
    // The next visit knows its title, though the model does not know it yet.
    await page.waitForSelector("#history[aria-busy=false]");
    await page.reload();
    await page.waitForSelector("html[data-ready]");
    assert.deepEqual(await page.locator("#history .title").allTextContents(), [title]);
    await page.close();
  });

  test("a visitor who comes back finds what the page begins with, and sliders that say so", async () => {
    const { page } = await open();
    await page.locator("#diversity").fill("3");
    await page.locator("#beams").fill("4");
    await untilSays(page, "#beams-value", "100");
    await page.goto(`${server.url}/blank.html`);
    await page.goBack();
    await page.waitForSelector("html[data-ready]");
    const shown = ["#diversity", "#beams"].map((slider) => page.locator(slider).inputValue());
    assert.deepEqual(await Promise.all(shown), ["0", "3"]);
    assert.equal(await page.locator("#diversity-value").textContent(), "best");
    assert.equal(await page.locator("#beams-value").textContent(), "50");
    await page.close();
  });

  test("a page without its items stops for good, and says why", async () => {
    const page = await browser.newPage({ serviceWorkers: "block" });
    await page.route("**/items.jsonl", (route) => route.fulfill({ status: 500 }));
    await page.route("**/model.safetensors", async (route) => {
      await new Promise((resolve) => setTimeout(resolve, 800));
      await route.continue().catch(() => {});
    });
    await page.goto(server.url);
    await untilSays(page, "#status", "Stopped");
    assert.match((await page.locator("#alert").textContent()) ?? "", /items.jsonl.*status 500/);
    await page.waitForTimeout(1500);
    assert.equal(await page.locator("#status").textContent(), "Stopped");
    await page.close();
  });

  test("the history outlives a reload, and `Forget me` leaves nothing", async () => {
    const context = await browser.newContext();
    const page = await context.newPage();
    await go(page);
    await page.locator("#items button").nth(1).click();
    await page.locator("#history li").waitFor();
    // The list shows the item at once; the device has it a moment later.
    await page.waitForSelector("#history[aria-busy=false]");
    await page.goto(`${server.url}/blank.html`);
    await page.goto(`${server.url}/?backend=cpu`);
    await page.locator("#history li").waitFor();
    await page.waitForSelector("html[data-ready]");
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
          setTimeout(() => request.onerror());
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
      const context = await browser.newContext();
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

  /** Paths of what the service worker keeps. @param {Page} page */
  function keptPaths(page) {
    return page.evaluate(async () => {
      const cache = await caches.open("tigret-demo");
      return (await cache.keys()).map(({ url }) => new URL(url).pathname).sort();
    });
  }

  /**
   * Whether what the page fetched before it had a service worker is kept, which asks for it anew.
   *
   * @param {string[]} paths
   */
  const hasLoaded = (paths) =>
    ["/model/about.json", "/model/new.jsonl"].every((path) => paths.includes(path));

  /** @param {Page} page @param {(paths: string[]) => boolean} holds */
  async function untilKept(page, holds) {
    const end = Date.now() + 30_000;
    for (let paths = await keptPaths(page); !holds(paths); paths = await keptPaths(page)) {
      assert.ok(Date.now() < end, `kept is ${paths}`);
      await page.waitForTimeout(50);
    }
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
    const context = await browser.newContext();
    const page = await context.newPage();
    await waitForServiceWorker(page);
    await go(page, `${other.url}/?backend=cpu`);
    // What was fetched before the service worker saw it is kept a moment later, and the package keeps
    // the model beside the first call.
    const assets = readdirSync(join(demoFolder, "assets")).map((name) => `/assets/${name}`);
    const needed = ["/", "/model/items.jsonl", ...assets];
    await untilKept(page, (paths) => needed.every((path) => paths.includes(path)));
    await page.waitForFunction(async () => (await (await caches.open("tigret")).keys()).length > 0);
    await other.close();
    await page.reload();
    await page.waitForSelector("html[data-ready]");
    assert.equal(await page.locator("#picks li").count(), 20);
    assert.equal(await page.locator("#alert").isVisible(), false);
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
        "/": file("index.html", "text/html", (page) => page.replace("<title>", "<title>Newer ")),
        "/model/items.jsonl": file(
          "model/items.jsonl",
          "application/x-ndjson",
          (items) => `\n${items}`,
        ),
      },
    );
    const context = await browser.newContext();
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
      const cache = await caches.open("tigret-demo");
      const kept = await cache.match(`${location.origin}/model/items.jsonl`);
      return (await kept?.text())?.startsWith("\n");
    });
    // Its assets may be others, which nobody has fetched.
    const kept = await page.evaluate(async () => {
      const cache = await caches.open("tigret-demo");
      return (await cache.match(`${location.origin}/`))?.text();
    });
    assert.ok(kept && !kept.includes("<title>Newer "));
    await context.close();
    await other.close();
  });

  /** Serves the demo with what `change` makes of a file. @param {() => Changes} changes */
  function serveChanged(changes) {
    const types = { "index.html": "text/html", "sw.js": "text/javascript" };
    /** @param {keyof Changes} file @returns {import("node:http").RequestListener} */
    const route = (file) => (_, response) => {
      const text = readFileSync(join(demoFolder, file), "utf8");
      response.setHeader("content-type", types[file]).end(changes()[file]?.(text) ?? text);
    };
    return serve({ "/": demoFolder }, { "/": route("index.html"), "/sw.js": route("sw.js") });
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
      const context = await browser.newContext();
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
    const context = await browser.newContext();
    const page = await context.newPage();
    await waitForServiceWorker(page);
    await go(page, `${other.url}/?backend=cpu`);
    const window = await context.newPage();
    await go(window, `${other.url}/?backend=cpu`);
    const old = "/assets/main-01234567.js";
    await untilKept(page, (paths) => paths.some((path) => path.endsWith(".wasm")));
    const current = (await keptPaths(page)).filter((path) => path.startsWith("/assets/"));
    await page.evaluate(async (path) => {
      const cache = await caches.open("tigret-demo");
      await cache.put(path, new Response("old"));
    }, old);
    changes["sw.js"] = (text) => `${text}\n// Another version.`;
    await updateServiceWorker(page);

    /** Asks as a page does, and waits until that is done. @param {string} path @param {string[]} loaded */
    const keep = async (path, loaded) => {
      await page.evaluate(
        (paths) => {
          const urls = paths.map((path) => new URL(path, location.href).href);
          navigator.serviceWorker.controller?.postMessage({ kind: "keep", urls });
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
    await untilKept(page, (paths) => !paths.includes(old));
    const kept = await keptPaths(page);
    for (const path of current) assert.ok(kept.includes(path), `${path} is still kept`);
    await context.close();
    await other.close();
  });

  test("each tab counts its own requests, and those of its worker", async () => {
    const context = await browser.newContext();
    const [first, second] = [await context.newPage(), await context.newPage()];
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

  test("cards that are higher than the window scroll and do not lie over each other", async () => {
    const page = await browser.newPage({ viewport: { width: 1280, height: 600 } });
    await go(page);
    await page.locator("summary").click();
    const cards = await page.locator(".shelf > .card").evaluateAll((cards) =>
      cards.map((card) => {
        const { top, bottom } = card.getBoundingClientRect();
        return { top, bottom, over: card.scrollHeight - card.clientHeight };
      }),
    );
    for (const [at, { top, over }] of cards.entries()) {
      assert.equal(over, 0, `card ${at} holds what is in it`);
      assert.ok(top >= (cards[at - 1]?.bottom ?? 0), `card ${at} is below the one before`);
    }
    await page.locator("#forget").scrollIntoViewIfNeeded();
    assert.ok(((await page.locator("#forget").boundingBox())?.y ?? 600) < 600);
    await page.close();
  });

  for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
    for (const width of [1280, 390]) {
      test(`axe finds nothing serious (${colorScheme}, ${width} pixels)`, async () => {
        const page = await browser.newPage({ colorScheme, viewport: { width, height: 800 } });
        await go(page);
        // With all that the history's card can show.
        await page.evaluate(() => {
          navigator.clipboard.writeText = () => Promise.reject(new Error("denied"));
          const liked = /** @type {HTMLElement} */ (document.querySelectorAll("#items button")[1]);
          location.assign(`#history=${liked.dataset.id}`);
        });
        await page.locator("#copy").click();
        await page.locator("#link").waitFor();
        await page.waitForFunction(() => document.querySelector("#picks .reason em") !== null);
        await page.locator("summary").click();
        // By the debugger: the page's policy allows no script but its own.
        const session = await page.context().newCDPSession(page);
        await session.send("Runtime.evaluate", { expression: axe });
        const found = await page.evaluate(async () => {
          const { violations } = await /** @type {any} */ (globalThis).axe.run();
          return violations.map((/** @type {any} */ v) => [
            v.impact,
            v.id,
            v.nodes.map((/** @type {any} */ node) => node.html),
          ]);
        });
        const serious = found.filter((/** @type {string[]} */ [impact]) =>
          ["serious", "critical"].includes(impact ?? ""),
        );
        assert.deepEqual(serious, []);
        await page.close();
      });
    }
  }

  test("with the visitor's own colours it is seen which engine is chosen and what is liked", async () => {
    const { page } = await open();
    await page.emulateMedia({ forcedColors: "active" });
    await page.locator("summary").click();
    await page.locator("#items button").first().click();
    /** @param {string} selector */
    const ground = (selector) =>
      page
        .locator(selector)
        .first()
        .evaluate((element) => getComputedStyle(element).backgroundColor);
    const chosen = await ground(".segments input:checked + span");
    assert.notEqual(chosen, await ground(".segments input:not(:checked) + span"));
    assert.equal(await ground("#items [aria-pressed=true] .cover"), chosen);
    // The heart takes the place of the initials.
    const initials = page.locator("#items [aria-pressed=true] .cover");
    const color = await initials.evaluate((cover) => getComputedStyle(cover).color);
    assert.equal(color, "rgba(0, 0, 0, 0)");
    await page.close();
  });

  for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
    test(`fields have an edge that is seen (${colorScheme})`, async () => {
      const page = await browser.newPage({ colorScheme });
      await go(page);
      // axe looks at the contrast of texts alone.
      const contrasts = await page.evaluate(() => {
        /** Luminance as WCAG has it. @param {string} color */
        const light = (color) => {
          const [r = 0, g = 0, b = 0] = (color.match(/[\d.]+/g) ?? []).map((part) => {
            const share = Number(part) / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
          });
          return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
        };
        const grounds = [document.body, document.querySelector(".card")].map(
          (element) => element && light(getComputedStyle(element).backgroundColor),
        );
        return ["#search", "#only", "#link"].flatMap((field) => {
          const element = /** @type {Element} */ (document.querySelector(field));
          const edge = light(getComputedStyle(element).borderTopColor);
          return grounds.map((ground) => {
            const [a = 0, b = 0] = [edge, ground ?? 0].sort((x, y) => y - x);
            return a / b;
          });
        });
      });
      assert.equal(contrasts.length, 6);
      for (const contrast of contrasts) assert.ok(contrast >= 3, contrasts.join());
      await page.close();
    });
  }

  test("a browser without scripts is told why nothing happens", async () => {
    const context = await browser.newContext({ javaScriptEnabled: false });
    const page = await context.newPage();
    await page.goto(server.url);
    assert.ok(await page.locator("noscript > p").isVisible());
    assert.equal(await page.locator("#status").textContent(), "");
    assert.equal(await page.locator("#progress").isVisible(), false);
    await context.close();
  });

  test("what the map is, is read whole at every width", async () => {
    const { page } = await open();
    for (const width of [390, 961, 1024, 1250, 1280]) {
      await page.setViewportSize({ width, height: 800 });
      const over = await page
        .locator("#map-hint")
        .evaluate((hint) => hint.scrollWidth - hint.clientWidth);
      assert.ok(over <= 0, `${over} of ${width} pixels are cut off`);
    }
    await page.close();
  });

  test("everything can be done with the keyboard", async () => {
    const { page } = await open();
    await page.keyboard.press("Tab");
    assert.equal(
      await page.evaluate(() => document.activeElement?.textContent),
      "Skip to the catalogue",
    );
    await page.keyboard.press("Enter");
    // The search, then the first new item, then on to the first of the catalogue.
    await page.keyboard.press("Tab");
    await page.keyboard.type("austen");
    await page.waitForFunction(() => document.querySelectorAll("#items li").length < 20);
    for (let press = 0; press < 20; press++) {
      await page.keyboard.press("Tab");
      if (await page.evaluate(() => document.activeElement?.closest("#items") !== null)) break;
    }
    await page.keyboard.press("Space");
    await page.locator("#history li").waitFor();
    await page.locator("#diversity").focus();
    await page.keyboard.press("ArrowRight");
    assert.equal(await page.locator("#diversity-value").textContent(), "0.5");

    // The map tells what the pointer would find there.
    const hint = () => page.locator("#map-hint").textContent();
    const about = await hint();
    for (let press = 0; press < 40; press++) {
      await page.keyboard.press("Shift+Tab");
      if (await page.evaluate(() => document.activeElement?.id === "map")) break;
    }
    const first = (await hint()) ?? "";
    assert.match(first, /^\d+: /);
    // It is read out, and the long text that comes back is not.
    const live = () => page.locator("#map-hint").getAttribute("aria-live");
    assert.equal(await live(), "polite");
    await page.keyboard.press("ArrowLeft");
    assert.equal(await hint(), first);
    await page.keyboard.press("ArrowRight");
    const second = (await hint()) ?? "";
    await page.keyboard.press("ArrowDown");
    const [code = ""] = second.split(":");
    assert.ok(Number(code) > Number.parseInt(first, 10), second);
    assert.match((await hint()) ?? "", new RegExp(`^${code} · \\d+: `));
    await page.keyboard.press("ArrowUp");
    assert.equal(await hint(), second);
    await page.keyboard.press("Tab");
    assert.deepEqual([await hint(), await live()], [about, "off"]);
    await page.close();
  });

  test("assistive technology is told the same where a browser reflects no ARIA", async () => {
    const page = await browser.newPage();
    await page.addInitScript(() => {
      for (const name of Object.keys(Element.prototype)) {
        if (name.startsWith("aria")) Reflect.deleteProperty(Element.prototype, name);
      }
    });
    await go(page);
    assert.equal(await page.evaluate(() => "ariaLabel" in document.body), false);
    await page.locator("#items button").first().click();
    /** @param {string} selector @param {string} name */
    const says = async (selector, name) =>
      (await page.locator(selector).first().getAttribute(name)) ?? "";
    assert.equal(await says("#items button", "aria-pressed"), "true");
    assert.equal(await says("#items .cover", "aria-hidden"), "true");
    assert.equal(await says("#picks .score", "aria-hidden"), "true");
    assert.match(await says("#history .remove", "aria-label"), /^Remove /);
    assert.match(await says("#arrival-list button", "aria-label"), /^Add /);
    assert.match(await says("#map", "aria-label"), /The search kept/);
    assert.equal(await says("#beams", "aria-valuetext"), "50");
    assert.equal(await says("#diversity", "aria-valuetext"), "best");
    await page.waitForSelector("#history[aria-busy=false]");
    await page.close();
  });

  test("a region holds what its name says", async () => {
    const { page } = await open();
    const lists = (/** @type {string} */ name) =>
      page
        .getByRole("region", { name, exact: true })
        .locator("ol")
        .evaluateAll((all) => all.map(({ id }) => id));
    assert.deepEqual(await lists("For you"), ["picks"]);
    assert.deepEqual(await lists("Liked, in order"), ["history"]);
    await page.close();
  });

  test("a bundle that is none is refused in words on the page", async () => {
    const page = await browser.newPage({ serviceWorkers: "block" });
    await page.route("**/model.safetensors", (route) =>
      route.fulfill({ body: "not a bundle", contentType: "application/octet-stream" }),
    );
    await page.goto(server.url);
    const alert = page.locator("#alert");
    await alert.waitFor({ state: "visible" });
    assert.match((await alert.textContent()) ?? "", /not a valid safetensors file/);
    await page.close();
  });

  test("without WebGPU the page says so and computes on the CPU", async () => {
    const plain = await launch({ webgpu: false });
    try {
      const page = await plain.newPage();
      await go(page, `${server.url}/?backend=webgpu`);
      assert.ok(await page.locator("#alert").isVisible());
      assert.match((await page.locator("#alert").textContent()) ?? "", /no usable GPU/);
      assert.match((await page.locator("#status").textContent()) ?? "", /· CPU$/);
    } finally {
      await plain.close();
    }
  });

  test("a GPU that hangs while the model loads is told of, and the CPU computes", async () => {
    const page = await browser.newPage({ serviceWorkers: "block" });
    await page.clock.install();
    await page.addInitScript(() => {
      const { postMessage } = Worker.prototype;
      /** @this {Worker} @param {any} message @param {any} transfer */
      Worker.prototype.postMessage = function (message, transfer) {
        const isLost = message.method === "load" && message.engine === "webgpu";
        if (!isLost) postMessage.call(this, message, transfer);
      };
    });
    await page.goto(`${server.url}/?backend=webgpu`);
    const isReady = () => page.evaluate(() => document.documentElement.dataset.ready === "true");
    while (!(await isReady())) await page.clock.runFor(200);
    const alert = (await page.locator("#alert").textContent()) ?? "";
    assert.match(alert, /did not answer within 30 seconds\. The CPU computes for now/);
    assert.match((await page.locator("#status").textContent()) ?? "", /· CPU$/);
    await page.close();
  });
});
