import { expect, test } from "vitest";
import { parseArrivals, parseItems, search } from "../demo/items.js";

const BOOK = { id: "emma", title: "Emma", author: "Jane Austen", year: 1815, subjects: ["satire"] };
const WARE = {
  id: "7",
  title: null,
  brand: "Acme",
  categories: [["Sports", "Outdoor", "Tents"]],
};

const lines = (...items: unknown[]) => items.map((item) => JSON.stringify(item)).join("\n");

test("books and wares are described by what there is", () => {
  const [book, ware, bare] = parseItems(lines(BOOK, WARE, { id: 8 }));
  expect(book).toMatchObject({ title: "Emma", byline: "Jane Austen · 1815", tags: ["satire"] });
  expect(ware).toMatchObject({ title: "Acme · Tents", byline: "Acme", tags: ["Tents", "Outdoor"] });
  expect(bare).toMatchObject({ id: "8", title: "Item 8", byline: "", tags: [] });
});

test("categories are paths, lists or text", () => {
  const of = (fields: object) => parseItems(lines({ id: "a", ...fields }))[0]?.tags;
  expect(of({ categories: "Home > Kitchen > Pans" })).toEqual(["Pans", "Kitchen"]);
  expect(of({ genres: "Comedy|War" })).toEqual(["Comedy", "War"]);
  expect(of({ categories: [], category: ["Tea > Green", "Gifts"] })).toEqual([
    "Green",
    "Tea",
    "Gifts",
  ]);
  expect(of({ categories: null, genre: " " })).toEqual([]);
});

test("an id is taken as the bundle has it, what is shown without the blanks around it", () => {
  const [item] = parseItems(lines({ id: " a\t", title: " Emma " }));
  expect(item).toMatchObject({ id: " a\t", title: "Emma" });
});

test("a search finds the items that have every word", () => {
  const items = parseItems(lines(BOOK, WARE));
  expect(search(items, "austen SATIRE").map(({ id }) => id)).toEqual(["emma"]);
  expect(search(items, "austen tents")).toEqual([]);
  expect(search(items, "  ")).toHaveLength(2);
});

test("a broken line is named", () => {
  expect(() => parseItems('{"id":"a"}\n{')).toThrow("line 2");
  expect(() => parseItems("{}")).toThrow('line 1: there is no "id"');
});

test("new items come with their vectors", () => {
  const jsonl = `\n${lines({ ...BOOK, embedding: [1, 2] }, WARE)}\n`;
  const arrivals = parseArrivals(jsonl);
  expect(arrivals.map(({ item, embedding }) => [item.id, embedding])).toEqual([["emma", [1, 2]]]);
  expect(() => parseArrivals('{"id":"a"}\n{"embedding":[1]}')).toThrow('line 2: there is no "id"');
});
