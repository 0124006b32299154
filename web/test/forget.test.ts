import { afterEach, expect, test, vi } from "vitest";
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
  stubDeletion((request) => {
    Object.assign(request, { error: new Error("the disk failed") });
    request.onerror?.(new Event("error"));
  });
  const message = "the histories could not be deleted (the disk failed)";
  await expect(forget()).rejects.toMatchObject({ code: "storage", message });
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

test("where the browser denies databases there is nothing to delete", async () => {
  const denied = new DOMException("the user denied it", "UnknownError");
  const fail = (request: IDBOpenDBRequest) => {
    Object.assign(request, { error: denied });
    request.onerror?.(new Event("error"));
  };
  stubDeletion(fail, () => Promise.reject(denied));
  await forget();
  stubDeletion(fail, async () => []);
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
      request.onblocked?.(new Event("blocked") as IDBVersionChangeEvent);
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
