/** The built demo for everybody: axe, the keyboard, colours, what is read out, every width. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import { describeDemo, idsOf, untilSays } from "./demo.mjs";
import { packageFolder } from "./support.mjs";

const fromPackage = createRequire(join(packageFolder, "package.json"));
const axe = readFileSync(fromPackage.resolve("axe-core/axe.min.js"), "utf8");

describeDemo("accessibility", (demo) => {
  const { go, open } = demo;

  test("cards that are higher than the window scroll and do not lie over each other", async () => {
    const page = await demo.browser.newPage({ viewport: { width: 1280, height: 600 } });
    await go(page);
    await page.locator("summary").click();
    const cards = await page.locator(".shelf > .card").evaluateAll((cards) =>
      cards.map((card) => {
        const { top, bottom } = card.getBoundingClientRect();
        return { top, bottom, over: card.scrollHeight - card.clientHeight };
      }),
    );
    assert.ok(cards.length > 1, `${cards.length} cards`);
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
        const page = await demo.browser.newPage({ colorScheme, viewport: { width, height: 800 } });
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

  test("lists without marks say that they are lists, which Safari asks for", async () => {
    const { page } = await open();
    const roles = await page
      .locator("ol, ul")
      .evaluateAll((lists) =>
        lists
          .filter((list) => getComputedStyle(list).listStyleType === "none")
          .map((list) => list.getAttribute("role")),
      );
    assert.ok(roles.length > 0);
    assert.deepEqual([...new Set(roles)], ["list"]);
    await page.close();
  });

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
      const page = await demo.browser.newPage({ colorScheme });
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
    const context = await demo.browser.newContext({ javaScriptEnabled: false });
    const page = await context.newPage();
    await page.goto(demo.server.url);
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
    const page = await demo.browser.newPage();
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

  test("the name of the map says what a search kept, or that it found nothing", async () => {
    const { page } = await open();
    /** @param {string} part */
    const untilNamed = (part) => page.locator(`#map[aria-label*="${part}"]`).waitFor();
    const rare = page.locator("#only option").last();
    const number = /\((\d+)\)$/.exec((await rare.textContent()) ?? "")?.[1];
    await page.locator("#only").selectOption(await rare.getAttribute("value"));
    await untilSays(page, "#status", `${number} items in`);
    await untilNamed(`, then ${number} prefixes on its`);
    // All that may be recommended is liked, too.
    const ids = await idsOf(page, "#picks");
    await page.evaluate((ids) => location.assign(`#history=${ids.join()}`), ids);
    await untilSays(page, "#status", "0 items in");
    await untilNamed("items. The search found no item that it may recommend. Arrow keys");
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
});
