import { afterEach, expect, test, vi } from "vitest";
import { Recommender } from "../src/index.js";
import type { Call } from "../src/protocol.js";
import type { GpuOptions } from "../src/types.js";
import { Failure, type FakeWorker, fakeWorkers, type Script } from "./fake-worker.js";
import { soon } from "./soon.js";

const BUNDLE = new Uint8Array(8);

/** Keys are what an object has of its own, as in a browser. */
function storage(): Storage {
  const methods = {
    getItem(this: Record<string, string>, key: string) {
      return this[key] ?? null;
    },
    setItem(this: Record<string, string>, key: string, value: string) {
      this[key] = value;
    },
    removeItem(this: Record<string, string>, key: string) {
      delete this[key];
    },
  };
  return Object.create(methods);
}

async function load(script: Script) {
  const { made, worker } = fakeWorkers(script);
  const recommender = await Recommender.load(BUNDLE, { worker });
  const timed = made[0]?.calls.filter((call) => call.method === "recommend").length ?? 0;
  return { recommender, timed };
}

/** Whether a call makes the GPU compute. */
const asksGpu = (call: Call, fake: FakeWorker) =>
  call.method === "recommend" && fake.engine === "webgpu";

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

test.each([
  ["webgpu", { cpu: 5, webgpu: 2 }],
  ["cpu", { cpu: 2, webgpu: 5 }],
] as const)("auto takes %s where it is the faster one", async (engine, time) => {
  vi.stubGlobal("localStorage", storage());
  const { recommender } = await load({ time });
  expect(recommender.engine).toBe(engine);
  expect(recommender.engineName).toBe(`${engine} of the fake`);
});

test("the choice is remembered for the same model and adapter only", async () => {
  vi.stubGlobal("localStorage", storage());
  const time = { cpu: 5, webgpu: 2 };
  expect((await load({ time })).timed).toBeGreaterThan(0);
  const again = await load({ time });
  expect(again.timed).toBe(0);
  expect(again.recommender.engine).toBe("webgpu");
  expect((await load({ time, adapter: "another" })).timed).toBeGreaterThan(0);
});

test("denied storage costs the memory and nothing else", async () => {
  vi.stubGlobal("localStorage", {
    getItem: () => {
      throw new Error("denied");
    },
    setItem: () => {
      throw new Error("denied");
    },
  });
  const { recommender } = await load({ time: { cpu: 5, webgpu: 2 } });
  expect(recommender.engine).toBe("webgpu");
});

test("a remembered engine that fails by now is not the end", async () => {
  const time = { cpu: 5, webgpu: 2 };
  for (const code of ["crash", "device-lost", "no-gpu"] as const) {
    vi.stubGlobal("localStorage", storage());
    expect((await load({ time })).recommender.engine).toBe("webgpu");
    const before: Script["before"] = (call) => {
      const builds = call.method === "use" || call.method === "load";
      if (builds && call.engine === "webgpu") throw new Failure(code);
    };
    expect((await load({ time, before })).recommender.engine).toBe("cpu");
  }
});

test("a GPU that works only with what every GPU has is remembered so", async () => {
  vi.stubGlobal("localStorage", storage());
  const time = { cpu: 5, webgpu: 2 };
  let isPlain = false;
  const before: Script["before"] = (call, worker) => {
    if (call.method === "use") isPlain = call.gpu.subgroups === false;
    const computes = call.method === "recommend" && worker.engine === "webgpu";
    if (computes && !isPlain) throw new Failure("device-lost");
  };
  for (const visit of ["first", "second"]) {
    const { recommender, timed } = await load({ time, before });
    expect(recommender.engine, visit).toBe("webgpu");
    if (visit === "second") expect([timed, isPlain]).toEqual([0, true]);
  }
  // One that fails by now is measured anew, and what comes of it remembered in its place.
  const gone: Script["before"] = (call) => {
    if (call.method === "use" && call.engine === "webgpu") throw new Failure("device-lost");
  };
  expect((await load({ time, before: gone })).recommender.engine).toBe("cpu");
  const after = await load({ time, before });
  expect([after.timed, after.recommender.engine]).toEqual([0, "cpu"]);
});

