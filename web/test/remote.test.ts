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

/**
 * A worker that holds its lock, at once or when `hold` is called, and the methods that it was asked
 * for.
 */
function holdingWorker({ waits = false } = {}) {
  const asked: string[] = [];
  let hold = () => {};
  const held = waits ? new Promise<void>((resolve) => (hold = resolve)) : Promise.resolve();
  let answer: (event: Event) => void = () => {};
  const worker = {
    addEventListener(type: string, listener: unknown) {
      if (type === "message") answer = listener as typeof answer;
    },
    postMessage({ id, method }: Call) {
      asked.push(method);
      const value = method === "hold" ? { held: true } : null;
      const data = { kind: "result", id, value };
      // After the timers that are due, as a browser may have it.
      setImmediate(async () => {
        if (method === "hold") await held;
        setImmediate(() => answer(new MessageEvent("message", { data })));
      });
    },
    terminate() {},
  } as WorkerLike;
  return { asked, worker, hold: () => hold() };
}

/** Timers that stand still but for what a test lets pass; messages are none. */
const TIMERS = ["setTimeout", "clearTimeout", "setInterval", "clearInterval"] as const;
const fakeTimers = () => vi.useFakeTimers({ toFake: [...TIMERS] });

/** Lets messages come and go. */
async function messages(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

test("locks are held and waited for only while something is unanswered, and a little longer", async () => {
  fakeTimers();
  const locks = stubLocks();
  const { asked, worker } = holdingWorker();
  const remote = Remote.start(() => worker);
  await messages();
  expect([asked, locks.waiting]).toEqual([["start", "hold"], 1]);
  await vi.advanceTimersByTimeAsync(600);
  expect([asked, locks.waiting]).toEqual([["start", "hold", "rest"], 0]);

  asked.length = 0;
  const calls = [remote.call("adapter", {}), remote.call("catalogue", {})];
  await calls[0];
  expect(locks.waiting).toBe(1);
  await calls[1];
  await vi.advanceTimersByTimeAsync(20);
  await remote.call("adapter", {});
  expect([asked, locks.waiting]).toEqual([["start", "hold", "adapter", "catalogue", "adapter"], 1]);
  await vi.advanceTimersByTimeAsync(600);
  expect([asked.at(-1), locks.waiting]).toEqual(["rest", 0]);
});

test("a worker that ended while it had nothing to do is replaced, whichever call finds it", async () => {
  const calls: ((recommender: Recommender) => Promise<unknown>)[] = [
    (recommender) => recommender.recommend({ history: ["a"] }),
    (recommender) => recommender.explain("a", { history: [] }),
    (recommender) => recommender.trace({ history: [] }),
    (recommender) => recommender.catalogue(),
    (recommender) => recommender.addItems([{ id: "new", embedding: [1, 2] }]),
    (recommender) => recommender.use("cpu"),
    (recommender) => recommender.use("auto"),
  ];
  for (const call of calls) {
    const { made, worker } = fakeWorkers();
    const recommender = await Recommender.load(new Uint8Array(8), { backend: "cpu", worker });
    const told: string[] = [];
    recommender.on("device-lost", ({ error }) => told.push(error.message));
    made[0]?.terminate();
    vi.useFakeTimers();
    const called = call(recommender);
    await vi.advanceTimersByTimeAsync(9000);
    await called;
    vi.useRealTimers();
    expect([made.length, told], `${call}`).toEqual([
      2,
      ["the worker did not answer within 8 seconds"],
    ]);
  }
});

test("a worker that ended while the bundle was on its way is replaced", async () => {
  fakeTimers();
  let arrive = (_: Response) => {};
  const answer = new Promise<Response>((resolve) => {
    arrive = resolve;
  });
  vi.stubGlobal("fetch", () => answer);
  const { made, worker } = fakeWorkers();
  const loading = Recommender.load("https://host/m", { backend: "cpu", worker });
  await vi.advanceTimersByTimeAsync(10);
  made[0]?.terminate();
  arrive(new Response(new Uint8Array(8)));
  let loaded = false;
  const ended = loading.finally(() => {
    loaded = true;
  });
  for (let second = 0; second < 20 && !loaded; second++) {
    await messages();
    await vi.advanceTimersByTimeAsync(1000);
  }
  expect((await ended).engine).toBe("cpu");
  expect(made).toHaveLength(2);
});

test("a browser that is slow to give locks costs no worker", async () => {
  fakeTimers();
  stubLocks();
  const { worker, hold } = holdingWorker({ waits: true });
  const remote = Remote.start(() => worker);
  await messages();
  await vi.advanceTimersByTimeAsync(20_000);
  hold();
  expect([await remote.call("adapter", {}), remote.stopped]).toEqual([null, undefined]);
});

test("a page that stands still for long does not take its worker for dead", async () => {
  fakeTimers();
  stubLocks();
  const { asked, worker } = holdingWorker();
  const remote = Remote.start(() => worker);
  await messages();
  await vi.advanceTimersByTimeAsync(600);
  const call = remote.call("adapter", {});
  // However long it was, what is due runs once before the messages that came.
  vi.advanceTimersToNextTimer();
  expect(await call).toBeNull();
  expect(asked).toContain("adapter");
});

test("a page that is prerendered waits for its worker until it is visited", async () => {
  fakeTimers();
  stubLocks();
  const { worker } = holdingWorker();
  const page = { prerendering: true };
  vi.stubGlobal("document", page);
  const { postMessage } = worker;
  const early: (() => void)[] = [];
  worker.postMessage = (...message) => void early.push(() => postMessage(...message));
  const remote = Remote.start(() => worker);
  const call = remote.call("adapter", {});
  await vi.advanceTimersByTimeAsync(600_000);
  worker.postMessage = postMessage;
  page.prerendering = false;
  for (const arrive of early) arrive();
  expect([await call, remote.stopped]).toEqual([null, undefined]);
});

test("what a worker of the page's own says beside its answers is none", async () => {
  const { worker } = fakeWorkers();
  const fake = worker();
  const listeners: ((event: Event) => void)[] = [];
  const { addEventListener } = fake;
  fake.addEventListener = (type, listener) => {
    if (type === "message") listeners.push(listener as (event: Event) => void);
    addEventListener.call(fake, type, listener);
  };
  const remote = Remote.start(() => fake);
  const call = remote.call("adapter", {});
  for (const data of [null, undefined, "ready", 7, {}, { kind: "ready", id: 0 }]) {
    for (const listener of listeners) listener(new MessageEvent("message", { data }));
  }
  expect([listeners.length, await call, remote.stopped]).toEqual([1, "fake adapter", undefined]);
});
