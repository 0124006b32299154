/** What the visitor liked, kept on the device: in IndexedDB, or in memory where that is denied. */

import { announce, channelOf } from "./channel.js";
import { erasuresSoFar, isForgotten } from "./erasure.js";
import { reasonOf, shown, TigretError } from "./errors.js";
import { Events } from "./events.js";
import { checkId, checkIds, checkString } from "./ids.js";
import { after, within } from "./timeouts.js";

/** One liked item. */
export interface HistoryEntry {
  id: string;
  /** When it was added, in milliseconds since 1970. */
  at: number;
}

/** Name of the database. */
export const DATABASE = "tigret";
const STORE = "histories";
/**
 * Milliseconds that it may take to open, behind a deletion that another tab holds up, and then to
 * answer, behind a transaction of another script.
 */
const LIMIT = 5000;
/** Milliseconds that the browser may take to say which databases there are. */
const LISTING = 1000;

/** The entries by the history's name where IndexedDB is denied: all stores of the page have the same. */
const memory = new Map<string, HistoryEntry[]>();

/** Nothing was ever written, or it was deleted. */
const ABSENT = "absent";
/** Null where IndexedDB is denied. */
type Opened = IDBDatabase | typeof ABSENT | null;
/** What is done with a history. */
type Access = "read" | "shrink" | "grow";

/**
 * A history under a name, oldest first. Nothing of it leaves the device.
 *
 * Tabs of the same origin share it: a change in one is announced to the others.
 */
