/** What the lists of the page look like. */

import type { Pick } from "tigret";
import { make } from "./dom.js";
import { hueOf } from "./hue.js";
import type { Item } from "./items.js";

/** A small coloured cover with the title's first letters. */
function cover(item: Item): HTMLElement {
  const initials = item.title
    .split(/\s+/)
    .filter((word) => /^[\p{Lu}\p{N}]/u.test(word) && !/^(the|an?)$/i.test(word))
    .slice(0, 2)
    .map((word) => [...word][0])
    .join("");
  const element = make("span", "cover", initials || ([...item.title][0] ?? "·"));
  element.style.setProperty("--hue", String(item.hue));
  element.setAttribute("aria-hidden", "true");
  return element;
}

function words(item: Item): HTMLElement {
  const element = make("span", "words", make("span", "title", item.title));
  if (item.byline) element.append(make("span", "byline", item.byline));
  return element;
}

/** A new item, before it is in the catalogue and after. */
export function arrivalEntry(item: Item, codes: readonly number[] | null): HTMLLIElement {
  const entry = make("li", "arrival", cover(item), words(item));
  if (codes === null) {
    const add = make("button", "quiet", "Add");
    add.type = "button";
    add.dataset.id = item.id;
    add.setAttribute("aria-label", `Add ${item.title} to the catalogue`);
    entry.append(add);
  } else {
    const told = make("span", "semantic-id", codes.join(" · "));
    told.title = "Its semantic ID, given on this device";
    entry.append(told);
  }
  return entry;
}

/** An entry of the catalogue; pressed while it is liked. */
export function catalogueEntry(item: Item, liked: boolean): HTMLLIElement {
  const button = make("button", "item", cover(item), words(item));
  button.type = "button";
  button.dataset.id = item.id;
  button.setAttribute("aria-pressed", String(liked));
  if (item.tags.length > 0) {
    const tags = make("span", "tags", ...item.tags.slice(0, 3).map((tag) => make("span", "", tag)));
    button.querySelector(".words")?.append(tags);
  }
  return make("li", "", button);
}

/** A liked item with a button that takes it back. */
export function historyEntry(item: Item): HTMLLIElement {
  const remove = make("button", "remove", "×");
  remove.type = "button";
  remove.dataset.id = item.id;
  remove.setAttribute("aria-label", `Remove ${item.title}`);
  return make("li", "", make("span", "title", item.title), remove);
}

/**
 * A recommended item. The bar is the item's probability against that of the best one; the
 * squares are its semantic ID, a colour a code: items with a common beginning are alike.
 */
export function pickEntry(item: Item, pick: Pick, best: number): HTMLLIElement {
  const button = make("button", "item", cover(item), words(item));
  button.type = "button";
  button.dataset.id = item.id;
  button.title = `Like ${item.title}`;
  const bar = make("span", "bar");
  bar.style.setProperty("--part", String(Math.exp(pick.score - best)));
  const code = make("span", "code");
  for (const value of pick.codes) {
    const square = make("i");
    square.style.setProperty("--hue", String(hueOf(value)));
    code.append(square);
  }
  const score = make("span", "score", bar, code);
  button.querySelector(".words")?.append(make("span", "reason"));
  score.title = `log-probability ${pick.score.toFixed(3)}, semantic ID ${pick.codes.join("·")}`;
  score.setAttribute("aria-hidden", "true");
  button.append(score);
  return make("li", "", button);
}
