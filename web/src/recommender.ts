import {
  choiceKey,
  fasterEngine,
  PLAIN,
  remember,
  remembered,
  type Timed,
  toleranceOf,
  useChoice,
} from "./choice.js";
import type { Progress } from "./download.js";
import { erasuresSoFar, isForgotten, listen } from "./erasure.js";
import { isFailure, TigretError } from "./errors.js";
import { Events, tell } from "./events.js";
import { HistoryStore } from "./history.js";
import { checkText } from "./ids.js";
import {
  asksSomething,
  type Backend,
  checkBackend,
  checkLoadOptions,
  type LoadOptions,
  type RecommendOptions,
  toAddRequest,
  toRequest,
} from "./options.js";
import { platform } from "./platform.js";
import type {
  Added,
  AddRequest,
  Answer,
  Catalogue,
  Engine,
  EngineRequest,
  Explanation,
  GpuOptions,
  Loaded,
  Method,
  Methods,
  ModelInfo,
  NewItem,
  Pick,
  Prefix,
} from "./protocol.js";
import { onAbort, Queue } from "./queue.js";
import { Remote, type WorkerLike } from "./remote.js";
import { type Bundle, bundleOf, type Source } from "./source.js";
import { within } from "./timeouts.js";

/** Milliseconds after which a call whose stored history is slow to read goes to the queue's end. */
const SLOW = 250;

/** Recommended items with what is known of how they came about. */
export interface Report {
  /** Best first; a sample in the order in which it was drawn. */
  picks: Pick[];
  /** Ids of the history that the catalogue does not have, which were skipped. */
  unknown: string[];
  /** The seed that gives the same sample again; `null` where nothing was sampled. */
  seed: number | null;
  /** Which engine computed. */
  engine: Engine;
  /** The engine in words: `cpu`, or the name of the WebGPU adapter. */
  engineName: string;
  /** Time of the computation in the worker. */
  milliseconds: number;
}

/** An answer, and what computed it. */
type Computed = Answer & globalThis.Pick<Report, "engine" | "engineName">;

/** What {@link Recommender.on} tells of. */
export interface RecommenderEvents {
  /**
   * The GPU or the worker failed, and is built anew. A recommendation that met it is repeated; of a
   * worker that nothing was asked of, or another call, the next call tells.
   */
  "device-lost": { error: TigretError };
  /** Another engine computes from now on. */
  "backend-changed": { engine: Engine; engineName: string };
}

/**
 * A model with its catalogue, ready to recommend in a worker of its own.
 *
 * ```ts
 * const recommender = await Recommender.load("model.safetensors");
 * const picks = await recommender.recommend({ history: ["some id"], exclude: "history" });
 * ```
 */
export class Recommender {
  /** Aborted, with the error of whatever is asked from then on, once it is disposed of. */
  readonly #disposed = new AbortController();
  readonly #queue = new Queue(this.#disposed.signal);
  readonly #start: () => WorkerLike;
  /** The bundle, for a worker that has to be started again. A Blob need not stay in memory. */
  #bundle: Blob;
  #remote: Remote;
  #loaded: Loaded;
  #engine: Engine;
  #engineName: string;
  /** Whether the worker has had the whole model: one that never had is no loss. */
  #serves = true;
  /** What the worker is on. */
  #placed: { engine: Engine; engineName: string };
  /** Whether that is the CPU for calls that are too much for the GPU in use. */
  #away = false;
  /** The fewest beams that were too many for the GPU. */
  #tooWide = Number.POSITIVE_INFINITY;
  /** What was added since the model was loaded, for a worker that has to be started again. */
  readonly #additions: AddRequest[] = [];
  readonly #events = new Events<RecommenderEvents>("device-lost", "backend-changed");
  /** Under what each pick says what it was an answer to, for {@link explain}. */
  readonly #asked = Symbol("asked");
  readonly #userId: string | undefined;
  /** What the GPU may make use of, as the caller has it. */
  readonly #gpu: GpuOptions;
  /** What the engine in use may: less where only that worked. */
  #inUse: GpuOptions;
  /** The history that calls without one use. */
  readonly history: HistoryStore;
  /**
   * Bytes of the server's answer that were read for the bundle, unpacked, from the browser's own
   * cache too: 0 where the copy that this package keeps served, or the bytes were given.
   */
  readonly downloaded: number;
  /** The newest call with `latest` of each method. */
  readonly #latest = new Map<Method, AbortController>();

