/** The history of the built demo: kept, shared by links and by windows. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { describeDemo, idsOf, serveModel, untilLiked } from "./demo.mjs";

describeDemo("history and links", (demo) => {
  const { go, open, reopen } = demo;

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
      const context = await demo.browser.newContext({
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
      const other = await demo.browser.newPage();
      await go(other, link);
      assert.deepEqual(await idsOf(other, "#history"), liked);
      await other.close();
      // What was said is gone with what it was said of.
      await page.locator("#items button").nth(0).click();
      assert.equal(await page.locator("#copied").textContent(), "");
      assert.equal(await page.locator("#link").isVisible(), false);
      assert.equal(await page.locator("#link").inputValue(), "");
      await context.close();
    });
  }

  test("a shared history is stored only where the visitor keeps it", async () => {
    const context = await demo.browser.newContext();
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
    await page.goto(demo.server.url + link);
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
      const cache = await caches.open("tigret-demo/");
      return (await cache.keys()).map(({ url }) => url);
    });
    assert.deepEqual(
      keys.filter((url) => url.includes("history")),
      [],
    );
    await context.close();
  });

  test("two windows side by side show the same history, but for a shared one", async () => {
    const context = await demo.browser.newContext();
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

  test("what was liked is shown, and can be taken back, before the model is here", async () => {
    let gate = Promise.resolve();
    const other = await serveModel(async (response, bytes) => {
      await gate;
      response.end(bytes);
    });
    const context = await demo.browser.newContext();
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
});
