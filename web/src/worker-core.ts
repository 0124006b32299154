/** What a worker does, in a browser or in Node: it holds the wasm module and answers calls. */

import init, { Session } from "../pkg/tigret_infer.js";
import { brief, type TigretErrorCode } from "./errors.js";
import type { Answer, Call, Message, Method, Methods } from "./protocol.js";
import { within } from "./timeouts.js";
import type {
  Added,
  Catalogue,
  Engine,
  Explanation,
  GpuOptions,
  ModelInfo,
  Prefix,
} from "./types.js";
import { WARM_UP_REQUEST, warmUpBundle } from "./warm-up.js";

/** Where the wasm module is: an address, or its bytes. */
export type Module = URL | Uint8Array<ArrayBuffer>;

/** Answers calls by `post`, each at once: it is the page that asks for one after the other. */
export class Server {
  readonly #post: (message: Message) => void;
  readonly #module: () => Promise<Module>;
  readonly #locks: LockManager | undefined;
  #compiled: Promise<unknown> | undefined;
  #session: Session | undefined;
  /** Gives the lock back that is held. */
  #release: (() => void) | undefined;
  #started = false;
  /** Whether anything but time is wanted of the worker. */
  #asked = false;

  constructor(
    post: (message: Message) => void,
    module: () => Promise<Module>,
    locks?: LockManager,
  ) {
    this.#post = post;
    this.#module = module;
    this.#locks = locks;
  }

  async receive(call: Call | null): Promise<void> {
    // A page may say other things to a worker of its own, too.
    if (typeof call?.method !== "string") return;
    try {
      this.#post({ kind: "result", id: call.id, value: await this.#answer(call) });
    } catch (cause) {
      const error = cause as Error & { code?: string };
      if (error.code && CODES.includes(error.code)) {
        const code = error.code as TigretErrorCode;
        this.#post({ kind: "error", id: call.id, code, message: error.message });
      } else if (call.method === "require") {
        // So that it is told from a worker that has ended, which is replaced.
        this.#post({ kind: "error", id: call.id, code: "crashed", message: inWords(error) });
      } else {
        // A trap in the module, or a module that did not load: nothing works from here on.
        this.crash(error);
      }
    }
  }

  /** Says that nothing works any more. */
  crash(cause: unknown): void {
    this.#post({ kind: "crash", message: inWords(cause) });
  }

  get #loaded(): Session {
    if (!this.#session) throw new Error("the worker was asked before it had a model");
    return this.#session;
  }

  async #answer(call: Call): Promise<Methods[Method]["result"]> {
    switch (call.method) {
      case "start":
        // Whether it can be had is a matter of the first call that needs it.
        if (!this.#started) this.#warmUp().catch(() => {});
        this.#started = true;
        return null;
      case "hold":
        this.#release = await hold(this.#locks, call.lock);
        return { held: this.#release !== undefined };
      case "rest":
        this.#release?.();
        return null;
      case "require":
        await requireAdapter(call.engine);
        await this.#ready().catch((error) => {
          // The network may be back before the bundle has come.
          if (!(error instanceof Unreached)) throw error;
        });
        return null;
      case "load": {
        this.#asked = true;
        await this.#ready();
        await requireAdapter(call.engine);
        const session = await Session.load(call.bytes, ...backendOf(call));
        this.#session = session;
        return {
          info: session.info() as ModelInfo,
          engineName: await nameOf(call.engine),
          sampleHistory: session.sampleHistory() as string[],
        };
      }
      case "use": {
        await requireAdapter(call.engine);
        await this.#loaded.useBackend(...backendOf(call));
        return { engineName: await nameOf(call.engine) };
      }
      case "adapter":
        return adapterInWords();
      case "add": {
        const { ids, embeddings, width } = call;
        return this.#loaded.addItems(ids, embeddings, width) as Added[];
      }
      case "recommend": {
        const start = performance.now();
        const request = JSON.stringify(call.request);
        const answer = await this.#loaded.recommend(request, call.onCpu ?? false);
        const { items, unknown } = answer as Answer;
        return { items, unknown, milliseconds: performance.now() - start };
      }
      case "explain":
        return this.#loaded.explain(JSON.stringify(call.request), call.item) as Explanation;
      case "trace":
        return this.#loaded.trace(JSON.stringify(call.request)) as Prefix[][];
      case "catalogue":
        return { ids: this.#loaded.ids(), codes: this.#loaded.codes() } as Catalogue;
    }
  }

  /** As `#compile`: one failed fetch, which may be the warm-up's, is not the end. */
  #ready(): Promise<unknown> {
    return this.#compile().catch(() => later(RETRY, () => this.#compile()));
  }

  /** Fetches and compiles the module, once; what failed is tried anew. */
  #compile(): Promise<unknown> {
    this.#compiled ??= this.#module()
      .then((module) => {
        const done = module instanceof URL ? fetched(module) : init({ module_or_path: module });
        return done.catch((error) => {
          if (!(error instanceof Unreached)) error.message += remedyOf(error, module);
          throw error;
        });
      })
      .catch((error) => {
        this.#compiled = undefined;
        throw error;
      });
    return this.#compiled;
  }

  /** Runs the module's loops until the model is there, or it has run for as long as that pays. */
  async #warmUp(): Promise<void> {
    await this.#compile();
    if (this.#asked) return;
    const session = await Session.load(warmUpBundle(), false);
    const request = JSON.stringify(WARM_UP_REQUEST);
    try {
      for (let call = 0; call < WARM_UP_CALLS && !this.#asked; call++) {
        await session.recommend(request, false);
        await nextTask();
      }
    } finally {
      session.free();
    }
  }
}

