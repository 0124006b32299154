import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { forget } from "../src/forget.js";
import { forgetMemory, HistoryStore } from "../src/history.js";

/** IndexedDB with one store, whose connections can die and whose opening can fail. */
class Databases {
  readonly histories = new Map<string, unknown>();
  opened = 0;
  /** What the next opening ends in. */
  failure: DOMException | null = null;
  /** What becomes of the connections that are open. */
  death: "throws" | "aborts" | null = null;
  /** What the next opening waits for. */
  deletion: Promise<void> | null = null;
  /** Whether another script holds every transaction up. */
  held = false;
  /** What the next transaction waits for once it is being stored: it cannot be aborted by then. */
  commit: Promise<DOMException | null> | null = null;
  /** What each connection hears. */
  readonly connections: EventTarget[] = [];
  closed = 0;
  aborted = 0;
  /** Whether an opening finds no database, and has to make one. */
  empty = false;
  /** The errors that openings ended in. */
  readonly errors: Event[] = [];

  databases = async () => [{ name: "tigret" }];

  deleteDatabase(): IDBOpenDBRequest {
    const request = {} as IDBOpenDBRequest;
    this.histories.clear();
    this.empty = true;
    for (const connection of this.connections) connection.dispatchEvent(new Event("versionchange"));
    queueMicrotask(() => request.onsuccess?.(new Event("success")));
    return request;
  }

  open(): IDBOpenDBRequest {
    const request = {} as { -readonly [K in keyof IDBOpenDBRequest]: IDBOpenDBRequest[K] };
    const { failure } = this;
    const { deletion } = this;
    this.failure = null;
    this.deletion = null;
    queueMicrotask(async () => {
      if (deletion) await deletion;
      let error = failure;
      if (!error && this.empty) {
        const abort = () => {
          error = new DOMException("The transaction was aborted.", "AbortError");
        };
        request.result = { createObjectStore: () => {} } as unknown as IDBDatabase;
        request.transaction = { abort } as IDBTransaction;
        request.onupgradeneeded?.(new Event("upgradeneeded") as IDBVersionChangeEvent);
        this.empty = error !== null;
      }
      if (error) {
        const event = new Event("error", { cancelable: true });
        this.errors.push(event);
        request.error = error;
        request.onerror?.(event);
      } else {
        request.result = this.#connection();
        request.onsuccess?.(new Event("success"));
      }
    });
    return request;
  }

  #connection(): IDBDatabase {
    this.opened++;
    const number = this.opened;
    const isDead = () => this.death !== null && number === 1;
    const events = new EventTarget();
    this.connections.push(events);
    return {
      addEventListener: events.addEventListener.bind(events),
      close: () => void this.closed++,
      transaction: () => {
        if (isDead() && this.death === "throws") {
          throw new DOMException("The connection was lost.", "InvalidStateError");
        }
        return this.#transaction(isDead());
      },
    } as unknown as IDBDatabase;
  }

  #transaction(dies: boolean): IDBTransaction {
    const transaction = { error: null } as {
      -readonly [K in keyof IDBTransaction]: IDBTransaction[K];
    };
    const { commit } = this;
    this.commit = null;
    transaction.abort = () => {
      if (commit) throw new DOMException("The transaction is committing.", "InvalidStateError");
      this.aborted++;
      queueMicrotask(() => transaction.onabort?.(new Event("abort")));
    };
    transaction.objectStore = () =>
      ({
        get: (name: string) => {
          const request = { result: this.histories.get(name) } as IDBRequest;
          queueMicrotask(async () => {
            if (this.held) return;
            if (dies) {
              transaction.error = new DOMException(
                "Connection to the server lost.",
                "UnknownError",
              );
              transaction.onabort?.(new Event("abort"));
              return;
            }
            request.onsuccess?.(new Event("success"));
            transaction.error = (await commit) ?? null;
            if (transaction.error) transaction.onabort?.(new Event("abort"));
            else transaction.oncomplete?.(new Event("complete"));
          });
          return request;
        },
        put: (value: unknown, name: string) => void this.histories.set(name, value),
        delete: (name: string) => void this.histories.delete(name),
      }) as unknown as IDBObjectStore;
    return transaction;
  }
}

let databases: Databases;
beforeEach(() => {
  databases = new Databases();
  vi.stubGlobal("indexedDB", databases);
  vi.stubGlobal("localStorage", {});
});
afterEach(() => {
  forgetMemory();
  vi.unstubAllGlobals();
});

