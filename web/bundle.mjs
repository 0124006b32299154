/**
 * Writes the package's scripts into dist, one file an entry, so that a page without a bundler waits
 * for one request, and its worker for one before that of the wasm module. Part of `npm run build`.
 */

import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = (/** @type {string} */ path) => fileURLToPath(new URL(path, import.meta.url));
const dist = here("dist/");

for (const name of readdirSync(dist)) if (/\.js(\.map)?$/.test(name)) rmSync(dist + name);

/** @type {import("esbuild").BuildOptions} */
const common = {
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
};

/**
 * The text of a script without imports: a page in a sandbox starts no module from a text, and
 * bundlers would not follow the file.
 *
 * @param {string} name @param {Record<string, string>} define
 */
async function textOf(name, define = {}) {
  const { outputFiles } = await build({
    ...common,
    entryPoints: [here(`src/${name}.ts`)],
    format: "iife",
    write: false,
    define,
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
// What is generated tells nobody anything, and takes 7 KB of the package.
const map = JSON.parse(readFileSync(`${dist}worker.js.map`, "utf8"));
for (const [at, source] of map.sources.entries()) {
  if (source.startsWith("../pkg/")) map.sourcesContent[at] = null;
}
writeFileSync(`${dist}worker.js.map`, JSON.stringify(map));
const wasm = readFileSync(here("pkg/tigret_infer_bg.wasm"));
const zipped = gzipSync(wasm, { level: 9 }).toString("base64");
await write(["inline"], {
  define: {
    WORKER: await textOf("worker-inline", { WASM: JSON.stringify(zipped) }),
    // It never starts the worker that lies beside it: a bundler need not follow its address.
    "import.meta.url": "undefined",
  },
});
await write(["node"], {
  external: ["node:*", "*/inline.js"],
  define: { THREAD: await textOf("worker-node") },
});
