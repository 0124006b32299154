import { shown, TigretError } from "./errors.js";

/** Calls a listener; what it throws is reported as the page's own error, and stops nothing else. */
export function tell<Detail>(listener: (detail: Detail) => void, detail: Detail): void {
  try {
    listener(detail);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}

/** Listeners by the name of an event. */
export class Events<Map extends object> {
  /** In boxes of their own: what is added twice is called twice, and each is taken away alone. */
  readonly #listeners: globalThis.Map<keyof Map, Set<{ listener: (detail: never) => void }>>;

  constructor(...names: (keyof Map)[]) {
    this.#listeners = new globalThis.Map(names.map((name) => [name, new Set()]));
  }

  /** Adds a listener and returns what takes it away again. Throws with code `bad-request`. */
  on<Name extends keyof Map>(name: Name, listener: (detail: Map[Name]) => void): () => void {
    const all = this.#listeners.get(name);
    if (!all) {
      const known = [...this.#listeners.keys()].join(", ");
      throw new TigretError(
        "bad-request",
        `there is no event ${shown(name)}; the events are ${known}`,
      );
    }
    if (typeof listener !== "function") {
      throw new TigretError("bad-request", `the listener is ${shown(listener)}, not a function`);
    }
    const added = { listener };
    all.add(added);
    return () => void all.delete(added);
  }

  /** Whether anybody listens. */
  hears(name: keyof Map): boolean {
    return (this.#listeners.get(name)?.size ?? 0) > 0;
  }

  /** Calls the listeners. */
  emit<Name extends keyof Map>(name: Name, detail: Map[Name]): void {
    for (const { listener } of [...(this.#listeners.get(name) ?? [])]) {
      tell(listener as (detail: Map[Name]) => void, detail);
    }
  }
}
