import { afterEach, expect, test, vi } from "vitest";
import { Recommender } from "../src/index.js";
import type { Call } from "../src/protocol.js";
import { Remote, type WorkerLike } from "../src/remote.js";
import { fakeWorkers } from "./fake-worker.js";

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** Locks that are never free: what waits for one waits until it is aborted. */
function stubLocks(): { waiting: number } {
  const seen = { waiting: 0 };
  const request = (_name: string, { signal }: { signal: AbortSignal }) =>
    new Promise((_resolve, reject) => {
      seen.waiting++;
      signal.addEventListener("abort", () => {
        seen.waiting--;
        reject(signal.reason);
      });
    });
  vi.stubGlobal("navigator", { locks: { request } });
  return seen;
}

/** A worker that holds its lock, and the methods that it was asked for. */
function holdingWorker(): { asked: string[]; worker: WorkerLike } {
  const asked: string[] = [];
  let answer: (event: Event) => void = () => {};
  const worker = {
    addEventListener(type: string, listener: unknown) {
      if (type === "message") answer = listener as typeof answer;
    },
    postMessage({ id, method }: Call) {
      asked.push(method);
      const value = method === "start" ? { held: true } : null;
      // After the timers that are due, as a browser may have it.
      setImmediate(() =>
        setImmediate(() =>
          answer(new MessageEvent("message", { data: { kind: "result", id, value } })),
        ),
      );
    },
    terminate() {},
  } as WorkerLike;
  return { asked, worker };
}

const pause = (milliseconds = 20) => new Promise((resolve) => setTimeout(resolve, milliseconds));

test("locks are held and waited for only while something is unanswered, and a little longer", async () => {
  const locks = stubLocks();
  const { asked, worker } = holdingWorker();
  const remote = Remote.start(() => worker);
  await pause(600);
  expect([asked, locks.waiting]).toEqual([["start", "rest"], 0]);

  asked.length = 0;
  const calls = [remote.call("adapter", {}), remote.call("catalogue", {})];
  await calls[0];
  expect(locks.waiting).toBe(1);
  await calls[1];
  await pause();
  await remote.call("adapter", {});
  expect([asked, locks.waiting]).toEqual([["start", "adapter", "catalogue", "adapter"], 1]);
  await pause(600);
  expect([asked.at(-1), locks.waiting]).toEqual(["rest", 0]);
});

test("a worker that ended while it had nothing to do is noticed at the next call", async () => {
  const { made, worker } = fakeWorkers();
  const recommender = await Recommender.load(new Uint8Array(8), { backend: "cpu", worker });
  made[0]?.terminate();
  vi.useFakeTimers();
  const call = recommender.recommend({ history: ["a"] });
  await vi.advanceTimersByTimeAsync(2500);
  expect(await call).toMatchObject([{ id: "a" }]);
  expect(made).toHaveLength(2);
});

test("a page that stands still for long does not take its worker for dead", async () => {
  stubLocks();
  const { asked, worker } = holdingWorker();
  const remote = Remote.start(() => worker);
  await pause();
  const call = remote.call("adapter", {});
  const until = performance.now() + 2500;
  while (performance.now() < until);
  expect(await call).toBeNull();
  expect(asked).toContain("adapter");
});
