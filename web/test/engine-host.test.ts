import { expect, test, vi } from "vitest";
import { Recommender } from "../src/index.js";
import type { Call } from "../src/protocol.js";
import { Failure, fakeWorkers } from "./fake-worker.js";
import { soon } from "./soon.js";

const BUNDLE = new Uint8Array(8);

test("a call that cannot be posted is repeated on another worker", async () => {
  const { made, worker } = fakeWorkers();
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  const first = made[0];
  if (!first) throw new Error("no worker");
  first.postMessage = () => {
    throw new DOMException("out of memory", "DataCloneError");
  };
  expect(await recommender.recommend({ history: ["a"] })).toHaveLength(1);
  expect([made.length, first.terminated]).toEqual([2, true]);
});

test("a bundle that the browser has lost is an error that says so", async () => {
  const { made, worker } = fakeWorkers();
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  const lost = () => Promise.reject(new DOMException("no disk", "NotReadableError"));
  const reading = vi.spyOn(Blob.prototype, "arrayBuffer").mockImplementation(lost);
  made[0]?.failToStart();
  await expect(recommender.recommend({ history: [] })).rejects.toMatchObject({
    code: "crashed",
    message: expect.stringContaining("no disk"),
  });
  reading.mockRestore();
  expect(await recommender.recommend({ history: ["a"] })).toHaveLength(1);
});

test("a lost device is rebuilt and the call repeated", async () => {
  let losses = 1;
  const { made, worker } = fakeWorkers({
    before: (call) => {
      if (call.method === "recommend" && losses-- > 0) throw new Failure("device-lost");
    },
  });
  const recommender = await Recommender.load(BUNDLE, { backend: "webgpu", worker });
  const report = await recommender.report({ history: ["a"] });
  expect(report).toMatchObject({ engine: "webgpu", picks: [{ id: "a" }] });
  expect(made).toHaveLength(1);
  expect(made[0]?.calls.map((call) => call.method)).toEqual([
    "load",
    "recommend",
    "use",
    "recommend",
  ]);
});

test("a device that is lost again hands over to the CPU for good", async () => {
  const { worker } = fakeWorkers({
    before: (call, fake) => {
      if (call.method === "recommend" && fake.engine === "webgpu") throw new Failure("device-lost");
    },
  });
  const recommender = await Recommender.load(BUNDLE, { backend: "webgpu", worker });
  expect((await recommender.report({ history: ["a"] })).engine).toBe("cpu");
  expect(recommender.engine).toBe("cpu");
});

test("a GPU that hangs gives way to the CPU, and is not waited for again", async () => {
  vi.useFakeTimers();
  try {
    // The first search, or the second time that it is set up, after a loss.
    for (const loses of [false, true]) {
      let lost = !loses;
      const { made, worker } = fakeWorkers({
        before: ({ method }) => {
          if (method !== "recommend" || lost) return;
          lost = true;
          throw new Failure("device-lost");
        },
        silent: ({ method }, { engine }) =>
          lost && engine === "webgpu" && ["use", "recommend"].includes(method),
      });
      const recommender = await soon(Recommender.load(BUNDLE, { backend: "webgpu", worker }));
      const told: string[] = [];
      recommender.on("device-lost", ({ error }) => told.push(error.message));
      const calls = [1, 2].map(() => recommender.report({ history: ["a"] }));
      for (const report of await soon(Promise.all(calls), 31)) {
        expect(report).toMatchObject({ engine: "cpu", picks: [{ id: "a" }] });
      }
      const hung = "the GPU did not answer within 30 seconds";
      expect(told).toEqual(loses ? ["scripted device-lost", hung] : [hung]);
      expect(made.map(({ terminated }) => terminated)).toEqual([true, false]);
    }
  } finally {
    vi.useRealTimers();
  }
});

test("a worker that takes long to start is not taken for a GPU that hangs", async () => {
  vi.useFakeTimers();
  try {
    const { made, worker } = fakeWorkers();
    const slow = () => {
      const fake = worker();
      // The first call of all is the one that asks whether it is there.
      fake.postMessage = (call) => {
        Reflect.deleteProperty(fake, "postMessage");
        setTimeout(() => fake.postMessage(call), 40_000);
      };
      return fake;
    };
    const loading = Recommender.load(BUNDLE, { backend: "webgpu", worker: slow });
    expect((await soon(loading, 45)).engine).toBe("webgpu");
    // Nor is the one that takes its place.
    made[0]?.failToStart();
    const recommender = await loading;
    const report = await soon(recommender.report({ history: ["a"] }), 45);
    expect([report.engine, made.length]).toEqual(["webgpu", 2]);
  } finally {
    vi.useRealTimers();
  }
});

