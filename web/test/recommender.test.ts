import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { expect, test, vi } from "vitest";
import { Recommender, TigretError } from "../src/index.js";
import { platform } from "../src/platform.js";
import type { Call } from "../src/protocol.js";
import { Failure, type FakeWorker, fakeWorkers } from "./fake-worker.js";

const BUNDLE = new Uint8Array(8);

/** The one that no test fakes. */
const nextTurn = setImmediate;

/** What a promise comes to within as many seconds of a faked clock. */
async function soon<T>(promise: Promise<T>, seconds = 3): Promise<T> {
  let over = false;
  const settled = promise.finally(() => {
    over = true;
  });
  settled.catch(() => {});
  for (let second = 0; second < seconds && !over; second++) {
    await vi.advanceTimersByTimeAsync(1000);
    // What is read of a Blob comes by no timer.
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => nextTurn(resolve));
  }
  if (!over) throw new Error(`not within ${seconds} seconds`);
  return settled;
}

/** A server that never answers; says whether the page has stopped waiting for it. */
function stubSilentServer(): { aborted: boolean } {
  const seen = { aborted: false };
  vi.stubGlobal("fetch", (_: unknown, { signal }: RequestInit) => {
    return new Promise((_resolve, reject) => {
      signal?.addEventListener("abort", () => {
        seen.aborted = true;
        reject(signal.reason);
      });
    });
  });
  return seen;
}

test("without an adapter `webgpu` is refused before the bundle has come", async () => {
  const { made, worker } = fakeWorkers({ adapter: null });
  const seen = stubSilentServer();
  try {
    const loading = Recommender.load("https://host/m.safetensors", { backend: "webgpu", worker });
    await expect(loading).rejects.toMatchObject({ code: "no-gpu" });
  } finally {
    vi.unstubAllGlobals();
  }
  expect(seen.aborted).toBe(true);
  expect(made[0]?.terminated).toBe(true);
});

test.each([
  ["start", (fake: FakeWorker) => fake.failToStart()],
  [
    "have its module",
    (_: FakeWorker, { method }: Call) => {
      if (method === "require") throw new Failure("crashed");
    },
  ],
])("a worker that cannot %s is told of before the bundle has come", async (_, fail) => {
  const { made, worker } = fakeWorkers({ before: (call, fake) => fail(fake, call) });
  const seen = stubSilentServer();
  try {
    for (const backend of ["auto", "cpu"] as const) {
      seen.aborted = false;
      const loading = Recommender.load("https://host/m.safetensors", { backend, worker });
      await expect(loading).rejects.toMatchObject({ code: "crashed" });
      expect(seen.aborted).toBe(true);
    }
  } finally {
    vi.unstubAllGlobals();
  }
  expect(made).toHaveLength(2);
});

test("a worker that ends while the bundle is on its way is replaced", async () => {
  const { made, worker } = fakeWorkers({
    before: ({ method }, fake) => {
      if (method === "require" && fake === made[0]) throw new Failure("crash");
    },
  });
  const blob = new Blob([BUNDLE]);
  const bytes = blob.arrayBuffer.bind(blob);
  blob.arrayBuffer = () => new Promise((resolve) => setTimeout(() => resolve(bytes()), 50));
  const recommender = await Recommender.load(blob, { backend: "cpu", worker });
  expect(made.map(({ terminated }) => terminated)).toEqual([true, false]);
  recommender.dispose();
});

test("a signal ends a load whose bytes do not come, and the worker with it", async () => {
  const { made, worker } = fakeWorkers();
  const blob = new Blob([BUNDLE]);
  blob.arrayBuffer = () => new Promise(() => {});
  const controller = new AbortController();
  const { signal } = controller;
  const loading = Recommender.load(blob, { backend: "cpu", worker, signal });
  setTimeout(() => controller.abort());
  await expect(loading).rejects.toMatchObject({ name: "AbortError" });
  expect(made[0]?.terminated).toBe(true);
});

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

test("the caller keeps the bytes that it gave", async () => {
  const { made, worker } = fakeWorkers();
  await Recommender.load(BUNDLE, { backend: "cpu", worker });
  expect(BUNDLE.byteLength).toBe(8);
  expect(made[0]?.calls[0]).toMatchObject({ method: "load", bytes: BUNDLE });
});

