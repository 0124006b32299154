/** Requests of any kind through the package's API, in Chromium: a right answer or a typed error. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import {
  callRounds,
  faultLimit,
  faultRounds,
  faultSeed,
  launch,
  packageFolder,
  parityFolder,
  serve,
} from "./support.mjs";

const skip = parityFolder ? false : "TIGRET_PARITY_DIR is not set";
const here = fileURLToPath(new URL(".", import.meta.url));

/** Users and four levels; three levels and no users; a catalogue of one item. */
const BUNDLES = ["four-levels-f32", "three-levels-of-seven", "one-item"];
const CALLS = callRounds({ cpu: 200, webgpu: 25 });
const DISPOSALS = faultRounds({ cpu: 15, webgpu: 1 });
/** On a software adapter a model takes seconds to start: the quick form has one. */
const ON = {
  cpu: BUNDLES,
  webgpu: process.env.TIGRET_FUZZ_ROUNDS ? BUNDLES : BUNDLES.slice(0, 1),
};

describe("calls of any kind", { skip }, () => {
  /** @type {Awaited<ReturnType<typeof serve>>} */
  let server;
  /** @type {Awaited<ReturnType<typeof launch>>} */
  let browser;

  before(async () => {
    assert.ok(existsSync(join(packageFolder, "dist/index.js")), "run `npm run build` first");
    const fixtures = parityFolder ?? "";
    server = await serve({ "/package/": packageFolder, "/fixtures/": fixtures, "/tests/": here });
    browser = await launch();
  });

  after(async () => {
    await browser?.close();
    await server?.close();
  });

  /**
   * @param {import("node:test").TestContext} context @param {"holdCalls" | "holdDisposals"} what
   * @param {string} bundle @param {"cpu" | "webgpu"} backend @param {number} rounds
   * @returns {Promise<Record<string, number>>} how many calls ended in what way
   */
  async function hold(context, what, bundle, backend, rounds) {
    const page = await browser.newPage();
    await page.goto(`${server.url}/blank.html`);
    const { ends, failures } = await page.evaluate(
      async ({ what, url, backend, seed, rounds }) => {
        const tigret = await import("/package/dist/index.js");
        const requests = await import("/tests/hostile-requests.mjs");
        return requests[what](tigret, url, backend, seed, rounds);
      },
      { what, url: `/fixtures/${bundle}.safetensors`, backend, seed: faultSeed, rounds },
    );
    await page.close();
    context.diagnostic(`${JSON.stringify(ends)}, TIGRET_FAULT_SEED=${faultSeed}`);
    const wrong = `${failures.length} of them, TIGRET_FAULT_SEED=${faultSeed}`;
    assert.deepEqual(failures.slice(0, 5), [], wrong);
    return ends;
  }

  for (const backend of /** @type {const} */ (["cpu", "webgpu"])) {
    for (const bundle of ON[backend]) {
      test(`${bundle} on ${backend}, some at once`, faultLimit, async (context) => {
        const ends = await hold(context, "holdCalls", bundle, backend, CALLS[backend]);
        // What is drawn is neither all wrong nor all right.
        assert.ok((ends.answered ?? 0) > 0 && (ends["bad-request"] ?? 0) > 0);
      });
    }

    test(
      `a recommender on ${backend} that is disposed of in mid-call`,
      faultLimit,
      async (context) => {
        const bundle = BUNDLES[0] ?? "";
        const ends = await hold(context, "holdDisposals", bundle, backend, DISPOSALS[backend]);
        assert.ok((ends.disposed ?? 0) > 0);
      },
    );
  }
});
