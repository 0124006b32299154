import { expect, test, vi } from "vitest";
import { Recommender, TigretError } from "../src/index.js";
import { platform } from "../src/platform.js";
import type { Call } from "../src/protocol.js";
import { Failure, type FakeWorker, fakeWorkers } from "./fake-worker.js";
import { soon } from "./soon.js";

const BUNDLE = new Uint8Array(8);

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

test("a signal ends a load that waits for the kept copy", async () => {
  const { made, worker } = fakeWorkers({
    before: ({ method }) => {
      if (method === "load") throw new Failure("bad-bundle", "is none");
    },
  });
  const controller = new AbortController();
  const { signal } = controller;
  const copy = {
    headers: new Headers({ "x-tigret-sha256": "0" }),
    arrayBuffer: () => {
      controller.abort();
      return new Promise(() => {});
    },
  };
  vi.stubGlobal("caches", { open: async () => ({ match: async () => copy }) });
  vi.stubGlobal("fetch", async () => new Response(BUNDLE));
  try {
    const loading = Recommender.load("https://host/m.safetensors", { worker, signal });
    await expect(loading).rejects.toMatchObject({ name: "AbortError" });
  } finally {
    vi.unstubAllGlobals();
  }
  expect(made[0]?.terminated).toBe(true);
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

test.each([
  [{ cache: 1 }, "cache is 1"],
  [{ historyName: 5 }, "historyName"],
  [{ integrity: "x" }, "integrity"],
])("load refuses %o", async (options, message) => {
  const { worker } = fakeWorkers();
  const loading = Recommender.load(new Uint8Array(1), { worker, ...(options as object) });
  await expect(loading).rejects.toMatchObject({
    code: "bad-request",
    message: expect.stringContaining(message),
  });
});
