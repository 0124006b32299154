/** The built demo, as a visitor uses it. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { demoFolder, launch, serve } from "./support.mjs";

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

  /** Opens the page and waits until it has answered once. @param {string} address */
  async function open(address) {
    const page = await browser.newPage();
    /** @type {string[]} */
    const problems = [];
    page.on("pageerror", (error) => problems.push(error.message));
    await page.goto(server.url + address);
    await page.waitForSelector("html[data-ready]");
    return { page, problems };
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

      const requests = server.requests.length;
      const items = page.locator("#items button");
      await items.nth(0).click();
      await items.nth(3).click();
      assert.equal(await items.nth(3).getAttribute("aria-pressed"), "true");
      const liked = await page.locator("#history .title").allTextContents();
      assert.deepEqual(liked, [
        await items.nth(0).locator(".title").textContent(),
        await items.nth(3).locator(".title").textContent(),
      ]);
      await page.waitForFunction(
        (old) =>
          [...document.querySelectorAll("#picks .title")].map((e) => e.textContent).join() !== old,
        before.join(),
      );
      const ids = await page.evaluate(() =>
        [...document.querySelectorAll("#picks button")].map(
          (e) => /** @type {HTMLElement} */ (e).dataset.id,
        ),
      );
      const history = decodeURIComponent(new URL(page.url()).hash)
        .slice("#history=".length)
        .split(",");
      assert.equal(history.length, 2);
      assert.ok(
        history.every((id) => !ids.includes(id)),
        "what is liked is not recommended",
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
    await page.close();
  });

  test("the engine and the beams can be changed while the page is open", async () => {
    const { page } = await open("/?backend=cpu");
    await page.locator("input[value=webgpu]").check({ force: true });
    await page.waitForFunction(() =>
      /WebGPU \(/.test(document.querySelector("#status")?.textContent ?? ""),
    );
    await page.locator("#beams").fill("0");
    await page.waitForFunction(() => document.querySelectorAll("#picks li").length === 5);
    await page.close();
  });

  test("a bundle that is none is refused in words on the page", async () => {
    const page = await browser.newPage();
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
      await page.goto(`${server.url}/?backend=webgpu`);
      await page.waitForSelector("html[data-ready]");
      assert.ok(await page.locator("#alert").isVisible());
      assert.match((await page.locator("#alert").textContent()) ?? "", /no usable GPU/);
      assert.match((await page.locator("#status").textContent()) ?? "", /· CPU$/);
    } finally {
      await plain.close();
    }
  });
});