test("a GPU that packed products may slow down is timed without them, where it has lost narrowly", async () => {
  // Milliseconds with them and without, and what is chosen.
  const narrow = { packed: 9, plain: 3 };
  const cases = [
    { ...narrow, weightFormat: "q8", chosen: ["webgpu", false] },
    { ...narrow, weightFormat: "q8", adapter: "apple metal-3", chosen: ["cpu", undefined] },
    { ...narrow, weightFormat: "q4", chosen: ["webgpu", false] },
    { ...narrow, weightFormat: "f32", chosen: ["cpu", undefined] },
    { ...narrow, weightFormat: "q8", gpu: { packedProducts: true }, chosen: ["cpu", true] },
    { ...narrow, weightFormat: "q8", gpu: { subgroups: true }, chosen: ["cpu", undefined] },
    { packed: 3, plain: 1, weightFormat: "q8", chosen: ["webgpu", undefined] },
    { packed: 9, plain: 8, weightFormat: "q8", chosen: ["cpu", undefined] },
    { packed: 99, plain: 3, weightFormat: "q8", chosen: ["cpu", undefined] },
  ] as const;
  for (const { packed, plain, chosen, ...more } of cases) {
    const asked: Script & { gpu?: GpuOptions } = more;
    const { gpu = {}, adapter = "another", weightFormat = "q8" } = asked;
    vi.stubGlobal("localStorage", storage());
    const time = ({ engine, gpu }: FakeWorker) => {
      if (engine === "cpu") return 5;
      return gpu.packedProducts === false ? plain : packed;
    };
    for (const isFirst of [true, false]) {
      const { made, worker } = fakeWorkers({ weightFormat, adapter, time });
      const recommender = await Recommender.load(BUNDLE, { worker, gpu });
      const [fake] = made;
      expect([recommender.engine, fake?.gpu.packedProducts]).toEqual(chosen);
      expect(fake?.calls.some(({ method }) => method === "recommend")).toBe(isFirst);
    }
  }
});

test("a GPU that has lost is known to be slower, though it ends without packed products", async () => {
  vi.stubGlobal("localStorage", storage());
  const script: Script = {
    weightFormat: "q8",
    time: { cpu: 5, webgpu: 9 },
    before: (call) => {
      if (call.method === "use" && call.gpu.packedProducts === false) throw new Failure("crash");
    },
  };
  expect((await load(script)).recommender.engine).toBe("cpu");
  expect((await load(script)).timed).toBe(0);
});

test("a GPU that is far slower is not timed to the end", async () => {
  const { recommender, timed } = await load({ time: { cpu: 50, webgpu: 3000 } });
  expect(recommender.engine).toBe("cpu");
  const whole = (await load({ time: { cpu: 50, webgpu: 60 } })).timed;
  expect(timed).toBeLessThan(whole);
});

test.each([
  ["webgpu", "a first call that compiles is forgiven", [60, 2, 2, 2]],
  ["webgpu", "the median of the others is shorter than the CPU's", [2, 3, 9, 4]],
  ["cpu", "the median of the others is longer than the CPU's", [2, 9, 9, 1]],
  ["cpu", "one of the others is far longer than the CPU's", [2, 2, 40, 3]],
] as const)("auto takes %s where %s", async (engine, _, ofGpu) => {
  let calls = 0;
  const time = (fake: FakeWorker) => (fake.engine === "cpu" ? 5 : (ofGpu[calls++] ?? 5));
  const { recommender } = await load({ time });
  expect(recommender.engine).toBe(engine);
  expect(calls).toBeGreaterThan(2);
});

test("without an adapter nothing is timed", async () => {
  const { recommender, timed } = await load({ adapter: null });
  expect(recommender.engine).toBe("cpu");
  expect(timed).toBe(0);
});

test.each(["device-lost", "crash"] as const)(
  "a GPU that ends in %s while it is timed leaves the CPU in use",
  async (code) => {
    const { recommender } = await load({
      time: { cpu: 5, webgpu: 2 },
      before: (call, worker) => {
        if (call.method === "recommend" && worker.engine === "webgpu") throw new Failure(code);
      },
    });
    expect(recommender.engine).toBe("cpu");
    expect(await recommender.recommend({ history: ["a"] })).toMatchObject([{ id: "a" }]);
  },
);

test.each([
  ["with what not every GPU has", "webgpu", (gpu: GpuOptions) => gpu.halves !== false],
  ["whatever it makes use of", "cpu", () => true],
] as const)("a GPU that computes wrongly %s is not taken so", async (_, engine, isWrong) => {
  vi.stubGlobal("localStorage", storage());
  const time = { cpu: 5, webgpu: 2 };
  const score = ({ engine, gpu }: FakeWorker) => {
    return engine === "webgpu" && isWrong(gpu) ? Number.NaN : -1.04;
  };
  for (const isFirst of [true, false]) {
    const { recommender, timed } = await load({ time, score });
    expect([recommender.engine, timed > 0]).toEqual([engine, isFirst]);
    expect((await recommender.recommend({ history: ["a"] }))[0]?.score).toBe(-1.04);
  }
});

