/**
 * Writes the reference of the package's face, docs/api.md, from the declarations that the build
 * makes: `npm run build && npm run api`.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const types = new URL("dist/index.d.ts", import.meta.url);
const reference = new URL("../docs/api.md", import.meta.url);

/** The declarations, with their comments, without what is private. */
function declarations() {
  const parts = readFileSync(types, "utf8").trim().split("\n\n");
  return parts.map((part) => {
    const [comment = ""] = /^\/\*\*[\s\S]*?\*\/\n/.exec(part) ?? [];
    const code = part
      .slice(comment.length)
      .replace(/^ {4}(?:#private|private constructor.*);\n/gm, "")
      .replace(/^export (?:declare )?/, "")
      .replace(/^ {4}/gm, "  ");
    const [, name = ""] = /^(?:abstract )?\w+ (\w+)/.exec(code) ?? [];
    return { name, words: inWords(comment), code };
  });
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
  const parts = declarations();
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