  private constructor(
    start: () => WorkerLike,
    bundle: Blob,
    downloaded: number,
    remote: Remote,
    loaded: Loaded,
    engine: Engine,
    gpu: GpuOptions,
    { userId, historyName }: LoadOptions,
  ) {
    this.#gpu = gpu;
    this.#inUse = gpu;
    this.#start = start;
    this.#bundle = bundle;
    this.downloaded = downloaded;
    this.#userId = userId;
    this.history = new HistoryStore(historyName);
    this.#remote = remote;
    this.#loaded = known(loaded);
    this.#engine = engine;
    this.#engineName = loaded.engineName;
    this.#placed = { engine, engineName: loaded.engineName };
  }

  /**
   * Gets a bundle and puts it on an engine.
   *
   * Rejects with a {@link TigretError} (`bad-request`, `download`, `integrity`, `bad-bundle`,
   * `no-gpu`, `crashed`; with `backend: "webgpu"` also `device-lost`, where the GPU fails at once: other
   * `gpu` options may do better), or with the signal's reason.
   */
  static async load(source: Source, options: LoadOptions = {}): Promise<Recommender> {
    checkLoadOptions(options);
    const { backend = "auto", onProgress, signal, cache, integrity } = options;
    // A copy: workers take no proxies.
    const gpu = { ...options.gpu };
    const start = options.worker ?? platform.startWorker;
    signal?.throwIfAborted();
    // It fetches and compiles its module while the bundle is on its way.
    let remote = Remote.start(start);
    const [begun, deaf] = [erasuresSoFar(), listen()];
    const engine = backend === "auto" ? "cpu" : backend;
    // Nobody waits for a bundle that no engine will take, or no worker, or the caller.
    const unwanted = new AbortController();
    remote.call("require", { engine }).catch((error) => unwanted.abort(error));
    let stop = () => remote.stop(new TigretError("disposed", "loading was stopped"));
    const off = onAbort(signal, () => {
      unwanted.abort(signal?.reason);
      stop();
    });
    try {
      // What the page's own function throws is no failure of the download.
      const progress = onProgress && ((at: Progress) => tell(onProgress, at));
      const wanted = { onProgress: progress, cache, integrity, signal: unwanted.signal };
      // What is read on the device may not come to an end.
      let found = await new Queue().run(() => bundleOf(source, wanted), unwanted.signal);
      let { downloaded } = found;
      let bundle = new Blob([found.bytes]);
      const put = async ({ bytes, url }: Bundle) => {
        // One that was there may have ended while the bundle was on its way.
        await remote.wake();
        signal?.throwIfAborted();
        if (remote.stopped && remote.started) remote = Remote.start(start);
        return remote.call("load", { bytes, engine, gpu }, [bytes.buffer]).catch((error) => {
          if (!url || error.code !== "bad-bundle") throw error;
          throw new TigretError("bad-bundle", `${url}: ${error.message}`);
        });
      };
      const loaded = await put(found).catch(async (error: TigretError) => {
        const better = error.code === "bad-bundle" && (await found.again().catch(() => null));
        if (!better) throw error;
        found = better;
        downloaded += better.downloaded;
        bundle = new Blob([better.bytes]);
        return put(better);
      });
      found.keep(bundle);
      const parts = [start, bundle, downloaded, remote, loaded, engine, gpu] as const;
      const recommender = new Recommender(...parts, options);
      stop = () => recommender.dispose();
      if (backend === "auto") await recommender.#choose(begun);
      signal?.throwIfAborted();
      return recommender;
    } catch (error) {
      stop();
      signal?.throwIfAborted();
      throw error;
    } finally {
      off();
      deaf();
    }
  }

