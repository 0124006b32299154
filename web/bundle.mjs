/**
 * Writes the package's scripts into dist, one file an entry, so that a page without a bundler waits
 * for one request, and its worker for two, not for a chain of modules. Part of `npm run build`.
 */

import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { build, transform } from "esbuild";

const here = (/** @type {string} */ path) => fileURLToPath(new URL(path, import.meta.url));
const dist = here("dist/");

for (const name of readdirSync(dist)) if (/\.js(\.map)?$/.test(name)) rmSync(dist + name);

/** @type {import("esbuild").BuildOptions} */
const common = {
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  // The glue stays beside the wasm module, where bundlers look for it.
  external: ["../pkg/*", "node:*"],
};

// A third of it is comments, which a page would download.
const glue = here("pkg/tigret_infer.js");
const { code } = await transform(readFileSync(glue, "utf8"), { minify: true, target: "es2022" });
writeFileSync(glue, code);

const wasm = readFileSync(here("pkg/tigret_infer_bg.wasm"));

/**
 * A worker with the wasm module inside, as the text of a script: a page in a sandbox starts no
 * module from a text.
 *
 * @param {string} name @param {Buffer} packed the module as the worker unpacks it
 */
async function workerText(name, packed) {
  const { outputFiles } = await build({
    ...common,
    entryPoints: [here(`src/${name}.ts`)],
    external: [],
    format: "iife",
    write: false,
    define: { WASM: JSON.stringify(packed.toString("base64")) },
  });
  return JSON.stringify(outputFiles[0]?.text ?? "");
}

/** @param {string[]} names @param {import("esbuild").BuildOptions} options */
const write = (names, options) => {
  const entryPoints = names.map((name) => here(`src/${name}.ts`));
  return build({ ...common, entryPoints, outdir: dist, ...options });
};
// A map is as large as four scripts: those of a page have one.
await write(["index", "worker"], { sourcemap: true });
await write(["node", "inline"], {
  define: {
    WORKER: await workerText("worker-inline", gzipSync(wasm, { level: 9 })),
    NODE_WORKER: await workerText("worker-node", brotliCompressSync(wasm)),
    // These never start the worker that lies beside them: a bundler need not follow its address.
    "import.meta.url": "undefined",
  },
});
