/** The worker: holds the wasm module and answers one call at a time. */

import init, { Session } from "../pkg/tigret_infer.js";
import type { TigretErrorCode } from "./errors.js";
import type {
  Added,
  Answer,
  Call,
  Engine,
  Message,
  Method,
  Methods,
  ModelInfo,
} from "./protocol.js";

const CODES: readonly string[] = [
  "bad-request",
  "bad-bundle",
  "no-tokenizer",
  "no-gpu",
  "device-lost",
];

let session: Session | undefined;

function post(message: Message): void {
  self.postMessage(message);
}

function backendOf(engine: Engine): string {
  return engine === "webgpu" ? "gpu" : "cpu";
}

function loaded(): Session {
  if (!session) throw new Error("the worker was asked before it had a model");
  return session;
}

/** The engine in words. wgpu does not say the adapter's name in a browser. */
async function engineName(engine: Engine): Promise<string> {
  return engine === "cpu" ? "cpu" : ((await adapterInWords()) ?? loaded().engine);
}

/** The adapter in words; part of the key under which the faster engine is remembered. */
async function adapterInWords(): Promise<string | null> {
  try {
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) return null;
    const { vendor, architecture, device, description } = adapter.info;
    return [vendor, architecture, device, description].filter(Boolean).join(" ") || "unnamed";
  } catch {
    return null;
  }
}

/** Refuses `webgpu` in plainer words than wgpu's where the browser has no adapter. */
async function requireAdapter(engine: Engine): Promise<void> {
  if (engine === "cpu" || (await adapterInWords()) !== null) return;
  const why = navigator.gpu
    ? "this browser has WebGPU, but no adapter for it (is hardware acceleration turned off?)"
    : "this browser has no WebGPU, or the page is not served over HTTPS";
  const message = `no usable GPU: ${why}; use backend "auto" or "cpu"`;
  throw Object.assign(new Error(message), { code: "no-gpu" });
}

async function answer(call: Call): Promise<Methods[Method]["result"]> {
  switch (call.method) {
    case "load": {
      await init({ module_or_path: new URL("../pkg/tigret_infer_bg.wasm", import.meta.url) });
      await requireAdapter(call.engine);
      session?.free();
      session = undefined;
      session = await Session.load(call.bytes, backendOf(call.engine));
      return {
        info: session.info() as ModelInfo,
        engineName: await engineName(call.engine),
        adapter: await adapterInWords(),
        sampleHistory: session.sampleHistory() as string[],
      };
    }
    case "use": {
      await requireAdapter(call.engine);
      await loaded().useBackend(backendOf(call.engine));
      return { engineName: await engineName(call.engine) };
    }
    case "add": {
      const { ids, embeddings, width } = call;
      const items = ids.map((id, at) => ({
        id,
        embedding: embeddings.subarray(at * width, (at + 1) * width),
      }));
      const added = loaded().addItems(items) as Added[];
      return { added, items: (loaded().info() as ModelInfo).items };
    }
    case "recommend": {
      const start = performance.now();
      const { items, unknown } = (await loaded().recommend(call.request)) as Answer;
      return { items, unknown, milliseconds: performance.now() - start };
    }
  }
}

self.addEventListener("message", async ({ data: call }: MessageEvent<Call>) => {
  try {
    post({ kind: "result", id: call.id, value: await answer(call) });
  } catch (cause) {
    const error = cause as Error & { code?: string };
    if (error.code && CODES.includes(error.code)) {
      const code = error.code as TigretErrorCode;
      post({ kind: "error", id: call.id, code, message: error.message });
    } else {
      // A trap in the module, or a module that did not load: nothing works from here on.
      post({ kind: "crash", message: error.message });
    }
  }
});

// A panic in the module arrives here: `reportError` first, with the message, then the trap.
self.addEventListener("error", (event) => {
  event.preventDefault();
  post({ kind: "crash", message: event.message });
});
self.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  post({ kind: "crash", message: String(event.reason?.message ?? event.reason) });
});