test.each(["throws", "aborts"] as const)(
  "a connection that is dead (%s) is replaced",
  async (how) => {
    const store = new HistoryStore();
    await store.add("a");
    databases.death = how;
    await Promise.all([store.add("b"), store.add("c")]);
    expect(await store.list()).toEqual(["a", "b", "c"]);
    expect(await store.persistent()).toBe(true);
  },
);

test("an entry that could not be added by now can be removed", async () => {
  const store = new HistoryStore();
  databases.histories.set("default", [
    { id: "half\ud800", at: 1 },
    { id: "kept", at: 2 },
  ]);
  await store.remove("half\ud800");
  expect(await store.list()).toEqual(["kept"]);
  await expect(store.remove(5 as never)).rejects.toMatchObject({ code: "bad-request" });
});

test("a database that cannot be opened now is an error, and opens at the next call", async () => {
  const store = new HistoryStore();
  databases.histories.set("default", [{ id: "kept", at: 1 }]);
  for (const call of [() => store.add("a"), () => store.list(), () => store.persistent()]) {
    databases.failure = new DOMException("the disk failed", "UnknownError");
    await expect(call()).rejects.toMatchObject({
      code: "storage",
      message: expect.stringContaining("the disk failed"),
    });
  }
  await store.add("a");
  expect(await store.list()).toEqual(["kept", "a"]);
});

test("no error of an opening is left to the page, also where an absent history is read", async () => {
  vi.spyOn(databases, "databases").mockRejectedValue(new TypeError("it cannot say"));
  const store = new HistoryStore();
  databases.empty = true;
  expect(await store.list()).toEqual([]);
  databases.failure = new DOMException("the disk failed", "UnknownError");
  await expect(store.add("a")).rejects.toMatchObject({ code: "storage" });
  expect(databases.errors.map((error) => error.defaultPrevented)).toEqual([true, true]);
});

test("calls at once wait together for a database that does not open", async () => {
  vi.useFakeTimers();
  try {
    databases.deletion = new Promise(() => {});
    const store = new HistoryStore();
    const calls = [store.list(), store.add("a"), store.list(), store.clear(), store.add("b")];
    const refused = calls.map((call) =>
      expect(call).rejects.toMatchObject({
        message: expect.stringContaining("did not open within 5 seconds"),
      }),
    );
    await vi.advanceTimersByTimeAsync(5000);
    await Promise.all(refused);
    await store.add("c");
    expect(await store.list()).toEqual(["c"]);
  } finally {
    vi.useRealTimers();
  }
});

test("a listener that is added twice is called twice, and taken away once at a time", async () => {
  const store = new HistoryStore();
  let heard = 0;
  const listener = () => heard++;
  const [off, other] = [store.onChange(listener), store.onChange(listener)];
  await store.add("a");
  expect(heard).toBe(2);
  off();
  off();
  await store.add("b");
  expect(heard).toBe(3);
  other();
  await store.add("c");
  expect(heard).toBe(3);
});

test("a deletion that another tab holds up ends a call in an error, and keeps no connection", async () => {
  vi.useFakeTimers();
  try {
    let end = () => {};
    databases.deletion = new Promise((resolve) => {
      end = resolve;
    });
    const store = new HistoryStore();
    const refused = expect(store.list()).rejects.toMatchObject({
      code: "storage",
      message: expect.stringContaining("did not open within 5 seconds"),
    });
    await vi.advanceTimersByTimeAsync(5000);
    await refused;
    end();
    await store.add("a");
    expect(await store.list()).toEqual(["a"]);
    // The one that came late, and no other.
    expect([databases.opened, databases.closed]).toEqual([2, 1]);
  } finally {
    vi.useRealTimers();
  }
});

test("a transaction that another script holds up ends in an error, and stores nothing later", async () => {
  vi.useFakeTimers();
  try {
    const store = new HistoryStore();
    await store.add("a");
    databases.held = true;
    const refused = [store.add("b"), store.list()].map((call) =>
      expect(call).rejects.toMatchObject({
        code: "storage",
        message: expect.stringContaining("did not answer within 5 seconds"),
      }),
    );
    await vi.advanceTimersByTimeAsync(5000);
    await Promise.all(refused);
    expect(databases.aborted).toBe(2);
    databases.held = false;
    expect(await store.list()).toEqual(["a"]);
    await vi.advanceTimersByTimeAsync(5000);
    expect([databases.aborted, databases.opened]).toEqual([2, 1]);
  } finally {
    vi.useRealTimers();
  }
});

