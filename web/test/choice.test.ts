import { afterEach, expect, test, vi } from "vitest";
import { Recommender } from "../src/index.js";
import { Failure, fakeWorkers, type Script } from "./fake-worker.js";

const BUNDLE = new Uint8Array(8);

function storage(): Storage {
  const entries = new Map<string, string>();
  return {
    getItem: (key: string) => entries.get(key) ?? null,
    setItem: (key: string, value: string) => void entries.set(key, value),
  } as Storage;
}

async function load(script: Script) {
  const { made, worker } = fakeWorkers(script);
  const recommender = await Recommender.load(BUNDLE, { worker });
  const timed = made[0]?.calls.filter((call) => call.method === "recommend").length ?? 0;
  return { recommender, timed };
}

afterEach(() => vi.unstubAllGlobals());

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

test("a GPU that is far slower is not timed to the end", async () => {
  const { recommender, timed } = await load({ time: { cpu: 50, webgpu: 3000 } });
  expect(recommender.engine).toBe("cpu");
  const whole = (await load({ time: { cpu: 50, webgpu: 60 } })).timed;
  expect(timed).toBeLessThan(whole);
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
