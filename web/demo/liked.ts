/**
 * What the visitor liked: shown at once, stored on the device a moment later, the same in all tabs. A
 * history that came with a link is shown in its place, and stored only if the visitor says so.
 */

import { HistoryStore } from "tigret";

export interface Listener {
  /** Other ids are to be shown. */
  changed(): void;
  /** Whether there are changes that the device has not stored yet. */
  storing(busy: boolean): void;
  /** The device could not read or store. */
  failed(error: unknown): void;
}

export class Liked {
  readonly #store: HistoryStore;
  readonly #listener: Listener;
  #ids: readonly string[] = [];
  #shared = false;
  /** The last change: each waits for the one before it. */
  #last: Promise<void> = Promise.resolve();
  /** Changes that are not stored yet. */
  #storing = 0;

  constructor(name: string, listener: Listener) {
    this.#store = new HistoryStore(name);
    this.#listener = listener;
  }

  /** Oldest first. */
  get ids(): readonly string[] {
    return this.#ids;
  }

  /** Whether it came with a link: nothing of it is stored then, nor what is changed in it. */
  get isShared(): boolean {
    return this.#shared;
  }

  /** Shows what the device keeps. Rejects where that cannot be read. */
  async showOwn(): Promise<void> {
    await this.#last;
    this.#show(await this.#store.list());
  }

  /** Shows what other tabs store, from now on. */
  follow(): void {
    this.#store.onChange(() => void this.#showChange().catch(this.#listener.failed));
  }

  showShared(ids: readonly string[]): void {
    this.#show(ids, true);
  }

  /** Stores the shared history in place of the visitor's own. */
  keep(): void {
    const ids = this.#ids;
    this.#show(ids);
    this.#change(() => this.#store.replace(ids)).catch(this.#listener.failed);
  }

  toggle(id: string): void {
    const known = this.#ids.includes(id);
    const ids = known ? this.#ids.filter((other) => other !== id) : [...this.#ids, id];
    this.#show(ids, this.#shared);
    if (this.#shared) return;
    this.#change(() => (known ? this.#store.remove(id) : this.#store.add(id))).catch(
      this.#listener.failed,
    );
  }

  /** Removes everything. Rejects where the device does not. */
  clear(): Promise<void> {
    this.#show([]);
    return this.#change(() => this.#store.clear());
  }

  #show(ids: readonly string[], shared = false): void {
    this.#ids = ids;
    this.#shared = shared;
    this.#listener.changed();
  }

  async #showChange(): Promise<void> {
    const ids = await this.#store.list();
    // What this tab changed is shown already, and is told of once it is stored.
    const isOld = this.#shared || this.#storing > 0;
    if (!isOld && !isSame(ids, this.#ids)) this.#show(ids);
  }

  #change(change: () => Promise<void>): Promise<void> {
    this.#storing += 1;
    this.#listener.storing(true);
    const stored = this.#last.then(change).finally(() => {
      this.#storing -= 1;
      if (this.#storing === 0) this.#listener.storing(false);
    });
    this.#last = stored.catch(() => {});
    return stored;
  }
}

/** Whether two histories have the same ids in the same order. */
export function isSame(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((id, index) => id === b[index]);
}
