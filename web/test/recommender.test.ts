import { getEventListeners } from "node:events";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, expect, test, vi } from "vitest";
import { Events } from "../src/events.js";
import { forgetMemory } from "../src/history.js";
import { Recommender } from "../src/index.js";
import type { LoadOptions } from "../src/options.js";
import { fakeWorkers, type Script } from "./fake-worker.js";

const BUNDLE = new Uint8Array(8);

afterEach(() => {
  forgetMemory();
  vi.unstubAllGlobals();
});

async function load(script: Script = {}, options: LoadOptions = {}) {
  const { made, worker } = fakeWorkers({ adapter: null, ...script });
  return { made, recommender: await Recommender.load(new Uint8Array(1), { worker, ...options }) };
}

/** Requests that the fakes got by a method. */
function requests(made: { calls: object[] }[], method: string): Record<string, unknown>[] {
  const calls = made.flatMap((fake) => fake.calls as Record<string, unknown>[]);
  return calls.filter((call) => call.method === method).map((call) => call.request as never);
}

test("a report says what was skipped, which engine computed and how long it took", async () => {
  const { worker } = fakeWorkers({ time: { cpu: 3, webgpu: 1 } });
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  expect(await recommender.report({ history: ["unknown-1", "a"] })).toEqual({
    picks: [{ id: "a", score: -1, codes: [0, 1] }],
    unknown: ["unknown-1"],
    seed: null,
    engine: "cpu",
    engineName: "cpu of the fake",
    milliseconds: 3,
  });
  expect(recommender.info.items).toBe(3);
});

test("disposing rejects what is unanswered and what comes later", async () => {
  const { made, worker } = fakeWorkers();
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  const reading = vi.spyOn(recommender.history, "list");
  const calls = [recommender.recommend({ history: [] }), recommender.recommend()];
  recommender.dispose();
  for (const call of calls) await expect(call).rejects.toMatchObject({ code: "disposed" });
  // That would open the history's database again.
  expect(reading).not.toHaveBeenCalled();
  await expect(recommender.recommend({ history: [] })).rejects.toMatchObject({ code: "disposed" });
  await expect(recommender.use("cpu")).rejects.toMatchObject({ code: "disposed" });
  expect(made).toHaveLength(1);
  expect(made[0]?.terminated).toBe(true);
});

test("a history that is slow to read holds up its own call alone, and no disposal", async () => {
  const { worker } = fakeWorkers();
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  let arrive = (_: string[]) => {};
  const reading = vi.spyOn(recommender.history, "list").mockImplementation(
    () =>
      new Promise((resolve) => {
        arrive = resolve;
      }),
  );
  const order: string[] = [];
  const slow = recommender.recommend().then(([pick]) => order.push(`slow ${pick?.id}`));
  const given = recommender.recommend({ history: ["a"] }).then(() => order.push("given"));
  await given;
  arrive(["b"]);
  await slow;
  expect(order).toEqual(["given", "slow b"]);
  expect(reading).toHaveBeenCalledTimes(1);

  // One that is being waited for in its turn, and one that has given its turn away.
  for (const wait of [0, 400]) {
    const { worker } = fakeWorkers();
    const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
    vi.spyOn(recommender.history, "list").mockReturnValue(new Promise(() => {}));
    const calls = [recommender.recommend(), recommender.trace()];
    await new Promise((resolve) => setTimeout(resolve, wait));
    recommender.dispose();
    for (const call of calls) await expect(call).rejects.toMatchObject({ code: "disposed" });
  }
});

test("a history that is read at once keeps its call in its place", async () => {
  const { worker } = fakeWorkers();
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  vi.spyOn(recommender.history, "list").mockImplementation(
    () => new Promise((resolve) => setTimeout(() => resolve(["b"]), 20)),
  );
  const order: string[] = [];
  await Promise.all([
    recommender.recommend().then(() => order.push("stored")),
    recommender.recommend({ history: ["a"] }).then(() => order.push("given")),
  ]);
  expect(order).toEqual(["stored", "given"]);
});

