/**
 * Writes the package's scripts into dist, one file an entry, so that a page without a bundler waits
 * for one request, and its worker for two, not for a chain of modules. Part of `npm run build`.
 */

import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
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

/** The worker with the wasm module inside, as text. */
async function inlineWorker() {
  const wasm = gzipSync(readFileSync(here("pkg/tigret_infer_bg.wasm")), { level: 9 });
  const { outputFiles } = await build({
    ...common,
    entryPoints: [here("src/worker-inline.ts")],
    external: [],
    write: false,
    define: { WASM: JSON.stringify(wasm.toString("base64")) },
  });
  return outputFiles[0]?.text ?? "";
}

const define = { WORKER: JSON.stringify(await inlineWorker()) };
/** @param {string[]} names @param {boolean} sourcemap */
const write = (names, sourcemap) => {
  const entryPoints = names.map((name) => here(`src/${name}.ts`));
  return build({ ...common, entryPoints, outdir: dist, sourcemap, define });
};
// A map is as large as four scripts: those of a page have one.
await write(["index", "worker"], true);
await write(["node", "inline", "worker-node"], false);
