/** esbuild follows no `new URL("./worker.js", import.meta.url)`: the worker is an entry of its own. */

import { cp } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

await build({
  entryPoints: { "app/main": "main.js", "app/worker": "tigret/worker" },
  bundle: true,
  format: "esm",
  outdir: "dist",
});
// The worker looks for `../pkg` beside itself.
const tigret = dirname(fileURLToPath(import.meta.resolve("tigret/package.json")));
await cp(join(tigret, "pkg"), "dist/pkg", { recursive: true });
