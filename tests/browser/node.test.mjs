/** The package in Node: the CPU engine answers as natively, from files and addresses. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { packageFolder, parityFolder, serve } from "./support.mjs";

const skip = parityFolder ? false : "TIGRET_PARITY_DIR is not set";
const entry = pathToFileURL(join(packageFolder, "dist/node.js")).href;

describe("in Node", { skip }, () => {
  const bundle = join(parityFolder ?? "", "four-levels-f32.safetensors");

  test("a bundle comes from a path, a file's address, a server or memory", async () => {
    const { Recommender } = await import(entry);
    const server = await serve({ "/fixtures/": parityFolder ?? "" });
    const { cases } = JSON.parse(
      readFileSync(join(parityFolder ?? "", "four-levels-f32.json"), "utf8"),
    );
    const { request, expected } = cases[0];
    const sources = [
      bundle,
      pathToFileURL(bundle),
      `${server.url}/fixtures/four-levels-f32.safetensors`,
      readFileSync(bundle),
    ];
    for (const source of sources) {
      const recommender = await Recommender.load(source);
      const { history, beams, top } = request;
      const exclude = request.exclude_history ? "history" : request.exclude;
      const found = await recommender.report({ history, beams, top, exclude });
      assert.equal(found.engine, "cpu");
      assert.deepEqual(
        found.picks.map((/** @type {{ id: string }} */ pick) => pick.id),
        expected.map((/** @type {{ id: string }} */ pick) => pick.id),
      );
      recommender.dispose();
    }
    await server.close();
  });

  test("what is no bundle, and what is not there, is refused", async () => {
    const { Recommender } = await import(entry);
    const here = fileURLToPath(import.meta.url);
    await assert.rejects(Recommender.load(here), { name: "TigretError", code: "bad-bundle" });
    await assert.rejects(Recommender.load("no/such/file"), { code: "download" });
    await assert.rejects(Recommender.load(bundle, { backend: "webgpu" }), { code: "no-gpu" });
  });

  test("a worker that something else ends is started again", async () => {
    const { Recommender } = await import(entry);
    // The package does not hand out its worker: it shows itself when it is asked.
    const { postMessage } = Worker.prototype;
    /** @type {Worker[]} */
    const asked = [];
    Worker.prototype.postMessage = function (...args) {
      asked.push(this);
      return postMessage.apply(this, args);
    };
    try {
      const recommender = await Recommender.load(bundle);
      const before = await recommender.recommend({ history: [] });
      await asked.at(-1)?.terminate();
      assert.deepEqual(await recommender.recommend({ history: [] }), before);
      const running = recommender.recommend({ history: [] });
      await new Promise(setImmediate);
      asked.at(-1)?.terminate();
      assert.deepEqual(await running, before);
      assert.ok(new Set(asked).size >= 2);
      recommender.dispose();
    } finally {
      Worker.prototype.postMessage = postMessage;
    }
  });

  test("a program ends though it did not dispose of its recommender", () => {
    const program = `
      import { Recommender } from ${JSON.stringify(entry)};
      const recommender = await Recommender.load(${JSON.stringify(bundle)});
      console.log((await recommender.recommend({ history: [] })).length > 0);`;
    const arguments_ = ["--input-type=module", "--eval", program];
    const out = execFileSync(process.execPath, arguments_, { timeout: 60_000, encoding: "utf8" });
    assert.equal(out.trim(), "true");
  });
});
