import { readFile, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** The demo page. The package has a build of its own, `npm run build`. */
export default defineConfig({
  root: here("demo"),
  base: "./",
  // A file that is missing is 404 and not the page.
  appType: "mpa",
  publicDir: false,
  resolve: { alias: { tigret: here("dist/index.js") } },
  worker: { format: "es" },
  build: {
    target: "es2022",
    outDir: here("demo-dist"),
    // The model lies beside the page and stays.
    emptyOutDir: false,
    modulePreload: { polyfill: false },
    rollupOptions: {
      input: { main: here("demo/index.html"), sw: here("demo/sw.ts") },
      // A service worker keeps its name: browsers look under it for a newer one.
      output: {
        entryFileNames: ({ name }) => (name === "sw" ? "sw.js" : "assets/[name]-[hash].js"),
      },
    },
  },
  plugins: [
    {
      name: "remove-old-assets",
      apply: "build",
      buildStart: () => rm(here("demo-dist/assets"), { recursive: true, force: true }),
    },
    {
      // A site goes with the notices of what is compiled into its module.
      name: "tell-licenses",
      apply: "build",
      async generateBundle() {
        const name = "THIRD-PARTY-LICENSES.txt";
        const source = await readFile(here(`pkg/${name}`), "utf8");
        this.emitFile({ type: "asset", fileName: name, source });
      },
    },
    {
      // The service worker deletes what is kept of other versions of the page.
      name: "tell-assets",
      apply: "build",
      enforce: "post",
      generateBundle(_, bundle) {
        const worker = bundle["sw.js"];
        if (worker?.type !== "chunk") throw new Error("the build has no sw.js");
        const assets = Object.keys(bundle).filter((name) => name.startsWith("assets/"));
        worker.code = `const ASSETS = ${JSON.stringify(assets.sort())};${worker.code}`;
      },
    },
  ],
});