test("a refused bundle rejects with its message and ends the worker", async () => {
  const { made, worker } = fakeWorkers({
    before: () => {
      throw new Failure("bad-bundle", "tensor `shared.weight`: is missing");
    },
  });
  const loading = Recommender.load(BUNDLE, { worker });
  await expect(loading).rejects.toBeInstanceOf(TigretError);
  await expect(loading).rejects.toMatchObject({
    code: "bad-bundle",
    message: "tensor `shared.weight`: is missing",
  });
  expect(made[0]?.terminated).toBe(true);
});

test("a refused bundle is named by its address, fetched here or by the page", async () => {
  const { worker } = fakeWorkers({
    before: ({ method }) => {
      if (method === "load") throw new Failure("bad-bundle", "is none");
    },
  });
  const url = "https://host/m.safetensors";
  const long = `data:,${"m".repeat(300_000)}`;
  vi.stubGlobal("fetch", async () => new Response(BUNDLE));
  const given = Object.defineProperty(new Response(BUNDLE), "url", { value: url });
  try {
    for (const source of [url, given, long]) {
      const loading = Recommender.load(source, { backend: "cpu", worker });
      const message = `${source === long ? `${long.slice(0, 100)}…` : url}: is none`;
      await expect(loading).rejects.toMatchObject({ code: "bad-bundle", message });
    }
  } finally {
    vi.unstubAllGlobals();
  }
});

test("a bundle that came packed is named as that", async () => {
  const { worker } = fakeWorkers({
    before: ({ method }) => {
      if (method === "load") throw new Failure("bad-bundle", "the header is too long");
    },
  });
  const packed = new Uint8Array([0x1f, 0x8b, 8, 0]);
  const url = "https://host/m.safetensors";
  vi.stubGlobal("fetch", async () => new Response(packed));
  try {
    for (const [source, from] of [
      [url, url],
      [packed, "the bundle"],
    ] as const) {
      const loading = Recommender.load(source, { backend: "cpu", worker });
      const message = `${from}: it is gzip; serve it with Content-Encoding: gzip, or unpack it`;
      await expect(loading).rejects.toMatchObject({ code: "bad-bundle", message });
    }
  } finally {
    vi.unstubAllGlobals();
  }
});

test("a worker that cannot start is an error that says what to do", async () => {
  const { worker } = fakeWorkers({ before: (_call, fake) => fake.failToStart() });
  // What a bundler makes of `import.meta.url` where its output has none.
  const nowhere = () => new Worker(new URL("./worker.js", ""));
  for (const start of [worker, nowhere]) {
    const error = await Recommender.load(BUNDLE, { worker: start }).catch((e) => e);
    expect(error.code).toBe("crashed");
    for (const remedy of [
      "own origin",
      "pkg/",
      "COEP",
      "worker-src in the content security policy",
      "tigret/inline (worker-src blob:)",
    ]) {
      expect(error.message).toContain(remedy);
    }
  }
});

test("aborting a load rejects with the reason and ends the worker", async () => {
  const controller = new AbortController();
  const { made, worker } = fakeWorkers({ before: () => controller.abort() });
  const loading = Recommender.load(BUNDLE, { worker, signal: controller.signal });
  await expect(loading).rejects.toMatchObject({ name: "AbortError" });
  expect(made[0]?.terminated).toBe(true);
});

test("a load that is aborted before it begins starts no worker", async () => {
  const { made, worker } = fakeWorkers();
  const loading = Recommender.load(BUNDLE, { worker, signal: AbortSignal.abort() });
  await expect(loading).rejects.toMatchObject({ name: "AbortError" });
  expect(made).toHaveLength(0);
});

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

