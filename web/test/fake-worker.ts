/** A worker without a model: answers from a script. */

import type { WorkerLike } from "../src/index.js";
import type { Call, Message, Method, Methods } from "../src/protocol.js";
import type { Engine, GpuOptions, ModelInfo } from "../src/types.js";

/** How the fakes of one test behave. */
export interface Script {
  /** Numbers of an embedding that the model reports. */
  embedding?: number | null;
  /** Adapter that the worker reports. */
  adapter?: string | null;
  /** Format of the weights that the model reports. */
  weightFormat?: ModelInfo["weightFormat"];
  /** Milliseconds of a recommendation on an engine. */
  time?: Record<Engine, number> | ((worker: FakeWorker) => number);
  /** Scores of a recommendation on the engine that was built last. */
  score?: (worker: FakeWorker) => number;
  /** Ids that a recommendation on the engine that was built last finds; else the history's last. */
  found?: (worker: FakeWorker) => string[];
  /** Called before each answer; a thrown `Failure` is what the worker answers. */
  before?: (call: Call, worker: FakeWorker) => void;
  /** Whether a call is never answered. */
  silent?: (call: Call, worker: FakeWorker) => boolean;
}

/** Thrown by a script: the error that the worker answers with, or a crash. */
export class Failure extends Error {
  readonly code: "crash" | (Message & { kind: "error" })["code"];

  constructor(code: Failure["code"], message = `scripted ${code}`) {
    super(message);
    this.code = code;
  }
}

export class FakeWorker implements WorkerLike {
  readonly calls: Call[] = [];
  terminated = false;
  engine: Engine = "cpu";
  gpu: GpuOptions = {};
  readonly #script: Script;
  readonly #listeners = new Map<string, (event: Event) => void>();

  constructor(script: Script) {
    this.#script = script;
  }

  addEventListener(type: string, listener: unknown): void {
    this.#listeners.set(type, listener as (event: Event) => void);
  }

  terminate(): void {
    this.terminated = true;
  }

  postMessage(call: Call): void {
    // What every worker is asked around the calls: nothing that a test would look at.
    if (!["start", "hold", "rest", "require"].includes(call.method)) this.calls.push(call);
    setTimeout(() => {
      const silent = this.terminated || this.#script.silent?.(call, this);
      if (!silent) this.#listeners.get("message")?.(this.#event(this.#reply(call)));
    });
  }

  /** What the browser does when the worker's script cannot be loaded. */
  failToStart(): void {
    this.#listeners.get("error")?.(new Event("error"));
  }

  #event(data: Message): MessageEvent<Message> {
    return new MessageEvent("message", { data });
  }

  #reply(call: Call): Message {
    try {
      this.#script.before?.(call, this);
      return { kind: "result", id: call.id, value: this.#answer(call) };
    } catch (error) {
      const { code, message } = error as Failure;
      if (code === "crash") return { kind: "crash", message };
      return { kind: "error", id: call.id, code, message };
    }
  }

  #milliseconds(): number {
    const { time } = this.#script;
    return (typeof time === "function" ? time(this) : time?.[this.engine]) ?? 1;
  }

  #answer(call: Call): Methods[Method]["result"] {
    switch (call.method) {
      case "hold":
        return { held: false };
      case "start":
      case "rest":
        return null;
      case "require":
        if (this.#script.adapter === null) throw new Failure("no-gpu");
        return null;
      case "load":
        this.engine = call.engine;
        this.gpu = call.gpu;
        return {
          info: {
            fingerprint: "f00d",
            version: "0.0.0",
            items: 3,
            levels: [2, 2],
            users: 10,
            maxItems: 2,
            embedding: this.#script.embedding === undefined ? 2 : this.#script.embedding,
            weightFormat: this.#script.weightFormat ?? "f32",
            parameters: 1,
            vocabSize: 6,
            dModel: 1,
            dKv: 1,
            dFf: 1,
            heads: 1,
            encoderLayers: 1,
            decoderLayers: 1,
            tied: true,
          },
          engineName: `${call.engine} of the fake`,
          sampleHistory: ["a", "b"],
        };
      case "use":
        this.engine = call.engine;
        this.gpu = call.gpu;
        return { engineName: `${call.engine} of the fake` };
      case "adapter":
        return this.#script.adapter === undefined ? "fake adapter" : this.#script.adapter;
      case "add":
        return call.ids.map((id) => ({ id, codes: [1, 1] }));
      case "explain": {
        const { request, item } = call;
        const history = request.history.map((id) => ({
          id,
          codes: [0, 0],
          shared: 1,
          influence: 0.5,
        }));
        return { id: item, codes: [0, 1], logProbs: [-0.5, -0.5], score: -1, history };
      }
      case "trace":
        return [[{ codes: [0], score: -0.5, items: 2 }]];
      case "catalogue":
        return { ids: ["a", "b", "c"], codes: new Uint16Array([0, 0, 0, 1, 1, 0]) };
      case "recommend": {
        const ids = this.#script.found?.(this) ?? [call.request.history.at(-1) ?? "first"];
        const score = this.#script.score?.(this) ?? -1;
        return {
          items: ids.map((id) => ({ id, score, codes: [0, 1] })),
          unknown: call.request.history.filter((id) => id.startsWith("unknown")),
          milliseconds: this.#milliseconds(),
        };
      }
    }
  }
}

/** A factory for `load`'s option `worker`, and the fakes that it made. */
export function fakeWorkers(script: Script = {}): { made: FakeWorker[]; worker: () => FakeWorker } {
  const made: FakeWorker[] = [];
  return {
    made,
    worker: () => {
      const fake = new FakeWorker(script);
      made.push(fake);
      return fake;
    },
  };
}