  /** Frameworks that wrap plain objects in proxies, which have no private fields, leave others alone. */
  get [Symbol.toStringTag](): string {
    return "Recommender";
  }

  /** Sizes of the model and its catalogue. */
  get info(): ModelInfo {
    return this.#loaded.info;
  }

  /** The engine in use. */
  get engine(): Engine {
    return this.#engine;
  }

  /** The engine in words: `cpu`, or the name of the WebGPU adapter. */
  get engineName(): string {
    return this.#engineName;
  }

  /**
   * The best items for a history, best first; with `temperature`, a sample of them.
   *
   * Calls made at the same time are answered one after the other, in their order but for those whose
   * stored history takes more than a quarter of a second to read. If the GPU is lost, it is set
   * up again and the call repeated; if that fails too, the CPU takes over. A search that exceeds the
   * GPU's limits is answered by the CPU, and the next one with fewer beams by the GPU again.
   *
   * Rejects with a {@link TigretError} (`bad-request`, `bad-bundle` where the weights are too large to
   * compute with, `superseded`, `storage`, `device-lost`, `crashed`, `disposed`), or with the signal's
   * reason.
   */
  async recommend(options: RecommendOptions = {}): Promise<Pick[]> {
    return (await this.#recommend("recommend", options)).picks;
  }

  /** As {@link recommend}, with the time taken, the engine and the unknown ids. */
  async report(options: RecommendOptions = {}): Promise<Report> {
    return this.#recommend("report", options);
  }

  /**
   * Why an item has its score: level by level, and what each item of the history did for it (one
   * pass of the model an item, on the CPU).
   *
   * Takes a pick of this recommender, which remembers what it was an answer to, or any item's id
   * with the options of the call in question. With a pick `signal` and `latest` may stand alone:
   * they are no other call's options.
   *
   * Rejects with a {@link TigretError} (`bad-request`, `bad-bundle` where the weights are too large to
   * compute with, `superseded`, `storage`, `crashed`, `disposed`), or with the signal's reason.
   */
  async explain(item: Pick, options?: RecommendOptions): Promise<Explanation>;
  /** Why any item has its score in the call that the options describe. */
  async explain(id: string, options: RecommendOptions): Promise<Explanation>;
  async explain(item: Pick | string, options?: RecommendOptions): Promise<Explanation> {
    const id = typeof item === "string" ? item : item?.id;
    if (typeof id !== "string") {
      throw new TigretError("bad-request", "explain: the item is no pick and no id");
    }
    checkText("explain: the item", id);
    const given = options === undefined ? undefined : this.#request("explain", options);
    const asked: (() => EngineRequest) | undefined =
      typeof item === "string" ? undefined : Reflect.get(item, this.#asked);
    const complete = asked && !asksSomething(options) ? async () => asked() : given;
    if (!complete) {
      const what = typeof item === "string" ? "an id" : "no pick of this recommender (a copy?)";
      throw new TigretError(
        "bad-request",
        `explain: this is ${what}; give the options of the call in question too`,
      );
    }
    return this.#ask("explain", async () => ({ request: await complete(), item: id }), options);
  }

  /**
   * Which prefixes of semantic IDs the search of a call keeps: an array for each level, coarse to
   * fine, each in ascending order. It shows how the beams narrow down to the items, and is always
   * computed on the CPU.
   *
   * Rejects with a {@link TigretError} (`bad-request`, `bad-bundle` where the weights are too large to
   * compute with, `superseded`, `storage`, `crashed`, `disposed`), or with the signal's reason.
   */
  async trace(options: RecommendOptions = {}): Promise<Prefix[][]> {
    const complete = this.#request("trace", options);
    return this.#ask("trace", async () => ({ request: await complete() }), options);
  }

  /**
   * All items with their semantic IDs, those of {@link addItems} too.
   *
   * Rejects with a {@link TigretError} (`crashed`, `disposed`).
   */
  async catalogue(): Promise<Catalogue> {
    return this.#ask("catalogue", async () => ({}));
  }

  /**
   * Adds a listener and returns what takes it away again. Throws a {@link TigretError}
   * (`bad-request`) for an event that there is none of, or what is no function.
   */
  on<Name extends keyof RecommenderEvents>(
    name: Name,
    listener: (detail: RecommenderEvents[Name]) => void,
  ): () => void {
    return this.#events.on(name, listener);
  }

  /**
   * Gives new items semantic IDs by the model's own tokenizer, on this device, and adds them to the
   * catalogue: all or none. The next call can recommend them, and they can stand in a history. The
   * IDs of other items do not change. They are kept until {@link dispose}, also when a lost device
   * or worker is replaced; nothing is stored. An id that the catalogue has is refused: filter by
   * those of {@link catalogue} where some may be known.
   * A call goes through the whole catalogue: many items are best added in one.
   *
   * Rejects with a {@link TigretError} (`no-tokenizer`, `bad-request`, `crashed`, `disposed`, and
   * `no-gpu` where the catalogue would exceed the GPU's limits: `use("cpu")` then).
   */
  async addItems(items: readonly NewItem[]): Promise<Added[]> {
    this.#alive();
    const width = this.info.embedding;
    if (width === null) {
      throw new TigretError(
        "no-tokenizer",
        "this model's bundle holds no tokenizer, so it cannot give new items semantic IDs; export it with `tigret export --with-tokenizer`",
      );
    }
    const request = toAddRequest(items, width);
    return this.#queue.run(async () => {
      await this.#revive();
      // It is the GPU that has to take the catalogue, not the CPU in its place.
      await this.#comeBack();
      const { added, items: total } = await this.#remote.call("add", request);
      this.#additions.push(request);
      this.#loaded = known(this.#loaded, total);
      return added;
    });
  }

