/** Listeners by the name of an event. */
export class Events<Map extends object> {
  readonly #listeners = new globalThis.Map<keyof Map, Set<(detail: never) => void>>();

  /** Adds a listener and returns what takes it away again. */
  on<Name extends keyof Map>(name: Name, listener: (detail: Map[Name]) => void): () => void {
    const all = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, all);
    all.add(listener);
    return () => void all.delete(listener);
  }

  /** Calls the listeners; what one throws is reported, and stops no other. */
  emit<Name extends keyof Map>(name: Name, detail: Map[Name]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        (listener as (detail: Map[Name]) => void)(detail);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