test("a write that is being stored when its time is over says how that ends", async () => {
  vi.useFakeTimers();
  try {
    const store = new HistoryStore();
    for (const failure of [null, new DOMException("the disk failed", "AbortError")]) {
      let end = (_: DOMException | null) => {};
      databases.commit = new Promise((resolve) => (end = resolve));
      const ended = store.add("a").then(
        () => null,
        (error) => error.cause,
      );
      await vi.advanceTimersByTimeAsync(9000);
      end(failure);
      expect(await ended).toBe(failure);
    }
    expect(databases.aborted).toBe(0);
  } finally {
    vi.useRealTimers();
  }
});

test("a browser that does not say which databases there are is not waited for", async () => {
  vi.useFakeTimers();
  try {
    databases.databases = () => new Promise(() => {});
    databases.histories.set("default", [{ id: "kept", at: 1 }]);
    const store = new HistoryStore();
    const listed = store.list();
    await vi.advanceTimersByTimeAsync(1000);
    expect(await listed).toEqual(["kept"]);
  } finally {
    vi.useRealTimers();
  }
});

test("the end of a connection that was replaced costs the new one nothing", async () => {
  const store = new HistoryStore();
  await store.add("a");
  databases.connections[0]?.dispatchEvent(new Event("versionchange"));
  await store.add("b");
  databases.connections[0]?.dispatchEvent(new Event("close"));
  await store.add("c");
  expect(databases.opened).toBe(2);
  databases.connections[1]?.dispatchEvent(new Event("close"));
  expect(await store.list()).toEqual(["a", "b", "c"]);
  expect(databases.opened).toBe(3);
});

test.each(["SecurityError", "UnknownError"])("denied databases are memory (%s)", async (name) => {
  if (name === "UnknownError") {
    Object.defineProperty(globalThis, "localStorage", {
      configurable: true,
      get: () => {
        throw new DOMException("denied", "SecurityError");
      },
    });
  }
  const store = new HistoryStore();
  databases.failure = new DOMException("the user denied it", name);
  await store.add("a");
  expect([await store.list(), await store.persistent()]).toEqual([["a"], false]);
});

test("in a worker, which has no localStorage, denied locks tell of denied databases", async () => {
  vi.stubGlobal("localStorage", undefined);
  const store = new HistoryStore();
  const query = vi.fn(async () => {});
  vi.stubGlobal("navigator", { locks: { query } });
  databases.failure = new DOMException("the disk failed", "UnknownError");
  await expect(store.add("a")).rejects.toMatchObject({ code: "storage" });
  query.mockRejectedValue(new DOMException("denied", "SecurityError"));
  databases.failure = new DOMException("the user denied it", "UnknownError");
  await store.add("a");
  expect([await store.list(), await store.persistent()]).toEqual([["a"], false]);
});

test("what is being added when all is forgotten is not stored, and what comes then is", async () => {
  // What the addition waits for in turn: nothing, what finds no database, what opens one.
  const begins = [
    () => [],
    (store: HistoryStore) => {
      databases.databases = async () => [];
      return [store.list()];
    },
    (store: HistoryStore) => [store.remove("b")],
  ];
  for (const begin of begins) {
    const store = new HistoryStore();
    const before = begin(store);
    const adding = [store.add("a"), store.replace(["b"])];
    await forget();
    await Promise.all([...before, ...adding]);
    expect([databases.histories.size, databases.empty], `${begin}`).toEqual([0, true]);
    await store.add("c");
    expect(await store.list()).toEqual(["c"]);
    databases = new Databases();
    vi.stubGlobal("indexedDB", databases);
  }
});

test("nor is it in memory, also where databases are denied only after that", async () => {
  for (const isLate of [false, true]) {
    let end = () => {};
    databases.deletion = new Promise((resolve) => (end = resolve));
    databases.failure = new DOMException("the user denied it", "SecurityError");
    const store = new HistoryStore();
    const adding = store.add("a");
    // It waits for the answer by then.
    if (isLate) await new Promise((resolve) => setTimeout(resolve));
    await forget();
    end();
    await adding;
    expect(await store.list(), `${isLate}`).toEqual([]);
    await store.add("c");
    expect(await store.list()).toEqual(["c"]);
    await forget();
  }
});

