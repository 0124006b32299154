/** Owns the worker and what computes in it: builds both anew where they fail. */

import { onAbort } from "./abort.js";
import { type Correct, choiceOf, choose, PLAIN } from "./choice.js";
import { erasuresSoFar, listen } from "./erasure.js";
import { isFailure, Late, TigretError } from "./errors.js";
import { Events } from "./events.js";
import type { Backend } from "./options.js";
import type { AddRequest, Answer, EngineRequest, Loaded, Method, Methods } from "./protocol.js";
import { Remote, type WorkerLike } from "./remote.js";
import { after } from "./timeouts.js";
import type { Added, Engine, GpuOptions, ModelInfo } from "./types.js";

/** Milliseconds after which a GPU that does not answer never will. */
const LIMIT = 30_000;

/** What {@link Recommender.on} tells of. */
export interface RecommenderEvents {
  /**
   * The GPU or the worker failed and is set up again, or the CPU takes over. A recommendation that was
   * running is repeated. If another call was running, or none, the event comes with the next call.
   */
  "device-lost": { error: TigretError };
  /** Another engine computes from now on. */
  "backend-changed": { engine: Engine; engineName: string };
}

/** The engine in use. */
interface InUse {
  engine: Engine;
  engineName: string;
  /** What the GPU may make use of: less than the caller allows where only that worked. */
  gpu: GpuOptions;
}

/** An answer, and what computed it. */
type Computed = Answer & Pick<InUse, "engine" | "engineName">;

/** A worker with the model. Whoever asks waits for the answer before asking for anything else. */
export class EngineHost {
  readonly events = new Events<RecommenderEvents>("device-lost", "backend-changed");
  readonly #start: () => WorkerLike;
  /** What the GPU may make use of, as the caller has it. */
  readonly #gpu: GpuOptions;
  readonly #end: AbortSignal;
  #remote: Remote;
  /** The bundle, for a worker that has to be started again. A Blob need not stay in memory. */
  #bundle = new Blob();
  /** What was added since the model was loaded, for the same. */
  readonly #additions: AddRequest[] = [];
  /** What the worker says of the model; known from {@link load} on, as is the engine in use. */
  #loaded!: Loaded;
  #inUse!: InUse;
  /** Corrects what is remembered of the choice in use, where it was one of `auto`. */
  #correct: Correct = () => {};
  /** Whether the worker has the whole model, or had it when it ended. */
  #isFilled = false;

  /**
   * Starts the worker, which ends when `end` is aborted: calls then reject with its reason. Throws
   * with code `crashed`.
   */
  constructor(start: () => WorkerLike, gpu: GpuOptions, end: AbortSignal) {
    this.#start = start;
    this.#gpu = gpu;
    this.#end = end;
    this.#remote = Remote.start(start);
    onAbort(end, () => {
      // Pages may hold on to what they have disposed of.
      this.#bundle = new Blob();
      this.#additions.length = 0;
      this.#remote.stop(end.reason);
    });
  }

  get info(): ModelInfo {
    return this.#loaded.info;
  }

  /** The engine in use. */
  get engine(): Engine {
    return this.#inUse.engine;
  }

  get engineName(): string {
    return this.#inUse.engineName;
  }

  /** Whether the worker has ended, and {@link load} starts another one. */
  get isGone(): boolean {
    return this.#remote.stopped !== undefined && this.#remote.started;
  }

  /** Makes sure that the worker is there, where what it computes was aborted. */
  check(): void {
    this.#remote.check();
  }

  /** Rejects where this device does not have an engine, or no module, before there is a bundle. */
  async require(engine: Engine): Promise<void> {
    await this.#remote.call("require", { engine });
  }

  /** Takes up a bundle, before all other calls; resolves with a copy of it. */
  async load(bytes: Uint8Array<ArrayBuffer>, engine: Engine): Promise<Blob> {
    const bundle = new Blob([bytes]);
    // A worker that was there may have ended while the bundle was on its way.
    await this.#remote.wake();
    this.#end.throwIfAborted();
    if (this.isGone) this.#remote = Remote.start(this.#start);
    const { engineName } = await this.#fill(bytes, engine, this.#gpu);
    this.#inUse = { engine, engineName, gpu: this.#gpu };
    this.#bundle = bundle;
    return bundle;
  }

