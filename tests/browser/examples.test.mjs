/** The packed package: what is in it, and that each example builds with it and runs in Chromium. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { launch, packageFolder, parityFolder, serve } from "./support.mjs";

/**
 * Most bytes of the package as it is downloaded: it has the wasm module beside the page's scripts and
 * in `tigret/inline`, on which the script for Node builds.
 */
const BUDGET = 512_000;

/** @param {string} program @param {string[]} args @param {string} cwd */
function run(program, args, cwd) {
  try {
    const env = { ...process.env, NEXT_TELEMETRY_DISABLED: "1" };
    return execFileSync(program, args, { cwd, env, encoding: "utf8", stdio: "pipe" });
  } catch (error) {
    const { stdout, stderr } = /** @type {{ stdout: string, stderr: string }} */ (error);
    throw new Error(`${program} ${args.join(" ")} failed:\n${stdout}\n${stderr}`);
  }
}

/** A program of the package's development dependencies. @param {string} name */
const tool = (name) => join(packageFolder, "node_modules/.bin", name);

describe("the packed package", () => {
  const folder = mkdtempSync(join(tmpdir(), "tigret-pack-"));
  /** @type {{ filename: string, size: number, files: { path: string }[] }} */
  let packed;

  before(() => {
    const [first] = JSON.parse(
      run("npm", ["pack", "--json", "--silent", "--pack-destination", folder], packageFolder),
    );
    packed = first;
    const modules = join(folder, "node_modules");
    mkdirSync(modules);
    run("tar", ["-xzf", join(folder, packed.filename), "-C", modules], folder);
    run("mv", ["package", "tigret"], modules);
    // The bundlers of the examples; the package itself is the packed one.
    for (const name of ["esbuild", "webpack", "vite"]) {
      symlinkSync(join(packageFolder, "node_modules", name), join(modules, name));
    }
  });

  after(() => rmSync(folder, { recursive: true, force: true }));

  test("holds what it needs and nothing else, within its budget", () => {
    assert.ok(packed.size <= BUDGET, `${packed.size} bytes, more than ${BUDGET}`);
    const files = packed.files.map((file) => file.path);
    const needed = [
      "LICENSE-APACHE",
      "LICENSE-MIT",
      "README.md",
      "dist/index.d.ts",
      "dist/index.js",
      "dist/node.js",
      "dist/worker.js",
      "package.json",
      "pkg/THIRD-PARTY-LICENSES.txt",
      "pkg/tigret_infer_bg.wasm",
    ];
    for (const path of needed) assert.ok(files.includes(path), `${path} is missing`);
    const known =
      /^(LICENSE-\w+|README\.md|package\.json|dist\/[\w-]+\.(js|d\.ts|js\.map)|pkg\/(\w+\.wasm|THIRD-PARTY-LICENSES\.txt))$/;
    assert.deepEqual(
      files.filter((path) => !known.test(path)),
      [],
    );
    // Panic messages name the places of the code, and no folders of the machine that built it.
    const module = readFileSync(join(folder, "node_modules/tigret/pkg/tigret_infer_bg.wasm"));
    for (const trace of [homedir(), packageFolder, "registry/src"]) {
      assert.equal(module.includes(trace), false, `the module has ${trace} in it`);
    }
    // What is compiled in goes with its notices.
    const notices = join(folder, "node_modules/tigret/pkg/THIRD-PARTY-LICENSES.txt");
    assert.match(readFileSync(notices, "utf8"), /^serde-wasm-bindgen [\s\S]*Cloudflare/m);
    const about = JSON.parse(readFileSync(join(packageFolder, "package.json"), "utf8"));
    assert.equal(about.dependencies, undefined);
    // Parcel does not look at `exports` unless it is told to.
    const { types, default: main } = about.exports["."];
    assert.deepEqual([about.types, about.main], [types, main]);
  });

  test("leaves out of a bundle what is not used", () => {
    const entry = join(folder, "entry.js");
    writeFileSync(entry, 'import { HistoryStore } from "tigret"; new HistoryStore().list();');
    const bundled = run(tool("esbuild"), [entry, "--bundle", "--format=esm", "--minify"], folder);
    assert.ok(bundled.length < 8000, `${bundled.length} characters for a history`);
    assert.ok(!bundled.includes("worker.js"));
  });

  test("is what publint and arethetypeswrong expect of an ES module", () => {
    const archive = join(folder, packed.filename);
    run(tool("publint"), [archive, "--strict"], packageFolder);
    run(tool("attw"), [archive, "--profile", "esm-only", "--format", "ascii"], packageFolder);
  });

  describe("its types need no other library than Node's or the DOM, and no new compiler", () => {
    const require = createRequire(join(packageFolder, "package.json"));
    const checker = createRequire(require.resolve("@arethetypeswrong/core"));
    // It has no `Uint8Array<ArrayBuffer>` yet.
    const older = checker.resolve("typescript/bin/tsc");
    const compilers = {
      "of the package": { compiler: tool("tsc"), moduleResolution: "Bundler" },
      "before TypeScript 5.7": { compiler: older, moduleResolution: "Bundler" },
      // It does not look at `exports`.
      "before TypeScript 5.7, with modules as in Node 10": {
        compiler: older,
        moduleResolution: "Node10",
      },
    };
    const face = readFileSync(join(packageFolder, "src/index.ts"), "utf8");
    const consumer = `
      import * as inline from "tigret/inline";
      import "tigret/worker";
      import { ${face.match(/\b[A-Z]\w+/g)?.join(", ")}, forget } from "tigret";
      export const picks: Promise<Pick[]> = inline.Recommender.load("x").then((r) => r.recommend());
      export const options: LoadOptions = { worker: START };
      export { forget, HistoryStore, TigretError };`;
    const libraries = {
      "Node's": { lib: ["ES2022"], types: ["node"], start: "() => null as unknown as WorkerLike" },
      "the DOM": { lib: ["ES2022", "DOM"], types: [], start: '() => new Worker("x")' },
    };
    for (const [age, { compiler, moduleResolution }] of Object.entries(compilers)) {
      for (const [name, { start, ...library }] of Object.entries(libraries)) {
        test(`${name}, the compiler ${age}`, () => {
          const compilerOptions = {
            ...library,
            typeRoots: [join(packageFolder, "node_modules/@types")],
            target: "ES2022",
            module: "ESNext",
            moduleResolution,
            strict: true,
            skipLibCheck: false,
            noEmit: true,
          };
          const settings = { compilerOptions, files: ["consumer.ts"] };
          writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(settings));
          writeFileSync(join(folder, "consumer.ts"), consumer.replace("START", start));
          run(process.execPath, [compiler, "-p", folder], folder);
        });
      }
    }
  });

  describe("in Chromium", { skip: parityFolder ? false : "TIGRET_PARITY_DIR is not set" }, () => {
    const bundle = join(parityFolder ?? "", "four-levels-f32.safetensors");
    /** @type {Awaited<ReturnType<typeof launch>>} */
    let browser;
    before(async () => {
      browser = await launch();
    });
    after(() => browser?.close());

    /** How each example is built, in its folder; the result is where it says. */
    const builds = {
      static: (/** @type {string} */ at) => {
        cpSync(join(folder, "node_modules/tigret"), join(at, "tigret"), { recursive: true });
        return at;
      },
      vite: (/** @type {string} */ at) => {
        run(tool("vite"), ["build"], at);
        return join(at, "dist");
      },
      webpack: (/** @type {string} */ at) => {
        run(tool("webpack"), [], at);
        cpSync(join(at, "index.html"), join(at, "dist/index.html"));
        return join(at, "dist");
      },
      next: (/** @type {string} */ at) => {
        run("npm", ["ci", "--no-audit", "--no-fund"], at);
        cpSync(join(folder, "node_modules/tigret"), join(at, "node_modules/tigret"), {
          recursive: true,
        });
        // Beside the example's page one that is rendered where it is built.
        mkdirSync(join(at, "app/server"));
        writeFileSync(
          join(at, "app/server/page.js"),
          `import { Recommender } from "tigret";
          export default async function Page() {
            const recommender = await Recommender.load(${JSON.stringify(bundle)});
            const { engine, picks } = await recommender.report({ history: [] });
            return \`\${picks.length} for you, by \${engine}\`;
          }`,
        );
        run(join(at, "node_modules/.bin/next"), ["build"], at);
        const rendered = readFileSync(join(at, "out/server.html"), "utf8");
        assert.ok(rendered.includes("20 for you, by cpu"), rendered);
        return join(at, "out");
      },
      esbuild: (/** @type {string} */ at) => {
        run(tool("esbuild"), ["main.js", "--bundle", "--format=esm", "--outdir=dist"], at);
        cpSync(join(at, "index.html"), join(at, "dist/index.html"));
        return join(at, "dist");
      },
    };

    for (const [name, build] of Object.entries(builds)) {
      test(`the example ${name} recommends`, async () => {
        const at = join(folder, name);
        cpSync(join(packageFolder, "examples", name), at, { recursive: true });
        const own = join(at, "package.json");
        if (!existsSync(own)) writeFileSync(own, '{ "type": "module" }');
        const built = build(at);
        cpSync(bundle, join(built, "model.safetensors"));
        const server = await serve({ "/": built });
        const page = await browser.newPage();
        /** @type {string[]} */
        const errors = [];
        page.on("pageerror", (error) => errors.push(error.message));
        await page.goto(`${server.url}/index.html`);
        try {
          await page.waitForFunction("document.title === '20 for you'", null, { timeout: 30_000 });
        } catch (error) {
          throw new Error(`${error}\n${errors.join("\n")}\n${server.requests.join("\n")}`);
        }
        assert.equal(await page.locator("#picks li").count(), 20);
        await page.close();
        await server.close();
      });
    }
  });
});