test("in memory, too, a history is one, whoever opens it, until all is forgotten", async () => {
  vi.stubGlobal("indexedDB", undefined);
  const [own, other] = [new HistoryStore("memory"), new HistoryStore("memory")];
  let heard = 0;
  const off = other.onChange(() => heard++);
  await own.add("a");
  expect(await other.list()).toEqual(["a"]);
  expect(await new HistoryStore("another").list()).toEqual([]);
  await forget();
  expect([await own.list(), await other.list()]).toEqual([[], []]);
  await vi.waitFor(() => expect(heard).toBe(2));
  off();
});

test("a history is replaced in one step, or not at all", async () => {
  const store = new HistoryStore();
  await store.add("mine");
  for (const wrong of ["ab", ["a", 3], null]) {
    await expect(store.replace(wrong as never)).rejects.toMatchObject({ code: "bad-request" });
  }
  expect(await store.list()).toEqual(["mine"]);
  let changes = 0;
  const off = store.onChange(() => changes++);
  await store.replace(["a", "b", "a"]);
  expect([await store.list(), changes]).toEqual([["a", "b", "a"], 1]);
  off();
});

test("a store that was closed hears of changes again from its next call on", async () => {
  const [store, other] = [new HistoryStore(), new HistoryStore()];
  let heard = 0;
  const off = store.onChange(() => heard++);
  await store.close();
  await store.list();
  await other.add("a");
  await vi.waitFor(() => expect(heard).toBe(1));
  off();
});

test("a page that comes back from the cache of the browser is told that there may be changes", async () => {
  const page = new EventTarget();
  for (const name of ["addEventListener", "removeEventListener"] as const) {
    vi.stubGlobal(name, page[name].bind(page));
  }
  const store = new HistoryStore();
  let heard = 0;
  const off = store.onChange(() => heard++);
  await store.list();
  const show = (persisted: boolean) =>
    page.dispatchEvent(Object.assign(new Event("pageshow"), { persisted }));
  show(false);
  expect(heard).toBe(0);
  show(true);
  expect(heard).toBe(1);
  // A store that is closed hears nothing until its next call, nor one that nobody listens to.
  await store.close();
  show(true);
  await store.list();
  show(true);
  expect(heard).toBe(2);
  off();
  show(true);
  expect(heard).toBe(2);
});

test("a channel is open only while somebody listens", async () => {
  let open = 0;
  const posted: unknown[] = [];
  vi.stubGlobal(
    "BroadcastChannel",
    class {
      constructor() {
        open++;
      }
      postMessage(message: unknown) {
        posted.push(message);
      }
      close() {
        open--;
      }
    },
  );
  const store = new HistoryStore();
  await store.add("a");
  expect([open, posted.length]).toEqual([0, 1]);
  const off = [store.onChange(() => {}), store.onChange(() => {})];
  expect(open).toBe(1);
  off[0]?.();
  await store.add("b");
  expect([open, posted.length]).toEqual([1, 2]);
  off[1]?.();
  expect(open).toBe(0);
});

test("a history adds at the end, removes all of an item, and exports what it has", async () => {
  const history = new HistoryStore("shelf");
  let changes = 0;
  const off = history.onChange(() => changes++);
  for (const id of ["a", "b", "a", "c"]) await history.add(id);
  expect(await history.list()).toEqual(["a", "b", "a", "c"]);
  await history.remove("a");
  await history.remove("not there");
  expect(await history.list()).toEqual(["b", "c"]);
  const { name, entries } = JSON.parse(await history.export());
  expect([name, entries.map(({ id }: { id: string }) => id)]).toEqual(["shelf", ["b", "c"]]);
  await history.clear();
  expect(await history.list()).toEqual([]);
  expect(changes).toBe(7);
  off();
  for (const id of [5, Object.create(null), "\ud800"]) {
    await expect(history.add(id as never)).rejects.toMatchObject({ code: "bad-request" });
  }
  expect(() => new HistoryStore("")).toThrow("name");
  await history.close();
});

test("a history in memory is not changed by what it gave, and needs no channel", async () => {
  vi.stubGlobal("indexedDB", undefined);
  vi.stubGlobal("BroadcastChannel", function denied() {
    throw new DOMException("denied", "SecurityError");
  });
  const history = new HistoryStore();
  history.onChange(() => {});
  for (const id of ["a", "b"]) await history.add(id);
  const entries = await history.entries();
  entries.reverse();
  for (const entry of entries) entry.id = "changed";
  expect(await history.list()).toEqual(["a", "b"]);
});