test("the page in one file has one address for all of its workers", async () => {
  const addresses: unknown[] = [];
  class Started {
    constructor(address: unknown) {
      addresses.push(address);
    }
  }
  vi.stubGlobal("WORKER", "");
  vi.stubGlobal("Worker", Started);
  const { startWorker } = platform;
  const making = vi.spyOn(URL, "createObjectURL");
  try {
    await import("../src/inline.js");
    for (let start = 0; start < 3; start++) platform.startWorker();
    expect(making).toHaveBeenCalledTimes(1);
    expect(new Set(addresses).size).toBe(1);
  } finally {
    platform.startWorker = startWorker;
    making.mockRestore();
    vi.unstubAllGlobals();
  }
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

test("a GPU that hangs while it is set up ends a load, and changes no engine", async () => {
  vi.useFakeTimers();
  try {
    const { worker } = fakeWorkers({
      silent: (call) => (call.method === "load" || call.method === "use") && call.engine !== "cpu",
    });
    const hung = { code: "crashed", message: expect.stringContaining("did not answer within 30") };
    const loading = Recommender.load(BUNDLE, { backend: "webgpu", worker });
    await expect(soon(loading, 31)).rejects.toMatchObject(hung);
    const recommender = await soon(Recommender.load(BUNDLE, { backend: "cpu", worker }));
    await expect(soon(recommender.use("webgpu"), 31)).rejects.toMatchObject(hung);
    const report = await soon(recommender.report({ history: ["a"] }));
    expect([report.engine, recommender.engine]).toEqual(["cpu", "cpu"]);
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

test("a search that exceeds the GPU's limits is answered by the CPU, and it alone", async () => {
  const { made, worker } = fakeWorkers({
    before: (call, { engine }) => {
      if (call.method !== "recommend" || engine === "cpu") return;
      if (call.request.beams > 100) throw new Failure("no-gpu");
    },
  });
  const gpu = { halves: false };
  const recommender = await Recommender.load(BUNDLE, { backend: "webgpu", gpu, worker });
  const told: unknown[] = [];
  recommender.on("device-lost", (detail) => told.push(detail));
  recommender.on("backend-changed", (detail) => told.push(detail));
  const reports = [200, 50].map((beams) => recommender.report({ history: ["a"], beams }));
  const [wide, next] = await Promise.all(reports);
  expect(wide).toMatchObject({
    engine: "cpu",
    engineName: "cpu of the fake",
    picks: [{ id: "a" }],
  });
  expect(next).toMatchObject({ engine: "webgpu", engineName: "webgpu of the fake" });
  expect([recommender.engine, told]).toEqual(["webgpu", []]);

  // Others as wide do not try the GPU again, which comes back for what it takes.
  const before = made[0]?.calls.length;
  for (const beams of [200, 300, 200, 150, 50]) {
    await recommender.recommend({ history: [], beams });
  }
  const said = made[0]?.calls.slice(before).map((call) => {
    if (call.method === "recommend") return call.request.beams;
    return call.method === "use" && call.engine;
  });
  expect(said).toEqual([200, "cpu", 200, 300, 200, "webgpu", 150, "cpu", 150, "webgpu", 50]);
  expect(made[0]?.calls.at(-2)).toMatchObject({ method: "use", gpu });
  expect(made).toHaveLength(1);
});

test("items are added to the GPU, not to the CPU in its place", async () => {
  const { made, worker } = fakeWorkers({
    before: (call, { engine }) => {
      if (engine === "webgpu" && call.method === "recommend") throw new Failure("no-gpu");
      if (engine === "webgpu" && call.method === "add") throw new Failure("no-gpu", "too many");
    },
  });
  const recommender = await Recommender.load(BUNDLE, { backend: "webgpu", worker });
  await recommender.recommend({ history: [], beams: 200 });
  const adding = recommender.addItems([{ id: "x", embedding: [1, 2] }]);
  await expect(adding).rejects.toMatchObject({ code: "no-gpu", message: "too many" });
  expect([recommender.engine, recommender.info.items, made.length]).toEqual(["webgpu", 3, 1]);
});

test("a search that fails on the CPU in the GPU's place is tried there once more", async () => {
  for (const crashes of [1, 2]) {
    let left = crashes;
    const { made, worker } = fakeWorkers({
      before: (call, { engine }) => {
        if (call.method !== "recommend" || call.request.beams <= 100) return;
        if (engine === "webgpu") throw new Failure("no-gpu");
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
      ["load", "recommend", "use", "recommend"],
      ["load", "recommend"],
    ]);
    // One that ended with nothing to do is no failure of the search.
    if (crashes === 1) {
      left = 1;
      made[1]?.terminate();
      vi.useFakeTimers();
      const again = recommender.report({ history: ["a"], beams: 200 }).catch(({ code }) => code);
      await vi.advanceTimersByTimeAsync(10_000);
      vi.useRealTimers();
      expect([await again, made.length]).toMatchObject([{ engine: "cpu" }, 4]);
    }
    // The GPU stays the engine in use.
    expect(recommender.engine).toBe("webgpu");
    expect((await recommender.report({ history: ["a"] })).engine).toBe("webgpu");
  }
});

test("a GPU that cannot be set up again after such a search gives way to the CPU", async () => {
  const { worker } = fakeWorkers({
    before: (call, { engine }) => {
      const builds = call.method === "use" && call.engine === "webgpu";
      const searches = call.method === "recommend" && engine === "webgpu";
      if (builds || searches) throw new Failure("no-gpu");
    },
  });
  const recommender = await Recommender.load(BUNDLE, { backend: "webgpu", worker });
  const told: string[] = [];
  recommender.on("backend-changed", ({ engine }) => told.push(engine));
  expect((await recommender.report({ history: [] })).engine).toBe("cpu");
  expect((await recommender.report({ history: [], beams: 10 })).engine).toBe("cpu");
  expect([recommender.engine, told]).toEqual(["cpu", ["cpu"]]);
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

test("a worker that cannot be made, or never starts, is an error that says so", async () => {
  const refused = () => {
    throw new DOMException("another origin", "SecurityError");
  };
  const loading = Recommender.load(BUNDLE, { worker: refused });
  await expect(loading).rejects.toMatchObject({
    code: "crashed",
    message: expect.stringContaining("another origin"),
  });
  vi.useFakeTimers();
  try {
    const { made, worker } = fakeWorkers();
    const silent = () => {
      const fake = worker();
      fake.terminate();
      return fake;
    };
    const waiting = Recommender.load(BUNDLE, { worker: silent });
    const said = expect(waiting).rejects.toMatchObject({
      code: "crashed",
      message: expect.stringMatching(
        /did not start within 60 seconds; `worker`.* has to start dist\/worker\.js.*tigret\/worker/,
      ),
    });
    await vi.advanceTimersByTimeAsync(60_000);
    await said;
    expect(made).toHaveLength(1);
  } finally {
    vi.useRealTimers();
  }
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

test("added items have semantic IDs and count", async () => {
  const { made, worker } = fakeWorkers();
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  const added = await recommender.addItems([
    { id: "x", embedding: [1, 2] },
    { id: "y", embedding: new Float64Array([3, 4]) },
  ]);
  expect(added).toEqual([
    { id: "x", codes: [1, 1] },
    { id: "y", codes: [1, 1] },
  ]);
  expect(recommender.info.items).toBe(5);
  expect(made[0]?.calls.at(-1)).toMatchObject({
    method: "add",
    ids: ["x", "y"],
    embeddings: new Float32Array([1, 2, 3, 4]),
    width: 2,
  });
});

test("added items outlive a crashed worker", async () => {
  let crashes = 1;
  const { made, worker } = fakeWorkers({
    before: (call) => {
      if (call.method === "recommend" && crashes-- > 0) throw new Failure("crash");
    },
  });
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  await recommender.addItems([{ id: "x", embedding: [1, 2] }]);
  await recommender.recommend({ history: ["x"] });
  expect(made).toHaveLength(2);
  expect(made[1]?.calls.map((call) => call.method)).toEqual(["load", "add", "recommend"]);
  expect(recommender.info.items).toBe(4);
});

test("what cannot be added is refused by name before the worker is asked", async () => {
  const { made, worker } = fakeWorkers();
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  for (const [items, message] of [
    [{ id: "x" }, "the items are an object, not an array"],
    [new Array(1), "items[0]: the options are undefined"],
    [[{ id: 7, embedding: [1, 2] }], "items[0].id is 7, not a string"],
    [[{ id: "\udc00x", embedding: [1, 2] }], "items[0].id holds half a character"],
    [new Array(2 ** 32 - 1), "4294967295 items are more than there is memory for"],
    [[{ id: "x", embedding: [1] }], 'the embedding of item "x" has 1 numbers; this model needs 2'],
    [[{ id: "x", embedding: "ab" }], 'the embedding of item "x" is "ab"; this model needs 2'],
    [[{ id: "x", embedding: [1, Number.NaN] }], 'number 1 of the embedding of item "x" is NaN'],
    [
      [{ id: "x", embedding: [1n, 2] }],
      'number 0 of the embedding of item "x" is 1n, not a number',
    ],
    [[{ id: "x", embedding: [1, -1e20] }], "is -100000000000000000000, not a number from -1e15 to"],
    [[{ id: "x", embeding: [1, 2] }], 'there is no option "embeding"'],
  ] as const) {
    const adding = recommender.addItems(items as never);
    await expect(adding).rejects.toMatchObject({ code: "bad-request" });
    await expect(adding).rejects.toThrow(message);
  }
  expect(made[0]?.calls).toHaveLength(1);
});

test("a model without a tokenizer takes no items, and says how to get one that does", async () => {
  const { worker } = fakeWorkers({ embedding: null });
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  const adding = recommender.addItems([]);
  await expect(adding).rejects.toMatchObject({ code: "no-tokenizer" });
  await expect(adding).rejects.toThrow("--with-tokenizer");
});
