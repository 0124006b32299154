/** What the tests of the built demo share: how its pages are opened, and what is waited for. */

import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { demoFolder, launch, serve } from "./support.mjs";

/** @typedef {import("playwright-core").Page} Page */

/**
 * @typedef {{
 *   readonly server: Awaited<ReturnType<typeof serve>>,
 *   readonly browser: Awaited<ReturnType<typeof launch>>,
 *   go: (page: Page, address?: string) => Promise<void>,
 *   open: (address?: string) => Promise<{ page: Page, problems: string[] }>,
 *   reopen: (page: Page, address: string) => Promise<void>,
 * }} Demo
 */

const model = join(demoFolder, "model/model.safetensors");
const skip = existsSync(model) ? false : `there is no ${model}`;

/**
 * Tests of the demo, with a server and a browser of their own, which are there while a test runs.
 *
 * @param {string} what
 * @param {(demo: Demo) => void} tests
 */
export function describeDemo(what, tests) {
  describe(`the demo: ${what}`, { skip }, () => {
    /** @type {Demo["server"]} */
    let server;
    /** @type {Demo["browser"]} */
    let browser;

    before(async () => {
      server = await serve({ "/": demoFolder, "/other/": demoFolder });
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

    /** Opens the page anew, with another fragment too. @param {Page} page @param {string} address */
    async function reopen(page, address) {
      await page.goto(`${server.url}/blank.html`);
      await go(page, server.url + address);
    }

    tests({
      get server() {
        return server;
      },
      get browser() {
        return browser;
      },
      go,
      open,
      reopen,
    });
  });
}

/** The ids in a list, in its order. @param {Page} page @param {string} list */
export function idsOf(page, list) {
  return page
    .locator(`${list} button[data-id]`)
    .evaluateAll((buttons) => buttons.map((button) => button.dataset.id ?? ""));
}

/** Waits until an element says it. @param {Page} page @param {string} selector @param {string} text */
export function untilSays(page, selector, text) {
  return page.waitForFunction(
    ([selector, text]) => document.querySelector(selector)?.textContent?.includes(text),
    /** @type {[string, string]} */ ([selector, text]),
  );
}

/** Waits until these ids are liked. @param {Page} page @param {string[]} ids */
export function untilLiked(page, ids) {
  return page.waitForFunction((expected) => {
    const buttons = [...document.querySelectorAll("#history button[data-id]")];
    return buttons.map((e) => /** @type {HTMLElement} */ (e).dataset.id).join() === expected;
  }, ids.join());
}

/**
 * Serves the demo with a model that comes as `send` sends it.
 *
 * @param {(response: import("node:http").ServerResponse, bytes: Buffer) => unknown} send
 */
export function serveModel(send) {
  const bytes = readFileSync(model);
  return serve(
    { "/": demoFolder },
    { "/model/model.safetensors": (_, response) => void send(response, bytes) },
  );
}

/** Paths of what the service worker keeps. @param {Page} page */
export function keptPaths(page) {
  return page.evaluate(async () => {
    const cache = await caches.open("tigret-demo/");
    return (await cache.keys()).map(({ url }) => new URL(url).pathname).sort();
  });
}

/**
 * Whether what the page fetched before it had a service worker is kept, which asks for it anew, and
 * for the page last.
 *
 * @param {string[]} paths
 */
export const hasLoaded = (paths) =>
  ["/", "/model/about.json", "/model/new.jsonl"].every((path) => paths.includes(path));

/** @param {Page} page @param {(paths: string[]) => boolean} holds */
export async function untilKept(page, holds) {
  const end = Date.now() + 30_000;
  for (let paths = await keptPaths(page); !holds(paths); paths = await keptPaths(page)) {
    assert.ok(Date.now() < end, `kept is ${paths}`);
    await page.waitForTimeout(50);
  }
}

/** Waits until the package keeps the model, which it does beside the first call. @param {Page} page */
export function untilModelKept(page) {
  return page.waitForFunction(async () => (await (await caches.open("tigret")).keys()).length > 0);
}
