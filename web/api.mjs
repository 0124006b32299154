/**
 * Writes the reference of the package's face, docs/api.md, from the declarations that the build
 * makes: `npm run build && npm run api`.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const dist = new URL("dist/", import.meta.url);
const reference = new URL("../docs/api.md", import.meta.url);

/** @param {string} name @returns {string} */
const declarations = (name) => readFileSync(new URL(`${name}.d.ts`, dist), "utf8");

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

/** A declaration with the comment before it, without what is private. @param {string} file @param {string} name */
function declaration(file, name) {
  const text = declarations(file);
  const start = new RegExp(`^export (?:declare )?(?:abstract )?\\w+ ${name}\\b`, "m").exec(text);
  if (!start) throw new Error(`${file}.d.ts does not declare ${name}`);
  const before = text.slice(0, start.index);
  const comment = /\/\*\*(?:(?!\*\/)[\s\S])*\*\/\n$/.exec(before)?.[0] ?? "";
  const rest = text.slice(start.index);
  // A declaration ends with the first line that closes it at the margin.
  const end = /^(?:\}.*|export [^{;]*;)$/m.exec(rest);
  const body = rest.slice(0, end ? end.index + end[0].length : undefined);
  const code = body
    .replace(/^ {4}(?:#private|private constructor.*);\n/gm, "")
    .replace(/^export (?:declare )?/, "")
    .replace(/^ {4}/gm, "  ");
  return { words: inWords(comment), code };
}

/** A comment as Markdown. @param {string} comment */
function inWords(comment) {
  return comment
    .replace(/^\/\*\*\s?|\s*\*\/\s*$/g, "")
    .replace(/^ \* ?/gm, "")
    .replace(/\{@link (?:\w+\.)?(\w+)\}/g, "`$1`")
    .trim();
}

/** The whole page. */
export function page() {
  const parts = exported().flatMap(([file, names]) =>
    names.map((name) => ({ name, ...declaration(file, name) })),
  );
  parts.sort((a, b) => rank(a.name) - rank(b.name) || a.name.localeCompare(b.name));
  const sections = parts.map(
    ({ name, words, code }) =>
      `## ${name}\n\n${words ? `${words}\n\n` : ""}\`\`\`typescript\n${code}\n\`\`\`\n`,
  );
  return `# Reference of the npm package\n\nMade from the types by \`npm run api\` in \`web/\`. For what to do with it, see the [guides](guides/page.md).\n\n${sections.join("\n")}`;
}

/** The classes come first. @param {string} name */
function rank(name) {
  const place = ["Recommender", "HistoryStore", "TigretError", "forget"].indexOf(name);
  return place < 0 ? 9 : place;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(reference, page());