test("what was disposed of keeps no bundle, and no items that were added", async () => {
  setFlagsFromString("--expose-gc");
  const collect: () => void = runInNewContext("gc");
  const kept: WeakRef<object>[] = [];
  const { made, worker } = fakeWorkers({
    before: (call) => {
      if (call.method === "add") kept.push(new WeakRef(call.embeddings));
    },
  });
  const OwnBlob = class extends Blob {
    constructor(parts?: BlobPart[]) {
      super(parts);
      if (parts) kept.push(new WeakRef(this));
    }
  };
  vi.stubGlobal("Blob", OwnBlob);
  /** How many are left. */
  const left = async () => {
    await new Promise((resolve) => setTimeout(resolve, 20));
    collect();
    return kept.filter((ref) => ref.deref()).length;
  };
  try {
    const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
    await recommender.addItems([{ id: "new", embedding: [1, 2] }]);
    // The fake remembers what it was asked.
    for (const fake of made) fake.calls.length = 0;
    expect([kept.length, await left()]).toEqual([2, 2]);
    recommender.dispose();
    expect(await left()).toBe(0);
    expect(recommender.engine).toBe("cpu");
  } finally {
    vi.unstubAllGlobals();
  }
});

test("nobody can change what the recommender knows of its model", async () => {
  const { made, worker } = fakeWorkers();
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  const unchanged = async () => {
    const { info } = recommender;
    // @ts-expect-error: nor do the types allow it.
    expect(() => info.levels.pop()).toThrow(TypeError);
    expect(() => {
      // @ts-expect-error: nor do the types allow it.
      info.items = 0;
    }).toThrow(TypeError);
    const calls = [[1, 1], 1].map((temperature) =>
      recommender.recommend({ history: ["a"], temperature }),
    );
    for (const call of calls) expect(await call).toHaveLength(1);
  };
  await unchanged();
  await recommender.addItems([{ id: "new", embedding: [1, 2] }]);
  await unchanged();
  made[0]?.failToStart();
  await recommender.recommend({ history: ["a"] });
  await unchanged();
  expect([made.length, recommender.info.items]).toEqual([2, 4]);
});

test("a newer call with latest takes the place of older ones, and of no others", async () => {
  const { recommender } = await load();
  const plain = recommender.recommend({ history: ["plain"] });
  const older = ["a", "b"].map((id) => recommender.recommend({ history: [id], latest: true }));
  const newest = recommender.recommend({ history: ["c"], latest: true });
  for (const call of older) await expect(call).rejects.toMatchObject({ code: "superseded" });
  expect([(await plain)[0]?.id, (await newest)[0]?.id]).toEqual(["plain", "c"]);
  const controller = new AbortController();
  const aborted = recommender.recommend({
    history: [],
    latest: true,
    signal: controller.signal,
  });
  controller.abort();
  await expect(aborted).rejects.toMatchObject({ name: "AbortError" });
});

test("latest is one method's own, and a call that is over takes no other's place", async () => {
  const { recommender } = await load();
  const asked = { history: ["a"], latest: true };
  const older = [recommender.explain("x", asked), recommender.trace(asked)];
  const newer = [
    recommender.report(asked),
    recommender.explain("x", asked),
    recommender.trace(asked),
  ];
  for (const call of older) await expect(call).rejects.toMatchObject({ code: "superseded" });
  await Promise.all(newer);
  const report = recommender.report(asked);
  const recommended = recommender.recommend(asked);
  await expect(report).rejects.toMatchObject({ code: "superseded" });
  const over = recommender.recommend({ ...asked, signal: AbortSignal.abort() });
  await expect(over).rejects.toMatchObject({ name: "AbortError" });
  expect(await recommended).toHaveLength(1);
});

test("what is refused names the method that was called", async () => {
  const { recommender } = await load();
  const wrong = { history: [], beam: 5 } as never;
  const calls = {
    recommend: recommender.recommend(wrong),
    report: recommender.report(wrong),
    explain: recommender.explain("a", wrong),
    trace: recommender.trace(wrong),
  };
  for (const [method, call] of Object.entries(calls)) {
    await expect(call).rejects.toThrow(`${method}: there is no option "beam"`);
  }
  for (const backend of [undefined, "gpu"]) {
    await expect(recommender.use(backend as never)).rejects.toMatchObject({ code: "bad-request" });
  }
  expect(recommender.engine).toBe("cpu");
});

test("a call without a history uses the stored one, as it is when its turn comes", async () => {
  const { made, recommender } = await load();
  expect(await recommender.history.persistent()).toBe(false);
  await recommender.history.add("first");
  await recommender.history.add("second");
  const early = recommender.recommend();
  expect((await early)[0]?.id).toBe("second");
  expect(requests(made, "recommend").at(-1)?.history).toEqual(["first", "second"]);
  // What an earlier version stored and is refused by now.
  vi.spyOn(recommender.history, "list").mockResolvedValueOnce(["half\ud800", 7 as never, "whole"]);
  await recommender.recommend();
  expect(requests(made, "recommend").at(-1)?.history).toEqual(["whole"]);
  await recommender.recommend({ history: [] });
  expect(requests(made, "recommend").at(-1)?.history).toEqual([]);
});

