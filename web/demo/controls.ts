/** What the visitor asks for: how wide a search, how diverse, of which tag, and on which engine. */

import type { Backend, RecommendOptions } from "tigret";
import { byId, make } from "./dom.js";
import { type Item, tagCounts } from "./items.js";

const TOP = 20;
const BEAMS = [5, 10, 20, 50, 100, 200, 350, 512];
/** Temperatures of the slider; the first place is the best, without a sample. */
const TEMPERATURES = [null, 0.5, 0.8, 1, 1.5, 2, 3];
/** Tags that the filter offers. */
const TAGS = 40;

export interface Listener {
  /** Other items are wanted. */
  changed(): void;
  /** Another engine is. */
  chosen(backend: Backend): void;
}

export class Controls {
  readonly #only = byId("only", HTMLSelectElement);
  readonly #diversity = byId("diversity", HTMLInputElement);
  readonly #diversityValue = byId("diversity-value", HTMLOutputElement);
  readonly #again = byId("again", HTMLButtonElement);
  readonly #beams = byId("beams", HTMLInputElement);
  readonly #beamsValue = byId("beams-value", HTMLOutputElement);
  readonly #backends = byId("backends", HTMLDivElement);
  #seed = 1;

  constructor({ changed, chosen }: Listener) {
    this.#only.addEventListener("change", changed);
    this.#again.addEventListener("click", () => {
      this.#seed++;
      changed();
    });
    for (const slider of [this.#diversity, this.#beams]) {
      slider.addEventListener("input", () => {
        this.#showSliders();
        changed();
      });
    }
    this.#backends.addEventListener("change", () => chosen(this.backend));
    this.#showSliders();
  }

  get backend(): Backend {
    const input = this.#backends.querySelector("input:checked");
    return input instanceof HTMLInputElement ? (input.value as Backend) : "auto";
  }

  set backend(backend: Backend) {
    const input = this.#backends.querySelector(`input[value=${backend}]`);
    if (input instanceof HTMLInputElement) input.checked = true;
  }

  /** Offers the most frequent tags of these items. */
  offerTags(items: readonly Item[]): void {
    const tags = tagCounts(items).filter(([, number]) => number > 1);
    const choices = tags.slice(0, TAGS).map(([tag, number]) => {
      const choice = make("option", "", `${tag} (${number})`);
      choice.value = tag;
      return choice;
    });
    this.#only.append(...choices);
  }

  /** What is wanted of a catalogue of these items. */
  options(items: readonly Item[]): RecommendOptions {
    const [beams, temperature, tag] = [this.#width, this.#temperature, this.#only.value];
    return {
      beams,
      top: Math.min(TOP, beams),
      ...(temperature !== null && { temperature, seed: this.#seed }),
      ...(tag && { allow: items.filter((item) => item.tags.includes(tag)).map(({ id }) => id) }),
    };
  }

  get #width(): number {
    return BEAMS[this.#beams.valueAsNumber] ?? 50;
  }

  get #temperature(): number | null {
    return TEMPERATURES[this.#diversity.valueAsNumber] ?? null;
  }

  /** Shows what the sliders stand for, whose own values are places in a list. */
  #showSliders(): void {
    const temperature = this.#temperature;
    this.#diversityValue.value = temperature === null ? "best" : String(temperature);
    this.#diversity.setAttribute("aria-valuetext", this.#diversityValue.value);
    this.#again.hidden = temperature === null;
    this.#beamsValue.value = String(this.#width);
    this.#beams.setAttribute("aria-valuetext", this.#beamsValue.value);
  }
}