  /**
   * Changes the engine once the calls before it are answered; `auto` chooses as {@link load} does.
   *
   * Rejects with a {@link TigretError} (`bad-request`, `no-gpu`, `device-lost`, `crashed`, `disposed`);
   * after `no-gpu` and `device-lost` the engine is the one that it was.
   */
  async use(backend: Backend): Promise<void> {
    checkBackend(backend);
    await this.#queue.run(() =>
      backend === "auto"
        ? this.#announced(() => this.#choose(erasuresSoFar())).finally(listen())
        : this.#use(backend),
    );
  }

  /** Ends the worker and frees the model and its bundle. What is unanswered rejects with code `disposed`. */
  dispose(): void {
    const error = new TigretError("disposed", "the recommender was disposed of; load another one");
    this.#disposed.abort(error);
    void this.history.close();
    // Pages may hold on to what they have disposed of.
    this.#bundle = new Blob();
    this.#additions.length = 0;
    this.#remote.stop(error);
  }

  #alive(): void {
    this.#disposed.signal.throwIfAborted();
  }

  /** What aborts a call: its signal and, with `latest`, the next such call of the same method. */
  #endsOf(method: Method, { latest, signal }: RecommendOptions): (AbortSignal | undefined)[] {
    // A call that is over before it begins takes no other's place.
    signal?.throwIfAborted();
    if (!latest) return [signal];
    const newest = new AbortController();
    const older = this.#latest.get(method);
    older?.abort(new TigretError("superseded", "a newer call took the place of this one"));
    this.#latest.set(method, newest);
    return [newest.signal, signal];
  }

  /**
   * Checks the options of a call at once, and takes what they hold; what the call's turn has to wait
   * for is the stored history, where that is meant.
   */
  #request(method: string, options: RecommendOptions): () => Promise<EngineRequest> {
    const request = toRequest(options, this.#userId, this.info, method);
    this.#alive();
    const stored = options.history === undefined;
    return async () => (stored ? { ...request, history: await this.history.list() } : request);
  }

  /**
   * Runs a task when those before it are through, with what is asked for then. Where that is slow to
   * come, as a stored history may be, those behind go first.
   */
  async #inTurn<A extends object, T>(
    ask: () => Promise<A>,
    task: (ready: A) => Promise<T>,
    ends: (AbortSignal | undefined)[],
  ): Promise<T> {
    let asked: Promise<A> | undefined;
    for (;;) {
      const done = await this.#queue.run(
        async () => {
          asked ??= ask();
          const ready = await within<A | null>(SLOW, asked, () => null);
          return ready && { value: await task(ready) };
        },
        ...ends,
      );
      if (done) return done.value;
    }
  }

  async #recommend(method: string, options: RecommendOptions): Promise<Report> {
    const complete = this.#request(method, options);
    return this.#inTurn(
      complete,
      async (request) => {
        const { items, unknown, milliseconds, engine, engineName } = await this.#answer(request);
        // On the pick itself and as a function: a framework's proxy of the pick passes that on.
        const asked = { value: () => request, configurable: true };
        for (const pick of items) Object.defineProperty(pick, this.#asked, asked);
        const seed = request.seed ?? null;
        return { picks: items, unknown, seed, engine, engineName, milliseconds };
      },
      this.#endsOf("recommend", options),
    );
  }

  /** Asks the worker in turn; a worker that is gone is started again. */
  async #ask<M extends Method>(
    method: M,
    args: () => Promise<Methods[M]["arguments"]>,
    options: RecommendOptions = {},
  ): Promise<Methods[M]["result"]> {
    return this.#inTurn(
      args,
      async (ready) => {
        await this.#revive();
        return this.#remote.call(method, ready);
      },
      this.#endsOf(method, options),
    );
  }

  /** Starts a worker that is gone again. */
  async #revive(): Promise<void> {
    await this.#remote.wake();
    if (this.#remote.stopped) await this.#restore();
  }

  /** Puts the GPU back that a call was too much for. */
  async #comeBack(): Promise<void> {
    if (this.#away && !this.#disposed.signal.aborted) await this.#restore();
  }

  /** Builds the engine in use anew, or the CPU's where that is gone. */
  async #restore(): Promise<void> {
    try {
      await this.#use(this.#engine, this.#inUse);
    } catch (error) {
      if (this.#engine === "cpu" || !isFailure(error)) throw error;
      await this.#use("cpu");
    }
  }

  /** Builds an engine anew as {@link #build} does, and tells of it. */
  async #use(engine: Engine, gpu = this.#gpu): Promise<void> {
    await this.#announced(() => this.#build(engine, gpu));
  }

  /** Runs a task that may build several engines, and tells of the last one if it is another. */
  async #announced<T>(task: () => Promise<T>): Promise<T> {
    const before = this.#engineName;
    try {
      return await task();
    } finally {
      const { engine, engineName } = this;
      if (engineName !== before) this.#events.emit("backend-changed", { engine, engineName });
    }
  }

  /** Takes an engine into use; `gpu` is what the GPU may make use of until the next one is. */
  async #build(engine: Engine, gpu = this.#gpu): Promise<void> {
    await this.#put(engine, gpu);
    this.#engine = engine;
    this.#engineName = this.#placed.engineName;
    this.#inUse = gpu;
    this.#away = false;
  }

  /** Builds an engine anew, in a new worker if the old one is gone. */
  async #put(engine: Engine, gpu: GpuOptions): Promise<void> {
    await this.#remote.wake();
    const { stopped } = this.#remote;
    if (stopped) {
      this.#alive();
      if (this.#serves) this.#events.emit("device-lost", { error: stopped });
      this.#serves = false;
      const bytes = await this.#bytes();
      this.#alive();
      this.#remote = Remote.start(this.#start);
      try {
        const call = { bytes, engine, gpu };
        this.#loaded = known(await this.#remote.call("load", call, [bytes.buffer]));
        for (const request of this.#additions) {
          const { items } = await this.#remote.call("add", request);
          this.#loaded = known(this.#loaded, items);
        }
        this.#serves = true;
        this.#placed = { engine, engineName: this.#loaded.engineName };
      } catch (error) {
        // A worker without the whole model would answer wrongly, or not at all.
        this.#remote.stop(error as TigretError);
        throw error;
      }
    } else {
      this.#placed = { engine, ...(await this.#remote.call("use", { engine, gpu })) };
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

  /** The faster engine; remembered unless all was forgotten since `begun`. */
  async #choose(begun: number): Promise<void> {
    await this.#remote.wake();
    if (this.#remote.stopped) await this.#build("cpu");
    const { info, sampleHistory } = this.#loaded;
    const adapter = await this.#remote.call("adapter", {});
    // Without an adapter there is nothing to choose, and nothing worth remembering.
    if (adapter === null) {
      if (this.#engine !== "cpu") await this.#build("cpu");
      return;
    }
    const timed: Timed = {
      use: (engine, gpu) => this.#build(engine, gpu),
      recommend: (request) => this.#remote.call("recommend", { request }),
      stop: (error) => this.#remote.stop(error),
    };
    const key = choiceKey({ ...info, adapter, gpu: this.#gpu });
    const earlier = remembered(key);
    if (earlier) {
      try {
        if (earlier !== this.#engine) await useChoice(timed, earlier);
        return;
      } catch (error) {
        if (!isFailure(error)) throw error;
      }
    }
    if (this.#engine !== "cpu" || this.#remote.stopped) await this.#build("cpu");
    const request = toRequest({ history: sampleHistory });
    const { choice, lasts } = await fasterEngine(timed, request, toleranceOf(info.weightFormat));
    if (lasts && !isForgotten(begun)) remember(key, choice);
  }

  async #answer(request: EngineRequest): Promise<Computed> {
    try {
      // A search as wide would only send the GPU away again.
      if (request.beams < this.#tooWide) await this.#comeBack();
      return await this.#compute(request);
    } catch (error) {
      if (!isFailure(error) || this.#away) throw error;
      return this.#announced(() => this.#answerAgain(request, error));
    }
  }

  /** By the engine in use; what exceeds the GPU's limits, by the CPU in its place. */
  async #compute(request: EngineRequest): Promise<Computed> {
    const { engine, engineName } = this;
    if (!this.#away) {
      try {
        return { ...(await this.#remote.call("recommend", { request })), engine, engineName };
      } catch (error) {
        const isTooMuch = isFailure(error) && error.code === "no-gpu";
        if (engine === "cpu" || !isTooMuch) throw error;
        this.#tooWide = Math.min(this.#tooWide, request.beams);
        this.#away = true;
      }
    }
    // The GPU would refuse it again: what fails in its place is tried there once more.
    return this.#inPlace(request).catch((error) => {
      if (!isFailure(error)) throw error;
      return this.#inPlace(request);
    });
  }

  /** By the CPU, in the place of the GPU in use. */
  async #inPlace(request: EngineRequest): Promise<Computed> {
    await this.#remote.wake();
    if (this.#placed.engine !== "cpu" || this.#remote.stopped) await this.#put("cpu", {});
    return { ...(await this.#remote.call("recommend", { request })), ...this.#placed };
  }

  /** Once more on an engine built anew, then on the CPU. */
  async #answerAgain(request: EngineRequest, first: TigretError): Promise<Computed> {
    let failure = first;
    // Of a worker that is gone, building another one tells.
    if (!this.#remote.stopped) this.#events.emit("device-lost", { error: first });
    // The second attempt is for a GPU that fails with what not every GPU has.
    const onGpu = [
      ["webgpu", this.#inUse],
      ...(this.#inUse === PLAIN ? [] : [["webgpu", PLAIN] as const]),
    ] as const;
    const isOnGpu = this.#engine === "webgpu";
    for (const [engine, gpu] of [...(isOnGpu ? onGpu : []), ["cpu", this.#gpu] as const]) {
      try {
        await this.#build(engine, gpu);
        return await this.#compute(request);
      } catch (error) {
        if (!isFailure(error) || this.#away) throw error;
        failure = error;
      }
    }
    throw failure;
  }
}

/** What a worker says of its model, with as many items; pages get it, and could change it. */
function known(loaded: Loaded, items = loaded.info.items): Loaded {
  Object.freeze(loaded.info.levels);
  return { ...loaded, info: Object.freeze({ ...loaded.info, items }) };
}