test("what a call is given is taken at once", async () => {
  const { made, recommender } = await load();
  const history = ["a"];
  const running = recommender.recommend({ history });
  history.push("b");
  await running;
  expect(requests(made, "recommend").at(-1)?.history).toEqual(["a"]);
});

test("the user of load is that of calls which name none", async () => {
  const { made, recommender } = await load({}, { userId: "u1" });
  for (const options of [{}, { user: "u2" }, { user: null }, { userToken: 3 }]) {
    await recommender.recommend({ history: [], ...options });
  }
  const asked = requests(made, "recommend").map(({ user, user_token }) => user ?? user_token);
  expect(asked).toEqual(["u1", "u2", undefined, 3]);
});

test("a pick is explained by the request that it answers, an id by the options given", async () => {
  const { made, recommender } = await load();
  const [pick] = await recommender.recommend({ history: ["a", "b"] });
  if (!pick) throw new Error("no pick");
  const found = await recommender.explain(pick);
  expect(found.id).toBe(pick.id);
  expect(found.history.map(({ id }) => id)).toEqual(["a", "b"]);
  await recommender.explain("x", { history: ["c"] });
  expect(requests(made, "explain").map(({ history }) => history)).toEqual([["a", "b"], ["c"]]);
  const refused = [
    recommender.explain({ ...pick, codes: [...pick.codes] }),
    // @ts-expect-error: an id needs the options.
    recommender.explain("x"),
    recommender.explain(null as never),
    recommender.explain("\ud800", { history: [] }),
  ];
  for (const call of refused) await expect(call).rejects.toMatchObject({ code: "bad-request" });
  // A signal says nothing of another call, an option does.
  await recommender.explain(pick, { signal: new AbortController().signal, latest: true });
  expect(requests(made, "explain").at(-1)?.history).toEqual(["a", "b"]);
  // With the options of a call the types take both alike.
  for (const item of [pick, "x"]) {
    await recommender.explain(item, { history: ["d"] });
    expect(requests(made, "explain").at(-1)?.history).toEqual(["d"]);
  }
  expect(await recommender.trace({ history: [] })).toHaveLength(1);
  expect((await recommender.catalogue()).ids).toEqual(["a", "b", "c"]);
  recommender.dispose();
  await expect(recommender.catalogue()).rejects.toMatchObject({ code: "disposed" });
});

test("a listener may come, go and throw while others are called", async () => {
  const events = new Events<{ x: number }>("x");
  const seen: number[] = [];
  const off = events.on("x", (value) => {
    seen.push(value);
    off();
  });
  events.on("x", (value) => seen.push(10 * value));
  events.emit("x", 1);
  events.emit("x", 2);
  expect(seen).toEqual([1, 10, 20]);
});

test("what a listener throws is the page's own error, and fails no call", async () => {
  const reported: unknown[] = [];
  vi.stubGlobal("queueMicrotask", (task: () => void) => {
    try {
      task();
    } catch (error) {
      reported.push((error as Error).message);
    }
  });
  const fails = (name: string) => () => {
    throw new Error(name);
  };
  const onProgress = fails("progress");
  const { worker } = fakeWorkers({ adapter: null });
  const recommender = await Recommender.load(new Response("bundle"), { worker, onProgress });
  const off = recommender.history.onChange(fails("change"));
  let changes = 0;
  recommender.history.onChange(() => changes++);
  await recommender.history.add("a");
  expect([changes, await recommender.history.list()]).toEqual([1, ["a"]]);
  expect(reported).toEqual(["progress", "change"]);
  off();
});

test("a listener that could never be called is refused", async () => {
  const { recommender } = await load();
  const listen = [
    () => recommender.on("device-lots" as never, () => {}),
    () => recommender.on("device-lost", undefined as never),
    () => recommender.history.onChange({} as never),
  ];
  const said = [
    'no event "device-lots"; the events are device-lost, backend-changed',
    "undefined",
    "an object",
  ];
  for (const [at, add] of listen.entries()) {
    const message = expect.stringContaining(said[at] ?? "");
    expect(add).toThrow(expect.objectContaining({ code: "bad-request", message }));
  }
});

test("a signal that outlives loads and calls keeps nothing of them", async () => {
  const { signal } = new AbortController();
  const { recommender } = await load({}, { signal });
  const calls = [false, true, true].map((latest) =>
    recommender.recommend({ history: [], latest, signal }),
  );
  await Promise.allSettled(calls);
  await recommender.trace({ history: [], latest: true, signal });
  recommender.dispose();
  expect(getEventListeners(signal, "abort")).toHaveLength(0);
});