test("without Web Locks a call of the CPU makes sure of its worker once", async () => {
  const asked: string[] = [];
  const { worker } = fakeWorkers({ before: ({ method }) => asked.push(method) });
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  asked.length = 0;
  await recommender.recommend({ history: ["a"] });
  expect(asked).toEqual(["start", "hold", "recommend"]);
});

test.each([
  ["recommend", (one: Recommender, signal: AbortSignal) => one.recommend({ history: [], signal })],
  ["trace", (one: Recommender, signal: AbortSignal) => one.trace({ history: [], signal })],
] as const)(
  "without Web Locks a worker that ended in a call (%s) is replaced a minute after it was aborted",
  async (method, call) => {
    vi.useFakeTimers();
    try {
      // The first one ends in the call.
      const { made, worker } = fakeWorkers({
        silent: (call, self) => {
          if (call.method === method && self === made[0]) self.terminate();
          return self.terminated;
        },
      });
      const recommender = await soon(Recommender.load(BUNDLE, { backend: "cpu", worker }));
      const controller = new AbortController();
      const aborted = call(recommender, controller.signal);
      await vi.waitFor(() => expect(made[0]?.calls.at(-1)?.method).toBe(method));
      const next = recommender.recommend({ history: ["next"] });
      controller.abort();
      await expect(aborted).rejects.toMatchObject({ name: "AbortError" });
      await expect(soon(Promise.race([next]), 58)).rejects.toThrow("not within");
      expect(await soon(next, 4)).toMatchObject([{ id: "next" }]);
      // Nobody waits for the first one.
      expect(made[1]?.calls.map(({ method }) => method)).toEqual(["load", "recommend"]);
    } finally {
      vi.useRealTimers();
    }
  },
);

test("without Web Locks a worker that computes on after its call was aborted is left alone", async () => {
  vi.useFakeTimers();
  try {
    const { made, worker } = fakeWorkers();
    const recommender = await soon(Recommender.load(BUNDLE, { backend: "cpu", worker }));
    const [first] = made;
    if (!first) throw new Error("no worker");
    const post = first.postMessage.bind(first);
    // It hears nothing while it computes.
    const unheard: Call[] = [];
    let isBusy = false;
    first.postMessage = (call) => {
      isBusy ||= call.method === "recommend";
      if (isBusy) unheard.push(call);
      else post(call);
    };
    const controller = new AbortController();
    const aborted = recommender.recommend({ history: [], signal: controller.signal });
    await vi.waitFor(() => expect(isBusy).toBe(true));
    const next = recommender.recommend({ history: ["next"] });
    controller.abort();
    await expect(aborted).rejects.toMatchObject({ name: "AbortError" });
    await expect(soon(Promise.race([next]), 55)).rejects.toThrow("not within");
    first.postMessage = post;
    for (const call of unheard) post(call);
    expect(await soon(next)).toMatchObject([{ id: "next" }]);
    await vi.advanceTimersByTimeAsync(60_000);
    expect([made.length, first.terminated]).toEqual([1, false]);
  } finally {
    vi.useRealTimers();
  }
});

test("a search that exceeds the GPU's limits is answered by the CPU beside it, and it alone", async () => {
  const { made, worker } = fakeWorkers({
    before: (call, { engine }) => {
      if (call.method !== "recommend" || call.onCpu || engine === "cpu") return;
      if (call.request.beams > 100) throw new Failure("no-gpu");
    },
  });
  const recommender = await Recommender.load(BUNDLE, { backend: "webgpu", worker });
  const told: unknown[] = [];
  recommender.on("device-lost", (detail) => told.push(detail));
  recommender.on("backend-changed", (detail) => told.push(detail));
  const reports = [200, 50].map((beams) => recommender.report({ history: ["a"], beams }));
  const [wide, next] = await Promise.all(reports);
  expect(wide).toMatchObject({ engine: "cpu", engineName: "cpu", picks: [{ id: "a" }] });
  expect(next).toMatchObject({ engine: "webgpu", engineName: "webgpu of the fake" });
  expect([recommender.engine, told]).toEqual(["webgpu", []]);
  // No engine was built for it.
  const methods = made.flatMap(({ calls }) => calls.map(({ method }) => method));
  expect(methods).toEqual(["load", "recommend", "recommend", "recommend"]);
});

