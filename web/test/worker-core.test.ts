import { readFile } from "node:fs/promises";
import { expect, test, vi } from "vitest";
import type { Answer, Call, Loaded, Message } from "../src/protocol.js";
import { WARM_UP_REQUEST, warmUpBundle } from "../src/warm-up.js";
import { type Module, Server } from "../src/worker-core.js";
import { soon } from "./soon.js";

const wasm = async (): Promise<Module> =>
  new Uint8Array(await readFile(new URL("../pkg/tigret_infer_bg.wasm", import.meta.url)));

/** A server, and what it has said to each call. */
function started() {
  const said = new Map<number, Message>();
  const server = new Server(
    (message) => said.set("id" in message ? message.id : -1, message),
    wasm,
  );
  const value = (id: number) => {
    const message = said.get(id);
    if (message?.kind !== "result") throw new Error(JSON.stringify(message));
    return message.value;
  };
  return { server, value };
}

const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

test("a model is loaded before, during and after the warm-up", async () => {
  for (const wait of [null, 0, 20, 500]) {
    const { server, value } = started();
    const start = server.receive({ id: 0, method: "start" });
    if (wait !== null) await pause(wait);
    const bundle = { bytes: warmUpBundle(), engine: "cpu", gpu: {} } as const;
    await server.receive({ id: 1, method: "load", ...bundle });
    await server.receive({ id: 2, method: "recommend", request: WARM_UP_REQUEST });
    await start;
    expect(value(0)).toBeNull();
    expect((value(1) as Loaded).info.items).toBe(256);
    expect((value(2) as Answer).items).toHaveLength(WARM_UP_REQUEST.top);
  }
});

test("what the page says to its worker beside calls is not answered", async () => {
  const said: Message[] = [];
  const server = new Server((message) => said.push(message), wasm);
  for (const message of [null, undefined, "ready", 7, {}]) await server.receive(message as Call);
  expect(said).toEqual([]);
});

test("where there is no WebAssembly the page hears so", async () => {
  vi.resetModules();
  const { Server: Fresh } = await import("../src/worker-core.js");
  vi.stubGlobal("WebAssembly", undefined);
  const said: Message[] = [];
  const server = new Fresh((message) => said.push(message), wasm);
  const load = { method: "load", bytes: warmUpBundle(), engine: "cpu", gpu: {} } as const;
  await server.receive({ id: 0, ...load }).finally(() => vi.unstubAllGlobals());
  expect(said).toEqual([
    { kind: "crash", message: expect.stringContaining("this browser has no WebAssembly") },
  ]);
});

test.each([
  ["load", 0],
  ["load", 20],
  ["require", 20],
] as const)(
  "a module that cannot be fetched once is fetched again (%s, %i)",
  async (method, wait) => {
    // Another copy of what was compiled already.
    vi.resetModules();
    const { Server: Fresh } = await import("../src/worker-core.js");
    let fetches = 0;
    const said: Message[] = [];
    const server = new Fresh(
      (message) => said.push(message),
      async () => {
        if (++fetches === 1) throw new TypeError("the network failed");
        return wasm();
      },
    );
    const start = server.receive({ id: 0, method: "start" });
    await pause(wait);
    const load = { bytes: warmUpBundle(), engine: "cpu", gpu: {} } as const;
    await server.receive({ id: 1, method, ...load });
    await start;
    expect(said.map((message) => message.kind)).toEqual(["result", "result"]);
    expect(fetches).toBe(2);
  },
);

test("a browser that does not say whether it has an adapter has none", async () => {
  vi.useFakeTimers();
  vi.stubGlobal("navigator", { gpu: { requestAdapter: () => new Promise(() => {}) } });
  try {
    const { server, value } = started();
    const [asked, wanted] = [
      server.receive({ id: 0, method: "adapter" }),
      server.receive({ id: 1, method: "require", engine: "webgpu" }),
    ];
    await vi.advanceTimersByTimeAsync(30_000);
    await Promise.all([asked, wanted]);
    expect(value(0)).toBeNull();
    expect(() => value(1)).toThrow("no-gpu");
  } finally {
    vi.useRealTimers();
    vi.unstubAllGlobals();
  }
});

test("another file in the place of the module is an error with its address", async () => {
  vi.resetModules();
  const warned = vi.spyOn(console, "warn").mockImplementation(() => {});
  const { Server: Fresh } = await import("../src/worker-core.js");
  const address = "data:text/html,<!doctype%20html>";
  const said: Message[] = [];
  const server = new Fresh(
    (message) => said.push(message),
    async () => new URL(address),
  );
  await server.receive({ id: 1, method: "load", bytes: warmUpBundle(), engine: "cpu", gpu: {} });
  warned.mockRestore();
  const message = expect.stringMatching(
    /magic.* \(data:text.*doctype.*\): serve pkg\/ beside dist/,
  );
  expect(said).toEqual([{ kind: "crash", message }]);
});

