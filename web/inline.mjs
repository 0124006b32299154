/**
 * Writes dist/inline.js: the package in one file, with worker and wasm module inside, for where
 * nothing follows `new URL(…, import.meta.url)`. Part of `npm run build`.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = (/** @type {string} */ path) => fileURLToPath(new URL(path, import.meta.url));

const wasm = gzipSync(readFileSync(here("pkg/tigret_infer_bg.wasm")), { level: 9 });
const { outputFiles } = await build({
  entryPoints: [here("dist/worker-inline.js")],
  bundle: true,
  minify: true,
  write: false,
  format: "esm",
  define: { WASM: JSON.stringify(wasm.toString("base64")) },
});
const worker = outputFiles[0]?.text ?? "";
writeFileSync(
  here("dist/inline.js"),
  `/** The package with its worker inside: a policy has to allow \`worker-src blob:\`. */
import { platform } from "./platform.js";
const worker = ${JSON.stringify(worker)};
platform.startWorker = () => {
  const address = URL.createObjectURL(new Blob([worker], { type: "text/javascript" }));
  return new Worker(address, { type: "module" });
};
export * from "./index.js";
`,
);
writeFileSync(here("dist/inline.d.ts"), 'export * from "./index.js";\n');
