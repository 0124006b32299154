/**
 * Rolls the declarations of the package's face up into dist/index.d.ts, so that it is published
 * with no types but those: the others ask for newer compilers than a page may have. Part of
 * `npm run build`.
 */

import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const dist = fileURLToPath(new URL("dist/", import.meta.url));
/** The entries of the package. */
const ENTRIES = ["index.d.ts", "inline.d.ts", "worker.d.ts"];

/** @param {string} name @returns {string} */
const declarations = (name) => readFileSync(`${dist}${name}.d.ts`, "utf8");

/** What `index.d.ts` exports: the names of each file, in order. @returns {[string, string[]][]} */
function exported() {
  const lines = declarations("index").matchAll(
    /^export (?:type )?\{([^}]*)\} from "\.\/(.*)\.js";$/gm,
  );
  return [...lines].map(([, names = "", file = ""]) => [
    file,
    names
      .split(",")
      .map((name) => name.trim().replace(/^type /, ""))
      .filter(Boolean),
  ]);
}

/** A declaration with the comment before it. @param {string} file @param {string} name */
function declaration(file, name) {
  const text = declarations(file);
  const start = new RegExp(`^export (?:declare )?(?:abstract )?\\w+ ${name}\\b`, "m").exec(text);
  if (!start) throw new Error(`${file}.d.ts does not declare ${name}`);
  const comment = /\/\*\*(?:(?!\*\/)[\s\S])*\*\/\n$/.exec(text.slice(0, start.index))?.[0] ?? "";
  const rest = text.slice(start.index);
  // A declaration ends with the first line that closes it at the margin.
  const end = /^(?:\}.*|export [^{;]*;)$/m.exec(rest);
  return comment + rest.slice(0, end ? end.index + end[0].length : undefined);
}

const face = exported().flatMap(([file, names]) => names.map((name) => declaration(file, name)));
for (const name of readdirSync(dist)) {
  if (name.endsWith(".d.ts") && !ENTRIES.includes(name)) rmSync(dist + name);
}
// An empty line stands between two declarations and nowhere else.
writeFileSync(`${dist}index.d.ts`, `${face.join("\n\n")}\n`);