  /**
   * Takes an engine into use, with `auto` the faster one, which is remembered unless all was
   * forgotten since `begun`.
   */
  async use(backend: Backend, begun = erasuresSoFar()): Promise<void> {
    const deaf = listen();
    try {
      await this.#announced(() =>
        backend === "auto" ? this.#choose(begun) : this.#build(backend, this.#gpu),
      );
      if (backend !== "auto") this.#correct = () => {};
    } finally {
      deaf();
    }
  }

  /** Adds items to the catalogue of the engine in use. */
  async add(request: AddRequest): Promise<Added[]> {
    const added = await this.ask("add", request);
    this.#additions.push(request);
    this.#loaded = known(this.#loaded, this.info.items + request.ids.length);
    return added;
  }

  /** Asks the worker; one that is gone is started again before. */
  async ask<M extends Method>(
    method: M,
    args: Methods[M]["arguments"],
  ): Promise<Methods[M]["result"]> {
    await this.#remote.wake();
    if (this.#remote.stopped) await this.#restore();
    return this.#remote.call(method, args);
  }

  /**
   * Recommends by the engine in use, which is built anew where it fails, or by the CPU: for good
   * where the GPU fails again, and beside it where a search is too much for it. What is not wanted
   * any more is not tried again.
   */
  async recommend(request: EngineRequest, isWanted = () => true): Promise<Computed> {
    const answer = await this.#byEngine(request, isWanted);
    if (answer) return answer;
    // The GPU would refuse it again: what fails beside it is tried there once more.
    return this.#besideGpu(request).catch((error) => {
      if (!isFailure(error) || !isWanted()) throw error;
      return this.#besideGpu(request);
    });
  }

  /** By the engine in use or the one that takes over; `null` where it is too much for the GPU. */
  async #byEngine(request: EngineRequest, isWanted: () => boolean): Promise<Computed | null> {
    try {
      return await this.#compute(request);
    } catch (error) {
      if (!isFailure(error) || !isWanted()) throw error;
      return this.#announced(() => this.#byAnother(request, error));
    }
  }

  async #compute(request: EngineRequest): Promise<Computed | null> {
    const { engine, engineName } = this;
    try {
      return { ...(await this.#inTime(engine, "recommend", { request })), engine, engineName };
    } catch (error) {
      const isTooMuch = isFailure(error) && error.code === "no-gpu";
      if (engine === "cpu" || !isTooMuch) throw error;
      return null;
    }
  }

  /** Once more on an engine built anew, then on the CPU. */
  async #byAnother(request: EngineRequest, first: TigretError): Promise<Computed | null> {
    let failure = first;
    // Of a worker that is gone, building another one tells.
    if (!this.#remote.stopped) this.events.emit("device-lost", { error: first });
    const before = this.#inUse;
    const { engine, gpu } = before;
    // The second attempt is for a GPU that fails with what not every GPU has.
    const onGpu = engine === "cpu" ? [] : [...new Set([gpu, PLAIN])];
    const attempts = onGpu.map((gpu) => ["webgpu", gpu] as [Engine, GpuOptions]);
    for (const [engine, gpu] of [...attempts, ["cpu", this.#gpu] as const]) {
      // Nobody waits for one that hangs once more.
      if (engine === "webgpu" && failure instanceof Late) continue;
      try {
        await this.#build(engine, gpu);
        const computed = await this.#compute(request);
        if (engine !== before.engine || gpu !== before.gpu) this.#learn(failure);
        return computed;
      } catch (error) {
        if (!isFailure(error)) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  /** The next visit does not take up what failed: nobody waits twice for a GPU that hangs. */
  #learn(failure: TigretError): void {
    this.#correct(failure instanceof Late ? "cpu" : null);
    this.#correct = () => {};
  }

  /** By the CPU, beside the GPU in use. */
  async #besideGpu(request: EngineRequest): Promise<Computed> {
    const answer = await this.ask("recommend", { request, onCpu: true });
    return { ...answer, engine: "cpu", engineName: "cpu" };
  }

  /** Builds the engine in use anew, or the CPU's where that is gone. */
  async #restore(): Promise<void> {
    const { engine, gpu } = this.#inUse;
    await this.#announced(() =>
      this.#build(engine, gpu).catch((error) => {
        if (engine === "cpu" || !isFailure(error)) throw error;
        this.#learn(error);
        return this.#build("cpu", this.#gpu);
      }),
    );
  }

  /** Takes the faster engine into use. */
  async #choose(begun: number): Promise<void> {
    await this.#remote.wake();
    if (this.#remote.stopped) await this.#build("cpu", this.#gpu);
    const timed = {
      inUse: () => {
        const { engine, gpu } = this.#inUse;
        return this.#remote.stopped ? undefined : choiceOf(engine, gpu);
      },
      adapter: () => this.#remote.call("adapter", {}),
      use: (engine: Engine, gpu = this.#gpu) => this.#build(engine, gpu),
      recommend: (request: EngineRequest) => this.#inTime(this.engine, "recommend", { request }),
    };
    this.#correct = await choose(timed, this.#loaded, this.#gpu, begun);
  }

  /** Runs a task that may build several engines, and tells of the last one if it is another. */
  async #announced<T>(task: () => Promise<T>): Promise<T> {
    const before = this.engineName;
    try {
      return await task();
    } finally {
      const { engine, engineName } = this;
      if (engineName !== before) this.events.emit("backend-changed", { engine, engineName });
    }
  }

  /**
   * Takes an engine into use, in a new worker if the old one is gone; `gpu` is what the GPU may make
   * use of until the next one is.
   */
  async #build(engine: Engine, gpu: GpuOptions): Promise<void> {
    await this.#remote.wake();
    const { stopped } = this.#remote;
    const built = stopped
      ? this.#replace(stopped, engine, gpu)
      : this.#inTime(engine, "use", { engine, gpu });
    const { engineName } = await built;
    this.#inUse = { engine, engineName, gpu };
  }

  /** Asks for what `engine` computes, with an end: a worker that waits for a GPU for ever is stopped. */
  async #inTime<M extends Method>(
    engine: Engine,
    method: M,
    args: Methods[M]["arguments"],
    transfer?: ArrayBuffer[],
  ): Promise<Methods[M]["result"]> {
    const remote = this.#remote;
    if (engine === "cpu") return remote.call(method, args, transfer);
    // Its start has limits of its own.
    await remote.wake();
    const answer = remote.call(method, args, transfer);
    return answer.finally(after(LIMIT, () => remote.stop(new Late(LIMIT))));
  }

  /** Starts another worker with all that the one had which is lost. */
  async #replace(lost: TigretError, engine: Engine, gpu: GpuOptions): Promise<Loaded> {
    this.#end.throwIfAborted();
    if (this.#isFilled) this.events.emit("device-lost", { error: lost });
    this.#isFilled = false;
    const bytes = await this.#bytes();
    this.#end.throwIfAborted();
    this.#remote = Remote.start(this.#start);
    try {
      return await this.#fill(bytes, engine, gpu);
    } catch (error) {
      // A worker without the whole model would answer wrongly, or not at all.
      this.#remote.stop(error as TigretError);
      throw error;
    }
  }

  /** The bundle once more. */
  async #bytes(): Promise<Uint8Array<ArrayBuffer>> {
    try {
      return new Uint8Array(await this.#bundle.arrayBuffer());
    } catch (cause) {
      // The browser had put it on a disk that is full or gone, or there is no memory.
      const message = `no worker could be started again: the bundle could not be read (${(cause as Error).message}); load it anew`;
      throw new TigretError("crashed", message, { cause });
    }
  }

  /** Gives the worker the model, and what was added to it. */
  async #fill(bytes: Uint8Array<ArrayBuffer>, engine: Engine, gpu: GpuOptions): Promise<Loaded> {
    // The module may be on its way for longer than a GPU may take.
    if (engine === "webgpu") await this.require(engine);
    const loaded = await this.#inTime(engine, "load", { bytes, engine, gpu }, [bytes.buffer]);
    let { items } = loaded.info;
    for (const request of this.#additions) {
      await this.#remote.call("add", request);
      items += request.ids.length;
    }
    this.#loaded = known(loaded, items);
    this.#isFilled = true;
    return loaded;
  }
}

/** What a worker says of its model, with as many items; pages get it, and could change it. */
function known(loaded: Loaded, items: number): Loaded {
  Object.freeze(loaded.info.levels);
  return { ...loaded, info: Object.freeze({ ...loaded.info, items }) };
}
