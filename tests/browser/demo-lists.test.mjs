/** What is on the page of the built demo: lists, recommendations, the map. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { describeDemo, hasLoaded, idsOf, untilKept, untilSays } from "./demo.mjs";

describeDemo("lists, recommendations and the map", (demo) => {
  const { open } = demo;

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
      const requests = demo.server.requests.length;
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
      assert.equal(
        demo.server.requests.length,
        requests,
        "the page asks the server for nothing more",
      );
      assert.deepEqual(problems, []);
      assert.equal(await page.locator("#alert").isVisible(), false);
      await page.close();
    });
  }

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
    const requests = demo.server.requests.length;
    // None, unless the service worker came late.
    const counted = await page.locator("#requests").textContent();
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
    assert.equal(demo.server.requests.length, requests);
    assert.equal(await page.locator("#requests").textContent(), counted);
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
    await page.goto(`${demo.server.url}/blank.html`);
    await page.goBack();
    await page.waitForSelector("html[data-ready]");
    const shown = ["#diversity", "#beams"].map((slider) => page.locator(slider).inputValue());
    assert.deepEqual(await Promise.all(shown), ["0", "3"]);
    assert.equal(await page.locator("#diversity-value").textContent(), "best");
    assert.equal(await page.locator("#beams-value").textContent(), "50");
    await page.close();
  });
});