test("what rounding changes is not wrong", async () => {
  const time = { cpu: 5, webgpu: 2 };
  const score = (off: number) => (fake: FakeWorker) => (fake.engine === "webgpu" ? -1 - off : -1);
  expect((await load({ time, score: score(0.04) })).recommender.engine).toBe("webgpu");
  expect((await load({ time, score: score(0.06) })).recommender.engine).toBe("cpu");
});

test.each([
  ["webgpu", "half of what the CPU finds", ["a", "b", "x", "y"]],
  ["cpu", "less than half of it", ["a", "x", "y", "z"]],
  ["cpu", "nothing of it", ["x", "y", "z", "w"]],
  ["cpu", "nothing at all", []],
] as const)("auto takes %s where the GPU finds %s", async (engine, _, ofGpu) => {
  const found = (fake: FakeWorker) => (fake.engine === "cpu" ? ["a", "b", "c", "d"] : [...ofGpu]);
  const { recommender } = await load({ time: { cpu: 5, webgpu: 2 }, found });
  expect(recommender.engine).toBe(engine);
});

test("a GPU that answers wrongly once in many calls is not taken", async () => {
  let calls = 0;
  const { recommender } = await load({
    time: { cpu: 5, webgpu: 2 },
    score: ({ engine }) => (engine === "webgpu" && ++calls % 3 === 0 ? -2 : -1),
  });
  expect(recommender.engine).toBe("cpu");
});

test("kernels that WebGPU refuses are replaced by those that every GPU has", async () => {
  const { recommender } = await load({
    time: { cpu: 5, webgpu: 2 },
    before: (call) => {
      const builds = call.method === "use" && call.engine === "webgpu";
      if (builds && call.gpu.subgroups !== false) throw new Failure("no-gpu");
    },
  });
  expect(recommender.engine).toBe("webgpu");
});

test("a GPU that never answers ends in the CPU, for good", async () => {
  vi.stubGlobal("localStorage", storage());
  vi.useFakeTimers();
  const { made, worker } = fakeWorkers({ silent: asksGpu });
  const loading = Recommender.load(BUNDLE, { worker });
  await vi.advanceTimersByTimeAsync(40_000);
  const recommender = await loading;
  expect([recommender.engine, made.length]).toEqual(["cpu", 2]);
  expect(made[0]?.terminated).toBe(true);
  vi.useRealTimers();
  expect((await load({})).timed).toBe(0);
});

test("a remembered GPU that hangs by now is waited for once, and the CPU remembered", async () => {
  vi.stubGlobal("localStorage", storage());
  const time = { cpu: 5, webgpu: 2 };
  expect((await load({ time })).recommender.engine).toBe("webgpu");
  vi.useFakeTimers();
  const silent: Script["silent"] = (call) => call.method === "use" && call.engine === "webgpu";
  expect((await soon(load({ time, silent }), 31)).recommender.engine).toBe("cpu");
  vi.useRealTimers();
  const { recommender, timed } = await load({ time });
  expect([recommender.engine, timed]).toEqual(["cpu", 0]);
});

test("a GPU that fails in a call is not taken up by the next visit", async () => {
  const time = { cpu: 5, webgpu: 2 };
  for (const [hangs, timedAgain] of [
    [true, false],
    [false, true],
  ] as const) {
    vi.stubGlobal("localStorage", storage());
    vi.useFakeTimers();
    let works = true;
    const fails = (call: Call, fake: FakeWorker) => !works && asksGpu(call, fake);
    const before: Script["before"] = (call, fake) => {
      if (!hangs && fails(call, fake)) throw new Failure("device-lost");
    };
    const silent: Script["silent"] = (call, fake) => hangs && fails(call, fake);
    const { recommender } = await soon(load({ time, before, silent }));
    expect(recommender.engine).toBe("webgpu");
    works = false;
    expect((await soon(recommender.report({ history: ["a"] }), 31)).engine).toBe("cpu");
    vi.useRealTimers();
    expect((await load({ time })).timed > 0).toBe(timedAgain);
  }
});

