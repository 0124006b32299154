import { afterEach, expect, test, vi } from "vitest";
import { keep, settled } from "../src/cache.js";
import { forget } from "../src/forget.js";

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** A database whose deletion ends as `end` says. */
function stubDeletion(
  end: (request: IDBOpenDBRequest) => void,
  databases = async () => [{ name: "tigret" }],
): void {
  vi.stubGlobal("indexedDB", {
    databases,
    deleteDatabase() {
      const request = {} as IDBOpenDBRequest;
      queueMicrotask(() => end(request));
      return request;
    },
  });
}

test("says so where the histories are not deleted", async () => {
  const event = new Event("error", { cancelable: true });
  stubDeletion((request) => {
    Object.assign(request, { error: new Error("the disk failed") });
    request.onerror?.(event);
  });
  const message = "the histories could not be deleted (the disk failed)";
  await expect(forget()).rejects.toMatchObject({ code: "storage", message });
  // Else Firefox raises it in the page, too.
  expect(event.defaultPrevented).toBe(true);
});

test("does not take what the browser does not answer for deleted", async () => {
  vi.useFakeTimers();
  const fail = (request: IDBOpenDBRequest) => {
    Object.assign(request, { error: new Error("the disk failed") });
    request.onerror?.(new Event("error"));
  };
  stubDeletion(fail, () => new Promise(() => {}));
  const refused = expect(forget()).rejects.toMatchObject({ code: "storage" });
  await vi.advanceTimersByTimeAsync(1000);
  await refused;
});

test("says so where they are not deleted and the browser cannot say whether there are any", async () => {
  const fail = (name: string) => (request: IDBOpenDBRequest) => {
    Object.assign(request, { error: new DOMException("it failed", name) });
    request.onerror?.(new Event("error"));
  };
  vi.stubGlobal("localStorage", {});
  for (const databases of [null, () => Promise.reject(new Error("the disk failed"))]) {
    stubDeletion(fail("UnknownError"), databases as never);
    await expect(forget(), `${databases}`).rejects.toMatchObject({ code: "storage" });
    stubDeletion(fail("SecurityError"), databases as never);
    await forget();
  }
});

test("where the browser denies databases there is nothing to delete", async () => {
  const denied = new DOMException("the user denied it", "UnknownError");
  const fail = (request: IDBOpenDBRequest) => {
    Object.assign(request, { error: denied });
    request.onerror?.(new Event("error"));
  };
  stubDeletion(fail, async () => []);
  await forget();
  // It denies all storage then.
  vi.stubGlobal("localStorage", undefined);
  Object.defineProperty(globalThis, "localStorage", {
    get() {
      throw new DOMException("denied", "SecurityError");
    },
  });
  stubDeletion(fail, () => Promise.reject(denied));
  await forget();
});

test("resolves once they are deleted, and where there is no database", async () => {
  let deleted = false;
  stubDeletion((request) => {
    deleted = true;
    request.onsuccess?.(new Event("success"));
  });
  await forget();
  expect(deleted).toBe(true);
  vi.stubGlobal("indexedDB", undefined);
  await forget();
});

test("waits for what another tab holds open, and not for ever", async () => {
  vi.useFakeTimers();
  for (const closesAfter of [4000, 6000]) {
    stubDeletion((request) => {
      setTimeout(() => request.onsuccess?.(new Event("success")), closesAfter);
    });
    const ended = forget().then(
      () => "deleted",
      (error) => `${error.code}: ${error.message}`,
    );
    await vi.advanceTimersByTimeAsync(7000);
    const says = closesAfter < 5000 ? /^deleted$/ : /^storage: .*another tab/;
    expect(await ended).toMatch(says);
  }
});

/** A page with a choice, whose histories are deleted at once; says what is gone. */
function stubPage(): { gone(): { choice: boolean; histories: boolean } } {
  let histories = false;
  stubDeletion((request) => {
    histories = true;
    request.onsuccess?.(new Event("success"));
  });
  const items: Record<string, unknown> = { "tigret:engine|x": "cpu 1", "page:own": "1" };
  Object.defineProperty(items, "removeItem", { value: (key: string) => delete items[key] });
  vi.stubGlobal("localStorage", items);
  return { gone: () => ({ choice: Object.keys(items).join() === "page:own", histories }) };
}

test("a cache that does not answer holds up nothing else, and says so", async () => {
  vi.useFakeTimers();
  const page = stubPage();
  vi.stubGlobal("caches", { delete: () => new Promise(() => {}) });
  const refused = expect(forget()).rejects.toMatchObject({
    code: "storage",
    message: expect.stringContaining("cache does not answer"),
  });
  await vi.advanceTimersByTimeAsync(0);
  expect(page.gone()).toEqual({ choice: true, histories: true });
  await vi.advanceTimersByTimeAsync(4000);
  await refused;
});

test("says so where the bundles are not deleted, unless none can be kept", async () => {
  const fail = (name: string) => Promise.reject(new DOMException("it failed", name));
  for (const broken of ["tigret", "tigret-uses"]) {
    const deleted: string[] = [];
    const page = stubPage();
    const remove = async (name: string) => {
      if (name === broken) return fail("UnknownError");
      return deleted.push(name) > 0;
    };
    vi.stubGlobal("caches", { delete: remove });
    const message = "the bundles could not be deleted (it failed)";
    await expect(forget(), broken).rejects.toMatchObject({ code: "storage", message });
    expect(page.gone()).toEqual({ choice: true, histories: true });
    expect(deleted.length).toBe(1);
  }
  vi.stubGlobal("caches", { delete: () => fail("SecurityError") });
  await forget();
  vi.stubGlobal("caches", undefined);
  await forget();
});

test("a bundle whose keeping does not end is not waited for, and leaves nothing at its end", async () => {
  vi.useFakeTimers();
  const page = stubPage();
  let end = () => {};
  const names = new Set<string>();
  vi.stubGlobal("caches", {
    open: async (name: string) => {
      names.add(name);
      const put = () =>
        new Promise<void>((resolve) => {
          const written = () => {
            names.add(name);
            resolve();
          };
          if (name === "tigret") end = written;
          else written();
        });
      return { put, keys: async () => [], delete: async () => true };
    },
    delete: async (name: string) => names.delete(name),
  });
  keep("https://host/m", new Blob(), Promise.resolve("hash"), null);
  await vi.advanceTimersByTimeAsync(0);
  expect(names.size).toBe(2);
  const refused = expect(forget()).rejects.toMatchObject({ code: "storage" });
  await vi.advanceTimersByTimeAsync(0);
  expect(page.gone()).toEqual({ choice: true, histories: true });
  await vi.advanceTimersByTimeAsync(4000);
  await refused;
  expect(names.size).toBe(0);
  end();
  expect(names.size).toBe(1);
  await settled();
  expect(names.size).toBe(0);
});

test("a bundle that has not begun to be kept is neither kept nor waited for", async () => {
  stubPage();
  const put = vi.fn(async () => {});
  const cache = { put, keys: async () => [], delete: async () => true };
  vi.stubGlobal("caches", { open: async () => cache, delete: async () => true });
  let hash = (_: string) => {};
  const slow = new Promise<string>((resolve) => (hash = resolve));
  keep("https://host/m", new Blob(), slow, null);
  keep("https://host/m", new Blob(), new Promise(() => {}), null);
  const forgotten = forget();
  hash("hash");
  await forgotten;
  expect(put).not.toHaveBeenCalled();
});