/** The server of the module does not answer, or a policy forbids to ask it. */
class Unreached extends Error {}

/** Milliseconds without a byte after which a module is given up. */
const STALL = 30_000;

/** Compiles a module as it comes, which browsers remember; rejects where it stalls. */
async function fetched(module: URL): Promise<unknown> {
  const inTime = <T>(step: Promise<T>) =>
    within(STALL, step, () =>
      Promise.reject(new Error(`nothing came for ${STALL / 1000} seconds`)),
    );
  const end = new AbortController();
  try {
    const asked = fetch(module, { signal: end.signal }).catch(({ message }) => {
      throw new Unreached(`${message}${whereOf(module)}; check the network`);
    });
    const answer = await inTime(asked);
    // The compiler does not say how far it is, but a copy of what it reads does.
    const reader = answer.clone().body?.getReader();
    const arrive = async () => {
      while (reader && !(await inTime(reader.read())).done);
    };
    return await Promise.all([init({ module_or_path: answer }), arrive()]);
  } finally {
    // Where that failed, nobody wants the rest, and what waits for it ends.
    end.abort();
  }
}

/** What is said of an error after which nothing works. */
function inWords(cause: unknown): string {
  if (!globalThis.WebAssembly) return NO_WASM;
  const said = String((cause as Error | null)?.message ?? cause);
  // A panic says what happened before it traps; memory that cannot grow only traps.
  const trapped = cause instanceof WebAssembly.RuntimeError;
  return trapped ? `${said}; most likely there was too little memory` : said;
}

const NO_WASM =
  "this browser has no WebAssembly, in which the model is computed: its settings for security may turn it off (on iOS, Lockdown Mode)";

/** Milliseconds after which a module that could not be fetched is fetched once more. */
const RETRY = 1000;

/** What helps where the module could not be had. Another file in its place does not say where it is. */
function remedyOf(error: Error, module: Module): string {
  if (/CSP|content.security|unsafe-eval/i.test(error.message)) {
    return "; allow 'wasm-unsafe-eval' in script-src of the content security policy";
  }
  // One is for memory.
  return module instanceof URL && !(error instanceof RangeError) ? whereOf(module) : "";
}

function whereOf(module: URL): string {
  return ` (${brief(module.href)}): serve pkg/ beside dist/, and allow it in connect-src`;
}

/** After as many, the browser has been seen to compile what takes long. */
const WARM_UP_CALLS = 12;

function later<T>(milliseconds: number, task: () => Promise<T>): Promise<T> {
  return new Promise<void>((resolve) => setTimeout(resolve, milliseconds)).then(task);
}

/** Lets messages come in. */
function nextTask(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

const CODES: readonly string[] = [
  "bad-request",
  "bad-bundle",
  "no-tokenizer",
  "no-gpu",
  "device-lost",
];

/** Takes a lock; what gives it back, once it is held, or `undefined` where locks are denied. */
function hold(locks: LockManager | undefined, name: string): Promise<(() => void) | undefined> {
  return new Promise((resolve) => {
    const held = () => new Promise<void>((release) => resolve(release));
    if (locks) locks.request(name, held).catch(() => resolve(undefined));
    else resolve(undefined);
  });
}

/** Whether on the GPU, and the options, as the module takes them. */
function backendOf({ engine, gpu }: { engine: Engine; gpu: GpuOptions }) {
  return [engine === "webgpu", gpu.halves, gpu.packedProducts, gpu.subgroups] as const;
}

/** Milliseconds in which a browser that has an adapter names it. */
const ADAPTER_LIMIT = 10_000;

async function findAdapter(): Promise<GPUAdapter | null> {
  try {
    const found = globalThis.navigator?.gpu?.requestAdapter({
      powerPreference: "high-performance",
    });
    // A driver that hangs is none.
    const adapter = found && (await within(ADAPTER_LIMIT, found, () => null));
    // The module asks every adapter for its name, which the first browsers with WebGPU did not know.
    return adapter?.info ? adapter : null;
  } catch {
    return null;
  }
}

/** Some browsers give an adapter no name. */
const UNNAMED = "unnamed";

/** The engine in words. */
async function nameOf(engine: Engine): Promise<string> {
  return engine === "cpu" ? "cpu" : ((await adapterInWords()) ?? UNNAMED);
}

/** The adapter in words; part of the key under which the faster engine is remembered. */
async function adapterInWords(): Promise<string | null> {
  const adapter = await findAdapter();
  if (!adapter) return null;
  const { vendor, architecture, device, description } = adapter.info;
  return [vendor, architecture, device, description].filter(Boolean).join(" ") || UNNAMED;
}

/** Refuses `webgpu` in plainer words than the module's where there is no adapter. */
async function requireAdapter(engine: Engine): Promise<void> {
  if (engine === "cpu" || (await adapterInWords()) !== null) return;
  const why = globalThis.navigator?.gpu
    ? "this browser has WebGPU, but no adapter for it (is hardware acceleration turned off?)"
    : "there is no WebGPU here, or the page is not served over HTTPS";
  const message = `no usable GPU: ${why}; use backend "auto" or "cpu"`;
  throw Object.assign(new Error(message), { code: "no-gpu" });
}
