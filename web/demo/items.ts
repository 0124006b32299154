/** The items of the page: read from `items.jsonl`, described for people, searched. */

import { hueOf } from "./hue.js";

/** An item as a visitor sees it. */
export interface Item {
  id: string;
  title: string;
  /** Author and year, or brand: what stands under the title. */
  byline: string;
  /** Subjects or categories, the main one first. */
  tags: string[];
  /** 0 to 359; items of one author or brand share a colour. */
  hue: number;
  /** Lower-case text that the search looks into. */
  text: string;
}

type Fields = Record<string, unknown>;

/** As it stands: the bundle's ids have their blanks, too. */
function plain(value: unknown): string {
  if (typeof value === "number") return String(value);
  return typeof value === "string" ? value : "";
}

function text(value: unknown): string {
  return plain(value).trim();
}

function texts(value: unknown): string[] {
  return Array.isArray(value) ? value.map(text).filter(Boolean) : [];
}

/** Where categories stand; the first that an item has counts. */
const CATEGORIES = ["categories", "category", "genres", "genre"];

/** The paths of a field: of steps, of lists of them, or of text as tables have it. */
function paths(value: unknown): string[][] {
  if (Array.isArray(value))
    return value.flatMap((path) => (Array.isArray(path) ? [texts(path)] : paths(path)));
  const written = text(value);
  return written.split("|").map((path) => texts(path.split(" > ")));
}

/** The most specific names of the category paths, without the root that all share. */
function categories(fields: Fields): string[] {
  const field = CATEGORIES.find((name) => paths(fields[name]).flat().length > 0) ?? "";
  return [...new Set(paths(fields[field]).flatMap((path) => path.slice(-2).reverse()))];
}

function hash(name: string): number {
  let hash = 0;
  for (const letter of name) hash = (hash * 31 + letter.charCodeAt(0)) >>> 0;
  return hash;
}

function describe(fields: Fields): Item {
  const id = plain(fields.id);
  const maker = text(fields.author) || text(fields.brand);
  const year = text(fields.year);
  const subjects = texts(fields.subjects);
  const tags = subjects.length > 0 ? subjects : categories(fields);
  const title =
    text(fields.title) ||
    text(fields.keywords) ||
    [maker, tags[0]].filter(Boolean).join(" · ") ||
    `Item ${id}`;
  const byline = [maker, year].filter(Boolean).join(" · ");
  return {
    id,
    title,
    byline,
    tags,
    hue: hueOf(hash(maker || tags[0] || id)),
    text: [title, byline, ...tags, id].join(" ").toLocaleLowerCase(),
  };
}

/** An item of `new.jsonl`: one that the model has not seen, with its content vector. */
export interface Arrival {
  item: Item;
  embedding: number[];
}

/** All tags with how many items have each, the most frequent first. */
export function tagCounts(items: readonly Item[]): [string, number][] {
  const counts = new Map<string, number>();
  for (const tag of items.flatMap((item) => [...new Set(item.tags)])) {
    counts.set(tag, (counts.get(tag) ?? 0) + 1);
  }
  return [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0]));
}

/** The lines of a file of items. Throws with the number of a line that cannot be read. */
function parseLines(jsonl: string): { item: Item; fields: Fields }[] {
  return jsonl.split("\n").flatMap((line, index) => {
    if (line.trim() === "") return [];
    let fields: Fields;
    try {
      fields = (JSON.parse(line) ?? {}) as Fields;
    } catch (cause) {
      throw new Error(`line ${index + 1}: ${(cause as Error).message}`);
    }
    const item = describe(fields);
    if (item.id === "") throw new Error(`line ${index + 1}: there is no "id"`);
    return [{ item, fields }];
  });
}

/** Reads an `items.jsonl`. Throws with the number of a line that cannot be read. */
export function parseItems(jsonl: string): Item[] {
  return parseLines(jsonl).map(({ item }) => item);
}

/** Reads a `new.jsonl`, as {@link parseItems} does; items without a vector are left out. */
export function parseArrivals(jsonl: string): Arrival[] {
  return parseLines(jsonl).flatMap(({ item, fields: { embedding } }) =>
    Array.isArray(embedding) ? [{ item, embedding }] : [],
  );
}

/** The items that contain every word of `query`, in their order. */
export function search(items: readonly Item[], query: string): Item[] {
  const words = query.toLocaleLowerCase().split(/\s+/).filter(Boolean);
  return items.filter((item) => words.every((word) => item.text.includes(word)));
}
