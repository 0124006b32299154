/** New arrivals: items that the model does not know, which the visitor adds to the catalogue. */

import type { Recommender } from "tigret";
import type { CatalogueView } from "./catalogue.js";
import { byId, onEntryClick, replaceEntries } from "./dom.js";
import type { Arrival, Item } from "./items.js";
import { arrivalEntry } from "./views.js";

/** What the page does. */
interface Hooks {
  /** An item is in the model's catalogue, from where it can be recommended. */
  added(item: Item): Promise<void>;
  failed(error: unknown): void;
}

export class Arrivals {
  readonly #section = byId("arrivals", HTMLElement);
  readonly #list = byId("arrival-list", HTMLUListElement);
  readonly #catalogue: CatalogueView;
  readonly #hooks: Hooks;
  #recommender: Recommender | undefined;
  #all: readonly Arrival[] = [];
  /** The semantic IDs of those that were added. */
  readonly #given = new Map<string, readonly number[]>();
  /** What is being added: a second click adds nothing. */
  readonly #adding = new Set<string>();

  constructor(catalogue: CatalogueView, hooks: Hooks) {
    this.#catalogue = catalogue;
    this.#hooks = hooks;
    onEntryClick(this.#list, (id) => void this.#add(id));
  }

  /** Offers new items for a model's catalogue. */
  offer(arrivals: readonly Arrival[], recommender: Recommender): void {
    this.#all = arrivals;
    this.#recommender = recommender;
    this.show();
  }

  show(): void {
    this.#section.hidden = this.#all.length === 0;
    const codes = (id: string) => this.#given.get(id) ?? null;
    const entries = this.#all.map(({ item }) => arrivalEntry(item, codes(item.id)));
    replaceEntries(this.#list, entries, this.#catalogue);
  }

  /** The new item with this id. */
  itemOf(id: string): Item | undefined {
    return this.#all.find(({ item }) => item.id === id)?.item;
  }

  async #add(id: string): Promise<void> {
    const arrival = this.#all.find(({ item }) => item.id === id);
    const recommender = this.#recommender;
    if (!arrival || !recommender || this.#given.has(id) || this.#adding.has(id)) return;
    const { item, embedding } = arrival;
    this.#adding.add(id);
    try {
      const [added] = await recommender.addItems([{ id, embedding }]);
      this.#given.set(id, added?.codes ?? []);
      await this.#hooks.added(item);
    } catch (error) {
      this.#hooks.failed(error);
    } finally {
      this.#adding.delete(id);
    }
  }
}