export class HistoryStore {
  readonly #name: string;
  readonly #events = new Events<{ change: undefined }>("change");
  #database: Promise<Opened> = Promise.resolve(ABSENT);
  /** Connections that are closed: the next call opens another one. */
  readonly #closed = new WeakSet<IDBDatabase>();
  #channel: BroadcastChannel | undefined;
  readonly #changed = () => this.#events.emit("change", undefined);
  /** A page that was kept for the way back has heard nothing meanwhile. */
  readonly #cameBack = (event: Event) => {
    if ((event as PageTransitionEvent).persisted) this.#changed();
  };

  /** Throws a {@link TigretError} (`bad-request`) for a name that is empty or no string. */
  constructor(name = "default") {
    if (typeof name !== "string" || name === "") {
      const message = `the history's name is ${shown(name)}, not a string of at least one character`;
      throw new TigretError("bad-request", message);
    }
    this.#name = name;
  }

  /** Frameworks that wrap plain objects in proxies, which have no private fields, leave others alone. */
  get [Symbol.toStringTag](): string {
    return "HistoryStore";
  }

  /**
   * Whether it outlives the page: not in private windows that deny IndexedDB, nor in Node. Rejects as
   * {@link list} does.
   */
  async persistent(): Promise<boolean> {
    return (await this.#open("read").catch(because("read"))) !== null;
  }

  /**
   * The ids, oldest first. Rejects with a {@link TigretError} (`storage`), also where the database
   * does not open or answer within 5 seconds, since another tab or script holds it up.
   */
  async list(): Promise<string[]> {
    return (await this.entries()).map(({ id }) => id);
  }

  /** The ids with when each was added, oldest first. Rejects as {@link list} does. */
  async entries(): Promise<HistoryEntry[]> {
    // Those in memory stay the store's own.
    return this.#change((entries) => entries.map((entry) => ({ ...entry })), "read");
  }

  /**
   * Adds an item at the end, also where it is in the history already. Rejects with a
   * {@link TigretError} (`bad-request`, `storage`).
   */
  async add(id: string): Promise<void> {
    checkId("the id", id);
    await this.#change((entries) => [...entries, { id, at: Date.now() }]);
  }

  /**
   * Removes every entry of an item, if there are any, whatever text its id is. Rejects with a
   * {@link TigretError} (`bad-request`, `storage`).
   */
  async remove(id: string): Promise<void> {
    // Earlier versions stored ids that are refused by now.
    checkString("the id", id);
    await this.#change((entries) => entries.filter((entry) => entry.id !== id), "shrink");
  }

  /** Puts these items in the place of all others, in one step. Rejects as {@link add} does. */
  async replace(ids: readonly string[]): Promise<void> {
    if (!Array.isArray(ids)) {
      throw new TigretError("bad-request", `the ids are ${shown(ids)}, not an array of strings`);
    }
    checkIds("ids", ids);
    const entries = ids.map((id) => ({ id, at: Date.now() }));
    await this.#change(() => entries, entries.length > 0 ? "grow" : "shrink");
  }

  /** Removes everything. Rejects as {@link list} does. */
  async clear(): Promise<void> {
    await this.#change(() => [], "shrink");
  }

  /**
   * All that is kept, for the visitor to take along: JSON of `{ name, entries: [{ id, at }] }`.
   * Rejects as {@link list} does.
   */
  async export(): Promise<string> {
    return JSON.stringify({ name: this.#name, entries: await this.entries() }, null, 2);
  }

  /**
   * Calls `listener` after every change, in this tab or in another, and when the browser restores the
   * page from its back/forward cache, since changes made meanwhile went unnoticed. Returns a function
   * that removes the listener.
   *
   * Throws a {@link TigretError} (`bad-request`) for what is no function.
   */
  onChange(listener: () => void): () => void {
    const off = this.#events.on("change", listener);
    this.#listen();
    return () => {
      off();
      if (!this.#events.hears("change")) this.#listenNoMore();
    };
  }

  /** Lets go of the database; the next call opens it again. */
  async close(): Promise<void> {
    this.#listenNoMore();
    const database = this.#database;
    this.#database = Promise.resolve(ABSENT);
    const opened = await database.catch(() => null);
    if (opened && opened !== ABSENT) opened.close();
  }

  /** Reads the entries and writes what `change` makes of them, in one transaction. */
  async #change(
    change: (entries: HistoryEntry[]) => HistoryEntry[],
    access: Access = "grow",
  ): Promise<HistoryEntry[]> {
    // It may have been closed since.
    if (this.#events.hears("change")) this.#listen();
    const failed = because(access === "read" ? "read" : "stored");
    const changed = await this.#stored(access, change).catch(failed);
    if (changed === ABSENT) return [];
    if (access !== "read") {
      this.#announce();
      this.#changed();
    }
    return changed;
  }

  /** Once more where the browser has closed the database without a word, as Safari does. */
  async #stored(
    access: Access,
    change: (entries: HistoryEntry[]) => HistoryEntry[],
  ): Promise<HistoryEntry[] | typeof ABSENT> {
    const mode = access === "read" ? "readonly" : "readwrite";
    const begun = erasuresSoFar();
    for (let isFirst = true; ; isFirst = false) {
      const database = await this.#open(access, begun);
      // What was under way when all was forgotten is not stored afterwards.
      const isLate = mode === "readwrite" && isForgotten(begun);
      if (isLate || database === ABSENT) return ABSENT;
      if (database === null) {
        const changed = change(memory.get(this.#name) ?? []);
        if (mode === "readwrite") memory.set(this.#name, changed);
        return changed;
      }
      try {
        return await transact(database, this.#name, mode, change);
      } catch (error) {
        if (!isFirst || !isDead(error)) throw error;
        this.#closed.add(database);
        database.close();
      }
    }
  }

  /** Tells the other tabs. */
  #announce(): void {
    announce(channelName(this.#name), this.#channel);
  }

  #listen(): void {
    this.#channel ??= channelOf(channelName(this.#name), this.#changed);
    globalThis.addEventListener?.("pageshow", this.#cameBack);
  }

  #listenNoMore(): void {
    this.#channel?.close();
    this.#channel = undefined;
    globalThis.removeEventListener?.("pageshow", this.#cameBack);
  }

  /**
   * Opens the database; where there is none, only what grows it makes one, unless all was forgotten
   * since as many erasures.
   */
  #open(access: Access, begun = erasuresSoFar()): Promise<Opened> {
    const opening = this.#database.then(async (known) => {
      if (known === null) return null;
      if (known !== ABSENT && !this.#closed.has(known)) return known;
      if (access === "grow" && isForgotten(begun)) return ABSENT;
      const database = await open(access);
      if (database && database !== ABSENT) this.#watch(database);
      return database;
    });
    this.#database = opening;
    // Those that wait for what fails now fail with it, instead of one after the other; it may open at
    // the next call.
    opening.catch(() => {
      if (this.#database === opening) this.#database = Promise.resolve(ABSENT);
    });
    return opening;
  }

  #watch(database: IDBDatabase): void {
    // Another tab deletes the database, or the visitor does: the next call opens it anew.
    database.addEventListener("versionchange", () => {
      this.#closed.add(database);
      database.close();
      // What is deleted has changed, too.
      this.#changed();
    });
    database.addEventListener("close", () => this.#closed.add(database));
  }
}

/** Empties what is in memory, and tells those who look at it. */
export function forgetMemory(): void {
  for (const name of memory.keys()) announce(channelName(name));
  memory.clear();
}

/** What throws the error of the package for one of the browser. */
function because(what: "read" | "stored"): (cause: unknown) => never {
  return (cause) => {
    const message = `the history could not be ${what} (${reasonOf(cause)})`;
    throw new TigretError("storage", message, { cause });
  };
}

/** Name of the channel of a history. */
function channelName(name: string): string {
  return `history:${name}`;
}

/** Rejects with what the browser says where the database does not open, but is not denied. */
async function open(access: Access): Promise<Opened> {
  // To look into a history leaves no trace, least of all after `forget`.
  if (access !== "grow" && (await hasDatabase()) === false) return ABSENT;
  try {
    return await opened(access);
  } catch (error) {
    if (await isDenied(error)) return null;
    throw error;
  }
}

/** Why something of the database did not happen in time. */
function tooLate(what: string): Error {
  const why = `its database did not ${what} within ${LIMIT / 1000} seconds`;
  return new Error(`${why}: another tab or script of this site may hold it up; close that`);
}

function opened(access: Access): Promise<Opened> {
  return new Promise((resolve, reject) => {
    const request = globalThis.indexedDB.open(DATABASE, 1);
    let [absent, isLate] = [false, false];
    const done = after(LIMIT, () => {
      isLate = true;
      reject(tooLate("open"));
    });
    request.onupgradeneeded = () => {
      if (access === "grow") {
        request.result.createObjectStore(STORE);
      } else {
        absent = true;
        request.transaction?.abort();
      }
    };
    request.onsuccess = () => {
      done();
      if (isLate) request.result.close();
      else resolve(request.result);
    };
    request.onerror = (event) => {
      // Firefox tells the page of what is not prevented, as of an error that nobody caught.
      event.preventDefault();
      done();
      if (absent) resolve(ABSENT);
      else reject(request.error);
    };
  });
}

/** Whether the browser has no databases for this page, rather than that this one failed. */
export async function isDenied(error: unknown): Promise<boolean> {
  try {
    if (!globalThis.indexedDB || (error as DOMException | null)?.name === "SecurityError")
      return true;
    // Chromium says `UnknownError` of denied databases, as of a disk that fails; where the visitor
    // denies them these are denied with them, and a worker has only the latter.
    void globalThis.localStorage;
    await globalThis.navigator?.locks?.query();
    return false;
  } catch {
    return true;
  }
}

/** Whether a connection is of no use any more: another one may be. */
function isDead(error: unknown): boolean {
  const name = (error as DOMException | null)?.name ?? "";
  return ["InvalidStateError", "UnknownError"].includes(name);
}

/**
 * Whether there are histories, or may be, where the browser does not answer; `undefined` where it
 * denies them, or cannot say.
 */
export async function hasDatabase(): Promise<boolean | undefined> {
  try {
    const listed = globalThis.indexedDB.databases();
    const found = listed.then((all) => all.some(({ name }) => name === DATABASE));
    return await within(LISTING, found, () => true);
  } catch {
    return undefined;
  }
}

/** Rejects with what the browser says; nothing is changed then. */
function transact(
  database: IDBDatabase,
  name: string,
  mode: IDBTransactionMode,
  change: (entries: HistoryEntry[]) => HistoryEntry[],
): Promise<HistoryEntry[]> {
  return new Promise((resolve, reject) => {
    const transaction = database.transaction(STORE, mode);
    let done = after(LIMIT, () => {
      try {
        // So that it is not stored later.
        transaction.abort();
        reject(tooLate("answer"));
      } catch {
        // It is being stored already, and will say how that ends, unless the disk hangs.
        done = after(LIMIT, () => reject(tooLate("end what it is storing")));
      }
    });
    const store = transaction.objectStore(STORE);
    let changed: HistoryEntry[] = [];
    const reading = store.get(name);
    reading.onsuccess = () => {
      changed = change(Array.isArray(reading.result) ? reading.result : []);
      if (mode === "readonly") return;
      if (changed.length > 0) store.put(changed, name);
      // An empty history leaves no trace of its name either.
      else store.delete(name);
    };
    transaction.oncomplete = () => {
      done();
      resolve(changed);
    };
    // An error aborts the transaction, which knows the reason only then.
    transaction.onabort = () => {
      done();
      reject(transaction.error);
    };
  });
}