test("a search that fails on the CPU beside the GPU is tried there once more", async () => {
  for (const crashes of [1, 2]) {
    let left = crashes;
    const { made, worker } = fakeWorkers({
      before: (call) => {
        if (call.method !== "recommend" || call.request.beams <= 100) return;
        if (!call.onCpu) throw new Failure("no-gpu");
        if (left-- > 0) throw new Failure("crash");
      },
    });
    const recommender = await Recommender.load(BUNDLE, { backend: "webgpu", worker });
    const searching = recommender.report({ history: ["a"], beams: 200 }).then(
      ({ engine }) => engine,
      (error) => error.code,
    );
    expect(await searching).toBe(crashes === 1 ? "cpu" : "crashed");
    expect(made.map(({ calls }) => calls.map(({ method }) => method))).toEqual([
      ["load", "recommend", "recommend"],
      ["load", "recommend"],
    ]);
    // The GPU stays the engine in use.
    expect(recommender.engine).toBe("webgpu");
    expect((await recommender.report({ history: ["a"] })).engine).toBe("webgpu");
  }
});

test("a crashed worker is started again with the same bundle", async () => {
  let crashes = 1;
  const { made, worker } = fakeWorkers({
    before: (call) => {
      if (call.method === "recommend" && crashes-- > 0) throw new Failure("crash");
    },
  });
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  expect(await recommender.recommend({ history: ["a"] })).toMatchObject([{ id: "a" }]);
  expect(made).toHaveLength(2);
  expect(made[0]?.terminated).toBe(true);
  expect(made[1]?.calls[0]).toMatchObject({ method: "load", bytes: BUNDLE });
});

test("a worker that finds no GPU again gives way to one on the CPU", async () => {
  let crashed = false;
  const { made, worker } = fakeWorkers({
    before: (call) => {
      if (call.method === "load" && call.engine === "webgpu" && crashed) {
        throw new Failure("no-gpu");
      }
      if (call.method === "recommend" && !crashed) {
        crashed = true;
        throw new Failure("crash");
      }
    },
  });
  const recommender = await Recommender.load(BUNDLE, { backend: "webgpu", worker });
  const report = await recommender.report({ history: ["a"] });
  expect(report).toMatchObject({ engine: "cpu", picks: [{ id: "a" }] });
  // The second and the third, with what every GPU has, have no model and answer nothing.
  expect(made.map((fake) => fake.terminated)).toEqual([true, true, true, false]);
  expect(made[3]?.calls.map((call) => call.method)).toEqual(["load", "recommend"]);
});

test("a GPU that fails with what not every GPU has goes on without it", async () => {
  const { made, worker } = fakeWorkers({
    before: (call, fake) => {
      if (call.method !== "recommend") return;
      const built = fake.calls.filter(({ method }) => method === "load" || method === "use");
      const { gpu } = built.at(-1) as { gpu: { halves?: boolean } };
      if (gpu.halves !== false) throw new Failure("device-lost");
    },
  });
  const recommender = await Recommender.load(BUNDLE, { backend: "webgpu", worker });
  const report = await recommender.report({ history: ["a"] });
  expect(report).toMatchObject({ engine: "webgpu", picks: [{ id: "a" }] });
  expect(made).toHaveLength(1);
  const plain = { halves: false, packedProducts: false, subgroups: false };
  expect(made[0]?.calls.at(-2)).toMatchObject({ method: "use", engine: "webgpu", gpu: plain });
});

test("after a GPU that fails whatever it makes use of, the options are the caller's again", async () => {
  let broken = true;
  const { made, worker } = fakeWorkers({
    before: (call, fake) => {
      if (call.method === "recommend" && fake.engine === "webgpu" && broken) {
        throw new Failure("device-lost");
      }
    },
  });
  const gpu = { halves: false };
  const recommender = await Recommender.load(BUNDLE, { backend: "webgpu", gpu, worker });
  expect((await recommender.report({ history: ["a"] })).engine).toBe("cpu");
  broken = false;
  await recommender.use("webgpu");
  expect(made[0]?.calls.at(-1)).toMatchObject({ method: "use", engine: "webgpu", gpu });
  expect(made[0]?.calls.at(-1)).not.toHaveProperty("gpu.subgroups");
});

test("`auto` starts a worker that has ended again", async () => {
  const { made, worker } = fakeWorkers({ adapter: null });
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  made[0]?.failToStart();
  await recommender.use("auto");
  expect(made).toHaveLength(2);
  expect(await recommender.recommend({ history: ["a"] })).toHaveLength(1);
});