test("a module that cannot be had is told of before there is a bundle", async () => {
  const blocked =
    "WebAssembly.instantiate(): Refused to compile or instantiate WebAssembly module because 'unsafe-eval' is not an allowed source of script in the following Content Security Policy directive";
  const causes: [Module, RegExp][] = [
    [new URL("data:,"), /\(data:,\): serve pkg\/ beside dist\//],
    [new Uint8Array(8), /; allow 'wasm-unsafe-eval' in script-src/],
  ];
  for (const [module, remedy] of causes) {
    vi.resetModules();
    vi.spyOn(WebAssembly, "instantiate").mockRejectedValue(new WebAssembly.CompileError(blocked));
    vi.stubGlobal("fetch", async () => new Response(null, { status: 404 }));
    const { Server: Fresh } = await import("../src/worker-core.js");
    const said: Message[] = [];
    const server = new Fresh(
      (message) => said.push(message),
      async () => module,
    );
    await server.receive({ id: 0, method: "require", engine: "cpu" });
    vi.restoreAllMocks();
    vi.unstubAllGlobals();
    const message = expect.stringMatching(remedy);
    expect(said).toEqual([{ kind: "error", id: 0, code: "crashed", message }]);
  }
});

test("a network that is gone for a while ends no load before there is a bundle", async () => {
  vi.resetModules();
  let isThere = false;
  vi.stubGlobal("fetch", async () => {
    if (!isThere) throw new TypeError("Failed to fetch");
    const headers = { "Content-Type": "application/wasm" };
    return new Response((await wasm()) as BodyInit, { headers });
  });
  const { Server: Fresh } = await import("../src/worker-core.js");
  const said: Message[] = [];
  const server = new Fresh(
    (message) => said.push(message),
    async () => new URL("https://host/pkg/module.wasm"),
  );
  const load = { method: "load", engine: "cpu", gpu: {} } as const;
  try {
    await server.receive({ id: 0, method: "require", engine: "cpu" });
    await server.receive({ id: 1, ...load, bytes: warmUpBundle() });
    isThere = true;
    await server.receive({ id: 2, ...load, bytes: warmUpBundle() });
  } finally {
    vi.unstubAllGlobals();
  }
  const message = expect.stringMatching(/Failed to fetch \(https.*; check the network/);
  expect(said.map(({ kind }) => kind)).toEqual(["result", "crash", "result"]);
  expect(said[1]).toEqual({ kind: "crash", message });
});

test.each([
  ["before it answers", 0],
  ["in the middle", 100_000],
])("a module whose server stalls %s is asked for again, and then given up", async (_, sent) => {
  const whole = (await wasm()) as Uint8Array<ArrayBuffer>;
  const stalls = (signal: AbortSignal) =>
    new Promise<Response>((resolve, reject) => {
      if (sent === 0) return signal.addEventListener("abort", () => reject(signal.reason));
      const start = (body: ReadableStreamDefaultController) => {
        body.enqueue(whole.subarray(0, sent));
        signal.addEventListener("abort", () => body.error(signal.reason));
      };
      resolve(new Response(new ReadableStream({ start }), { headers }));
    });
  const headers = { "Content-Type": "application/wasm" };
  const given = "crashed: nothing came for 30 seconds (https://host/module.wasm): serve pkg/";
  for (const [stalled, end] of [
    [1, "result"],
    [2, given],
  ] as const) {
    vi.resetModules();
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval"] });
    let fetches = 0;
    vi.stubGlobal("fetch", async (_: URL, { signal }: { signal: AbortSignal }) =>
      ++fetches > stalled ? new Response(whole, { headers }) : stalls(signal),
    );
    const { Server: Fresh } = await import("../src/worker-core.js");
    const said: Message[] = [];
    const server = new Fresh(
      (message) => said.push(message),
      async () => new URL("https://host/module.wasm"),
    );
    try {
      await soon(server.receive({ id: 0, method: "require", engine: "cpu" }), 63);
    } finally {
      vi.useRealTimers();
      vi.unstubAllGlobals();
    }
    const [first] = said;
    const ended = first?.kind === "error" ? `${first.code}: ${first.message}` : first?.kind;
    expect(ended?.slice(0, end.length)).toBe(end);
    expect(fetches).toBe(2);
  }
});
