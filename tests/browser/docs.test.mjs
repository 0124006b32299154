/** The documentation: every TypeScript snippet compiles and runs, and the reference is current. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, relative } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { launch, packageFolder, parityFolder, serve } from "./support.mjs";

const root = fileURLToPath(new URL("../../", import.meta.url));
const guides = join(root, "docs/guides");
const pages = [
  join(root, "README.md"),
  join(packageFolder, "README.md"),
  ...readdirSync(guides).map((name) => join(guides, name)),
];

/** What the snippets take as given. */
const GIVEN = `
declare const history: string[];
declare const vector: Float32Array;
`;

/** The snippets of a page, one behind the other; an import that they repeat stands once. @param {string} page */
function snippets(page) {
  const text = readFileSync(page, "utf8");
  const code = [...text.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, snippet = ""]) => snippet);
  /** @type {Set<string>} */
  const names = new Set();
  const bodies = code.map((snippet) =>
    snippet.replace(/^import \{ ([^}]*) \} from "tigret";\n/gm, (_, list) => {
      for (const name of list.split(", ")) names.add(name);
      return "";
    }),
  );
  if (bodies.length === 0) return null;
  const whole = bodies.join("\n");
  return `import { ${[...names].join(", ")} } from "tigret";\n${whole}`;
}

const documented = pages.flatMap((page) => {
  const code = snippets(page);
  return code ? [{ name: relative(root, page), code }] : [];
});

describe("the documentation", () => {
  // Inside the package's folder, where the compiler finds its settings.
  const folder = mkdtempSync(join(packageFolder, ".snippets-"));
  after(() => rmSync(folder, { recursive: true, force: true }));

  test("the reference is what the types say", async () => {
    const { page } = await import(pathToFileURL(join(packageFolder, "api.mjs")).href);
    const current = readFileSync(join(root, "docs/api.md"), "utf8");
    assert.equal(current, page(), "run `npm run api` in web/");
  });

  test("samples name items that the demo's model has", () => {
    const classics = readFileSync(join(root, "native-train/src/data/classics.csv"), "utf8");
    const known = new Set(classics.split("\n").map((line) => line.split(",")[0]));
    const sampled = ["README.md", "web/README.md", "docs/recommend.md"].flatMap((page) => {
      const text = readFileSync(join(root, page), "utf8");
      const lists = text.matchAll(
        /(?:history"?|allow"|exclude"): \[([^\]]*)\]|\.add\("([^"]*)"\)/g,
      );
      return [...lists].flatMap(([, list, one]) =>
        list === undefined ? [one] : [...list.matchAll(/"([^"]*)"/g)].map(([, id]) => id),
      );
    });
    assert.ok(sampled.length >= 8, `${sampled}`);
    assert.deepEqual(
      sampled.filter((id) => !known.has(id)),
      [],
    );
  });

  test("every snippet compiles", () => {
    assert.ok(documented.length >= 5);
    for (const [index, { code }] of documented.entries()) {
      writeFileSync(join(folder, `snippet-${index}.ts`), `${GIVEN}${code}\nexport {};\n`);
    }
    const settings = {
      extends: "../tsconfig.json",
      compilerOptions: { paths: { tigret: ["../dist/index.d.ts"] }, noUnusedLocals: false },
      include: ["*.ts"],
    };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(settings));
    try {
      execFileSync(join(packageFolder, "node_modules/.bin/tsc"), ["-p", folder], { stdio: "pipe" });
    } catch (error) {
      const names = documented.map(({ name }, index) => `snippet-${index}.ts is ${name}`);
      const { stdout } = /** @type {{ stdout: Buffer }} */ (error);
      assert.fail([stdout.toString(), ...names].join("\n"));
    }
  });

  describe("in Chromium", { skip: parityFolder ? false : "TIGRET_PARITY_DIR is not set" }, () => {
    /** @type {Awaited<ReturnType<typeof serve>>} */
    let server;
    /** @type {Awaited<ReturnType<typeof launch>>} */
    let browser;
    /** @type {{ bundle: string, add: { embedding: number[] }[] }} */
    let fixture;

    before(async () => {
      const parity = parityFolder ?? "";
      fixture = JSON.parse(readFileSync(join(parity, "new-items.json"), "utf8"));
      const bundle = readFileSync(join(parity, fixture.bundle));
      server = await serve(
        { "/package/": packageFolder },
        { "/model.safetensors": (_, response) => void response.end(bundle) },
      );
      browser = await launch();
    });

    after(async () => {
      await browser?.close();
      await server?.close();
    });

    for (const { name, code } of documented) {
      test(`the snippets of ${name} run`, async () => {
        const esbuild = createRequire(join(packageFolder, "package.json"))("esbuild");
        const { code: script } = await esbuild.transform(code, { loader: "ts", format: "esm" });
        const page = await browser.newPage();
        await page.goto(`${server.url}/blank.html`);
        const outcome = await page.evaluate(
          async ({ script, embedding }) => {
            const given = { history: [], vector: new Float32Array(embedding) };
            const body = script
              .replace(/import \{([^}]*)\} from "tigret";/, "const {$1} = tigret;")
              .replace(/export \{\};?/, "");
            const tigret = await import("/package/dist/index.js");
            const run = new Function(
              "tigret",
              "history",
              "vector",
              `return (async () => { ${body} })()`,
            );
            try {
              await run(tigret, given.history, given.vector);
              return "ran";
            } catch (error) {
              return String(error);
            }
          },
          { script, embedding: fixture.add[0]?.embedding ?? [] },
        );
        assert.equal(outcome, "ran");
        await page.close();
      });
    }
  });
});
