/** What the browser tests share: a server on loopback and Chromium with a software WebGPU. */

import { accessSync, constants } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { delimiter, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const web = fileURLToPath(new URL("../../web/", import.meta.url));
/** @type {typeof import("playwright-core")} */
const { chromium } = createRequire(join(web, "package.json"))("playwright-core");

/** Folder with fixture bundles, requests and native answers; see README.md. */
export const parityFolder = process.env.TIGRET_PARITY_DIR;

/** What the tests with random faults draw from: `TIGRET_FAULT_SEED`, or another each time. */
export const faultSeed = Number(process.env.TIGRET_FAULT_SEED ?? Date.now() % 2 ** 32);

/**
 * @template {Record<string, number>} T @param {string} variable @param {T} quick @returns {T}
 */
function rounds(variable, quick) {
  const own = Number(process.env[variable] ?? 0);
  return /** @type {T} */ (
    Object.fromEntries(Object.entries(quick).map(([name, rounds]) => [name, own || rounds]))
  );
}

/**
 * How often a fault is drawn, after which a model starts anew: `TIGRET_FAULT_ROUNDS`, or what is
 * quick.
 *
 * @template {Record<string, number>} T @param {T} quick
 */
export const faultRounds = (quick) => rounds("TIGRET_FAULT_ROUNDS", quick);

/**
 * How many calls are drawn: `TIGRET_FUZZ_ROUNDS`, or what is quick.
 *
 * @template {Record<string, number>} T @param {T} quick
 */
export const callRounds = (quick) => rounds("TIGRET_FUZZ_ROUNDS", quick);

const isLong = process.env.TIGRET_FAULT_ROUNDS || process.env.TIGRET_FUZZ_ROUNDS;
/** A fault that is not noticed is waited for without end: such a test fails by this limit. */
export const faultLimit = { timeout: isLong ? 3_600_000 : 300_000 };

/**
 * Without `--enable-unsafe-webgpu` headless Chromium has no adapter; SwiftShader is the one that
 * every machine has.
 */
const WITH_WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];
const WITHOUT_WEBGPU = ["--disable-features=WebGPU"];

/** What any browser is started with; all but the first keep it from reaching for the network. */
const FLAGS = [
  "--no-sandbox",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** The Chromium to test with: `TIGRET_CHROMIUM`, else the first on the PATH. */
function chromiumPath() {
  const own = process.env.TIGRET_CHROMIUM;
  if (own) return own;
  const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    for (const name of names) {
      const path = join(folder, name);
      try {
        accessSync(path, constants.X_OK);
        return path;
      } catch {
        // Not here.
      }
    }
  }
  throw new Error("no Chromium on the PATH: install one, or set TIGRET_CHROMIUM to its executable");
}

/**
 * Starts the browser; `webgpu: false` gives one without WebGPU, `without` are flags of Playwright's
 * own that are left out.
 *
 * @param {{ webgpu?: boolean, flags?: string[], without?: string[] }} options
 */
export function launch({ webgpu = true, flags = [], without = [] } = {}) {
  return chromium.launch({
    executablePath: chromiumPath(),
    args: [...FLAGS, ...(webgpu ? WITH_WEBGPU : WITHOUT_WEBGPU), ...flags],
    ignoreDefaultArgs: without,
  });
}

/** Starts the browser with a profile that lies in a folder. @param {string} folder */
export function launchProfile(folder) {
  return chromium.launchPersistentContext(folder, {
    executablePath: chromiumPath(),
    args: [...FLAGS, ...WITH_WEBGPU],
  });
}

const TYPES = new Map([
  [".html", "text/html; charset=utf-8"],
  [".js", "text/javascript"],
  [".mjs", "text/javascript"],
  [".css", "text/css"],
  [".wasm", "application/wasm"],
  [".json", "application/json"],
]);

/** The policy under which the package has to work. */
const STRICT =
  "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; object-src 'none'";

/**
 * Serves folders under path prefixes, an empty page at `/blank.html`, and one with a strict content
 * security policy at `/strict.html`.
 *
 * @param {Record<string, string>} folders prefix, with slashes around it, to folder
 * @param {Record<string, import("node:http").RequestListener>} routes path to what answers it
 */
export async function serve(folders, routes = {}) {
  /** @type {string[]} */
  const requests = [];
  const server = createServer(async (request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? "/", "http://localhost").pathname);
    requests.push(path);
    // Isolated, a page may ask how much memory it uses, workers and wasm included.
    response.setHeader("cross-origin-opener-policy", "same-origin");
    response.setHeader("cross-origin-embedder-policy", "require-corp");
    if (path === "/blank.html" || path === "/strict.html") {
      if (path === "/strict.html") response.setHeader("content-security-policy", STRICT);
      response.setHeader("content-type", "text/html").end("<!doctype html><title>blank</title>");
      return;
    }
    const route = routes[path];
    if (route) {
      route(request, response);
      return;
    }
    const prefix = Object.keys(folders)
      .filter((candidate) => path.startsWith(candidate))
      .sort((a, b) => b.length - a.length)[0];
    const rest = prefix === undefined ? "" : normalize(path.slice(prefix.length) || "index.html");
    try {
      if (prefix === undefined || rest.startsWith("..")) throw new Error("outside the folders");
      const bytes = await readFile(join(folders[prefix] ?? "", rest));
      response.setHeader("content-type", TYPES.get(extname(rest)) ?? "application/octet-stream");
      response.setHeader("content-length", bytes.length).end(bytes);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(undefined)));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the server has no port");
  return {
    url: `http://127.0.0.1:${address.port}`,
    requests,
    close: () => {
      // Answers that a test never ends would keep the server open.
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

/**
 * A page with storage of its own.
 *
 * @param {import("playwright-core").Browser} browser @param {string} address
 */
export async function open(browser, address) {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(address);
  return { context, page };
}

/**
 * Loads a bundle in a page and recommends: what came of it. `worker` is the address of another
 * worker.
 *
 * @param {import("playwright-core").Page} page @param {string} url
 * @param {Record<string, unknown> & { worker?: string | undefined }} options
 * @returns {Promise<{ ids: string[] | null, downloaded: number, code: string | null, message: string, typed: boolean }>}
 */
export function load(page, url, { worker, ...options } = {}) {
  return page.evaluate(
    async ({ url, worker, options }) => {
      const { Recommender, TigretError } = await import("/package/dist/index.js");
      try {
        const recommender = await Recommender.load(url, {
          backend: "cpu",
          ...options,
          ...(worker && { worker: () => new Worker(worker, { type: "module" }) }),
        });
        const ids = (await recommender.recommend({ history: [] })).map(({ id }) => id);
        recommender.dispose();
        return { ids, downloaded: recommender.downloaded, code: null, message: "", typed: false };
      } catch (error) {
        const { code, message } = /** @type {any} */ (error);
        return { ids: null, downloaded: 0, code, message, typed: error instanceof TigretError };
      }
    },
    { url, worker, options },
  );
}

export const demoFolder = join(web, "demo-dist");
/** The folder of the npm package: `dist/` and `pkg/` run in a browser without a bundler. */
export const packageFolder = web;
