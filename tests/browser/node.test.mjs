/** The package in Node: the CPU engine answers as natively, from files and addresses. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";
import { packageFolder, parityFolder, serve } from "./support.mjs";

const skip = parityFolder ? false : "TIGRET_PARITY_DIR is not set";
const require = createRequire(join(packageFolder, "package.json"));
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

  /** Runs a program that recommends. @param {string} from @param {string[]} flags @param {NodeJS.ProcessEnv} env */
  function recommendIn(from, flags, env = {}) {
    const program = `
      import { Recommender } from ${JSON.stringify(from)};
      const recommender = await Recommender.load(${JSON.stringify(bundle)});
      console.log((await recommender.recommend({ history: [] })).length > 0);`;
    const out = execFileSync(process.execPath, [...flags, "--eval", program], {
      timeout: 60_000,
      encoding: "utf8",
      env: { ...process.env, ...env },
    });
    assert.equal(out.trim(), "true");
  }

  test("a program ends though it did not dispose of its recommender", () => {
    recommendIn(entry, ["--input-type=module"]);
  });

  test("flags of the program are none of the worker", () => {
    recommendIn(entry, [], { NODE_OPTIONS: "--input-type=module" });
  });

  test("tigret/inline recommends, too", () => {
    const inline = pathToFileURL(require.resolve("tigret/inline")).href;
    recommendIn(inline, ["--input-type=module"]);
  });

  describe("a bundled server recommends without settings for it", () => {
    const folder = mkdtempSync(join(tmpdir(), "tigret-server-"));
    const source = join(folder, "server.js");

    before(() => {
      writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
      mkdirSync(join(folder, "node_modules"));
      symlinkSync(packageFolder, join(folder, "node_modules/tigret"));
      writeFileSync(
        source,
        `import { Recommender } from "tigret";
        Recommender.load(${JSON.stringify(bundle)})
          .then((recommender) => recommender.recommend({ history: [] }))
          .then((picks) => console.log(picks.length > 0));`,
      );
    });
    after(() => rmSync(folder, { recursive: true, force: true }));

    /** How each bundler is called; the path of what it writes. */
    const builds = {
      "esbuild, ES module": async () => {
        const outfile = join(folder, "esbuild.mjs");
        const settings = { bundle: true, platform: "node", format: "esm", outfile };
        await require("esbuild").build({ entryPoints: [source], ...settings });
        return outfile;
      },
      "esbuild, CommonJS": async () => {
        const outfile = join(folder, "esbuild.cjs");
        const settings = { bundle: true, platform: "node", format: "cjs", outfile };
        await require("esbuild").build({ entryPoints: [source], ...settings });
        return outfile;
      },
      Vite: async () => {
        const { build } = await import(pathToFileURL(require.resolve("vite")).href);
        await build({
          root: folder,
          logLevel: "silent",
          ssr: { noExternal: true },
          build: { ssr: source, outDir: "vite" },
        });
        return join(folder, "vite/server.js");
      },
      webpack: async () => {
        const output = { path: join(folder, "webpack"), filename: "server.cjs" };
        const settings = { mode: "production", target: "node", entry: source, output };
        await new Promise((resolve, reject) => {
          require("webpack")(settings, (/** @type {unknown} */ error, /** @type {any} */ stats) =>
            error || stats.hasErrors() ? reject(error ?? stats.toString()) : resolve(stats),
          );
        });
        return join(folder, "webpack/server.cjs");
      },
    };
    for (const [name, build] of Object.entries(builds)) {
      test(name, async () => {
        const path = await build();
        const options = /** @type {const} */ ({ timeout: 60_000, encoding: "utf8" });
        assert.equal(execFileSync(process.execPath, [path], options).trim(), "true");
      });
    }
  });
});