test("a worker that was made before is refused at once, at a load and where one is replaced", async () => {
  const { made, worker } = fakeWorkers();
  const one = worker();
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker: () => one });
  const refused = {
    code: "bad-request",
    message: expect.stringContaining("a new one at each call"),
  };
  const another = Recommender.load(BUNDLE, { backend: "cpu", worker: () => one });
  await expect(another).rejects.toMatchObject(refused);
  expect(await recommender.recommend({ history: ["a"] })).toHaveLength(1);
  made[0]?.failToStart();
  await expect(recommender.recommend({ history: ["a"] })).rejects.toMatchObject(refused);
});

test("what the CPU answers anyway needs no GPU after a crash", async () => {
  let crashed = false;
  const { worker } = fakeWorkers({
    before: (call) => {
      if (call.method === "load" && crashed) {
        if (call.engine === "webgpu") throw new Failure("no-gpu");
      } else if (call.method === "catalogue" && !crashed) {
        crashed = true;
        throw new Failure("crash");
      }
    },
  });
  const recommender = await Recommender.load(BUNDLE, { backend: "webgpu", worker });
  await expect(recommender.catalogue()).rejects.toMatchObject({ code: "crashed" });
  expect(await recommender.catalogue()).toBeDefined();
  expect(recommender.engine).toBe("cpu");
});

test("a worker that is lost is told of once, whichever call meets it", async () => {
  for (const meets of ["recommend", "catalogue"] as const) {
    const { made, worker } = fakeWorkers();
    const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
    const told: string[] = [];
    recommender.on("device-lost", ({ error }) => told.push(error.code));
    made[0]?.failToStart();
    if (meets === "recommend") await recommender.recommend({ history: [] });
    else await recommender.catalogue();
    await recommender.recommend({ history: [] });
    expect(told, meets).toEqual(["crashed"]);
  }
});

test("what crashes on the CPU too is reported, and the next call tries again", async () => {
  let broken = true;
  const { worker } = fakeWorkers({
    before: (call) => {
      if (call.method === "recommend" && broken) throw new Failure("crash", "a panic's message");
    },
  });
  const recommender = await Recommender.load(BUNDLE, { backend: "webgpu", worker });
  await expect(recommender.recommend({ history: [] })).rejects.toMatchObject({
    code: "crashed",
    message: expect.stringContaining("a panic's message"),
  });
  broken = false;
  expect(await recommender.recommend({ history: ["a"] })).toMatchObject([{ id: "a" }]);
});

test("a bad request is not tried again", async () => {
  const { made, worker } = fakeWorkers({
    before: (call) => {
      if (call.method === "recommend") throw new Failure("bad-request");
    },
  });
  const recommender = await Recommender.load(BUNDLE, { backend: "webgpu", worker });
  await expect(recommender.recommend({ history: [] })).rejects.toMatchObject({
    code: "bad-request",
  });
  expect(made[0]?.calls).toHaveLength(2);
  // How many users the model has, the page knows by itself.
  await expect(recommender.recommend({ history: [], userToken: 10 })).rejects.toMatchObject({
    code: "bad-request",
    message: expect.stringContaining("userToken"),
  });
  expect(made[0]?.calls).toHaveLength(2);
});

test("changing to a GPU that is not there rejects and keeps the engine", async () => {
  const { worker } = fakeWorkers({
    before: (call) => {
      if (call.method === "use" && call.engine === "webgpu") throw new Failure("no-gpu");
    },
  });
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  await expect(recommender.use("webgpu")).rejects.toMatchObject({ code: "no-gpu" });
  expect(recommender.engine).toBe("cpu");
  expect(await recommender.recommend({ history: ["a"] })).toHaveLength(1);
});

test("a lost device and another engine are told of", async () => {
  let fails = false;
  const { worker } = fakeWorkers({
    before: (call, worker) => {
      if (fails && call.method === "recommend" && worker.engine === "webgpu") {
        throw new Failure("device-lost");
      }
    },
  });
  const recommender = await Recommender.load(BUNDLE, { backend: "webgpu", worker });
  const seen: string[] = [];
  recommender.on("device-lost", ({ error }) => seen.push(error.code));
  const off = recommender.on("backend-changed", ({ engine }) => seen.push(engine));
  fails = true;
  expect((await recommender.report({ history: [] })).engine).toBe("cpu");
  expect(seen).toEqual(["device-lost", "cpu"]);
  off();
  fails = false;
  await recommender.use("webgpu");
  expect(seen).toHaveLength(2);
});
