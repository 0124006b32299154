/** The catalogue on the page: searched, paged, with what is liked pressed. */

import { count } from "./about.js";
import { byId, onEntryClick, replaceEntries, setHidden } from "./dom.js";
import { type Item, search } from "./items.js";
import { catalogueEntry } from "./views.js";

/** Entries that are added at a time. */
const PAGE = 60;

export class CatalogueView {
  readonly #section = byId("catalogue", HTMLElement);
  readonly #list = byId("items", HTMLUListElement);
  readonly #search = byId("search", HTMLInputElement);
  readonly #count = byId("count", HTMLSpanElement);
  readonly #more = byId("more", HTMLButtonElement);
  #items: readonly Item[] = [];
  #found: Item[] = [];
  #shown = 0;
  #liked: ReadonlySet<string> = new Set();

  constructor(onToggle: (id: string) => void) {
    onEntryClick(this.#list, onToggle);
    this.#search.addEventListener("input", () => this.#searchAgain());
    this.#more.addEventListener("click", () => this.#showMore());
    new IntersectionObserver(
      (entries) => {
        if (entries.some((entry) => entry.isIntersecting)) this.#showMore();
      },
      { rootMargin: "400px" },
    ).observe(this.#more);
  }

  setItems(items: readonly Item[]): void {
    this.#items = items;
    this.#searchAgain();
  }

  setLiked(ids: Iterable<string>): void {
    this.#liked = new Set(ids);
    for (const button of this.#list.querySelectorAll<HTMLButtonElement>("button[data-id]")) {
      button.setAttribute("aria-pressed", String(this.#liked.has(button.dataset.id ?? "")));
    }
  }

  focus(options?: FocusOptions): void {
    this.#section.focus(options);
  }

  #searchAgain(): void {
    this.#found = search(this.#items, this.#search.value);
    this.#shown = 0;
    replaceEntries(this.#list, this.#next(), this);
    const all = count(this.#items.length, "item");
    this.#count.textContent =
      this.#found.length === this.#items.length
        ? all
        : `${this.#found.length.toLocaleString("en")} of ${all}`;
  }

  #showMore(): void {
    this.#list.append(...this.#next());
  }

  /** The entries of the next page. */
  #next(): HTMLLIElement[] {
    const next = this.#found.slice(this.#shown, this.#shown + PAGE);
    this.#shown += next.length;
    setHidden(this.#more, this.#shown >= this.#found.length, this);
    return next.map((item) => catalogueEntry(item, this.#liked.has(item.id)));
  }
}