test("a choice is not remembered of a tab that is not looked at, nor after a crash", async () => {
  vi.stubGlobal("localStorage", storage());
  const time = { cpu: 5, webgpu: 2 };
  const document = Object.assign(new EventTarget(), { visibilityState: "hidden" });
  vi.stubGlobal("document", document);
  expect((await load({ time })).recommender.engine).toBe("webgpu");
  document.visibilityState = "visible";
  // Nor where the visitor was away for a while.
  const away: Script["before"] = (call, fake) => {
    if (!asksGpu(call, fake)) return;
    for (const state of ["hidden", "visible"]) {
      document.visibilityState = state;
      document.dispatchEvent(new Event("visibilitychange"));
    }
  };
  expect((await load({ time, before: away })).recommender.engine).toBe("webgpu");
  expect(Object.keys(localStorage)).toEqual([]);
  const crash: Script["before"] = (call, fake) => {
    if (asksGpu(call, fake)) throw new Failure("crash");
  };
  expect((await load({ time, before: crash })).recommender.engine).toBe("cpu");
  expect(Object.keys(localStorage)).toEqual([]);
});

test("a GPU whose answer came while the page was frozen is not late", async () => {
  vi.useFakeTimers();
  let frozen = false;
  const { worker } = fakeWorkers({
    time: { cpu: 5, webgpu: 2 },
    before: (call, fake) => {
      if (!asksGpu(call, fake) || frozen) return;
      // However long it was, what is due runs once, before the messages that came.
      frozen = true;
      vi.advanceTimersToNextTimer();
    },
  });
  const loading = Recommender.load(BUNDLE, { worker });
  await vi.advanceTimersByTimeAsync(1000);
  expect([frozen, (await loading).engine]).toEqual([true, "webgpu"]);
});

test("a choice is forgotten after a month, with those of other bundles", async () => {
  vi.stubGlobal("localStorage", storage());
  const time = { cpu: 5, webgpu: 2 };
  vi.useFakeTimers({ toFake: ["Date"] });
  await load({ time, adapter: "an older one" });
  localStorage.setItem("the page's own", "old");
  vi.setSystemTime(Date.now() + 29 * 24 * 3_600_000);
  await load({ time });
  expect(Object.keys(localStorage)).toHaveLength(3);
  vi.setSystemTime(Date.now() + 2 * 24 * 3_600_000);
  expect((await load({ time })).timed).toBe(0);
  expect((await load({ time, adapter: "an older one" })).timed).toBeGreaterThan(0);
  vi.setSystemTime(Date.now() + 29 * 24 * 3_600_000);
  await load({ time, adapter: "a third" });
  const left = Object.keys(localStorage).map((key) => key.split("|")[3] ?? key);
  expect(left.sort()).toEqual(["a third", "an older one", "the page's own"]);
});

test("`use` tells of the engine that it ends with, and of no other", async () => {
  vi.stubGlobal("localStorage", storage());
  const { worker } = fakeWorkers({ time: { cpu: 5, webgpu: 2 } });
  const recommender = await Recommender.load(BUNDLE, { backend: "webgpu", worker });
  const told: string[] = [];
  recommender.on("backend-changed", ({ engine }) => told.push(engine));
  await recommender.use("auto");
  expect([recommender.engine, told]).toEqual(["webgpu", []]);
});

test("`auto` asks once more for all that the GPU has, where it had gone on without", async () => {
  vi.stubGlobal("localStorage", storage());
  let isBroken = false;
  const { made, worker } = fakeWorkers({
    time: { cpu: 5, webgpu: 2 },
    before: (call, fake) => {
      const fails = isBroken && asksGpu(call, fake) && fake.gpu.subgroups !== false;
      if (fails) throw new Failure("device-lost");
    },
  });
  const recommender = await Recommender.load(BUNDLE, { worker });
  isBroken = true;
  await recommender.recommend({ history: ["a"] });
  expect([recommender.engine, made[0]?.gpu.subgroups]).toEqual(["webgpu", false]);
  isBroken = false;
  await recommender.use("auto");
  expect([recommender.engine, made[0]?.gpu.subgroups]).toEqual(["webgpu", undefined]);
  const calls = made[0]?.calls.length;
  await recommender.use("auto");
  expect(made[0]?.calls.slice(calls).map(({ method }) => method)).toEqual(["adapter"]);
});

test("a remembered GPU that is refused by now does not cost the CPU engine that is in use", async () => {
  vi.stubGlobal("localStorage", storage());
  const time = { cpu: 5, webgpu: 2 };
  expect((await load({ time })).recommender.engine).toBe("webgpu");
  const { made, worker } = fakeWorkers({
    time,
    before: (call) => {
      if (call.method === "use" && call.engine === "webgpu") throw new Failure("no-gpu");
    },
  });
  const recommender = await Recommender.load(BUNDLE, { worker });
  expect(recommender.engine).toBe("cpu");
  const built = made[0]?.calls.flatMap((call) => (call.method === "use" ? call.engine : []));
  expect(built).toEqual(["webgpu", "webgpu", "webgpu"]);
});
