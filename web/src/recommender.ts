import type { EngineHost, RecommenderEvents } from "./engine-host.js";
import { TigretError } from "./errors.js";
import { HistoryStore } from "./history.js";
import { checkText, isId } from "./ids.js";
import { load } from "./load.js";
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
import type { EngineRequest, Method, Methods } from "./protocol.js";
import { Queue } from "./queue.js";
import type { Source } from "./source.js";
import type {
  Added,
  Catalogue,
  Engine,
  Explanation,
  ModelInfo,
  NewItem,
  Pick,
  Prefix,
} from "./types.js";

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
  readonly #disposed: AbortController;
  readonly #queue: Queue;
  readonly #host: EngineHost;
  /** Under what the codes of each pick say what it was an answer to, for {@link explain}. */
  readonly #asked = Symbol("asked");
  readonly #userId: string | undefined;
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
    disposed: AbortController,
    host: EngineHost,
    downloaded: number,
    { userId, historyName }: LoadOptions,
  ) {
    this.#disposed = disposed;
    this.#queue = new Queue(disposed.signal, () => host.check());
    this.#host = host;
    this.downloaded = downloaded;
    this.#userId = userId;
    this.history = new HistoryStore(historyName);
  }

  /**
   * Gets a bundle and puts it on an engine.
   *
   * Rejects with a {@link TigretError} (`bad-request`, `download`, `integrity`, `bad-bundle`,
   * `no-gpu`, `crashed`; with `backend: "webgpu"` also `device-lost`, where the GPU fails at once: other
   * `gpu` options may do better), or with the signal's reason. With `backend: "webgpu"`, `crashed` also
   * stands for a GPU that does not answer within 30 seconds.
   */
  static async load(source: Source, options: LoadOptions = {}): Promise<Recommender> {
    checkLoadOptions(options);
    const disposed = new AbortController();
    const [host, downloaded] = await load(source, options, disposed);
    return new Recommender(disposed, host, downloaded, options);
  }

  /** Frameworks that wrap plain objects in proxies, which have no private fields, leave others alone. */
  get [Symbol.toStringTag](): string {
    return "Recommender";
  }

  /** Sizes of the model and its catalogue. */
  get info(): ModelInfo {
    return this.#host.info;
  }

  /** The engine in use. */
  get engine(): Engine {
    return this.#host.engine;
  }

  /** The engine in words: `cpu`, or the name of the WebGPU adapter. */
  get engineName(): string {
    return this.#host.engineName;
  }

  /**
   * The best items for a history, best first; with `temperature`, a sample of them.
   *
   * Calls made at the same time are answered one after the other, in their order but for those whose
   * stored history takes more than a quarter of a second to read. If the GPU is lost, it is set
   * up again and the call repeated; if that fails too, or if the GPU does not answer within 30
   * seconds, the CPU takes over. A search that exceeds the GPU's limits is answered by the CPU, and
   * the next one with fewer beams by the GPU again.
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
   * Pass a pick that this recommender returned: it remembers the request behind it. A copy of a pick
   * works too if it holds the same `codes` array. Or pass any id together with the options of the
   * call. With a pick, `signal` and `latest` may be given without the other options.
   *
   * Rejects with a {@link TigretError} (`bad-request`, `bad-bundle` where the weights are too large to
   * compute with, `superseded`, `storage`, `crashed`, `disposed`), or with the signal's reason.
   */
  async explain(item: Pick, options?: RecommendOptions): Promise<Explanation>;
  /** Why any item has its score in the call that the options describe. */
  async explain(item: Pick | string, options: RecommendOptions): Promise<Explanation>;
  async explain(item: Pick | string, options?: RecommendOptions): Promise<Explanation> {
    const id = typeof item === "string" ? item : item?.id;
    if (typeof id !== "string") {
      throw new TigretError("bad-request", "explain: the item is no pick and no id");
    }
    checkText("explain: the item", id);
    const given = options === undefined ? undefined : this.#request("explain", options);
    const asked: (() => EngineRequest) | undefined =
      typeof item === "string" ? undefined : Reflect.get(Object(item.codes), this.#asked);
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
    return this.#host.events.on(name, listener);
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
    return this.#queue.run(() => this.#host.add(request));
  }

  /**
   * Changes the engine once the calls before it are answered; `auto` chooses as {@link load} does.
   *
   * Rejects with a {@link TigretError} (`bad-request`, `no-gpu`, `device-lost`, `crashed`, `disposed`;
   * `auto` also with `bad-bundle`, for weights whose numbers overflow); after `no-gpu`, `device-lost`,
   * and `crashed` where the GPU does not answer within 30 seconds, the engine is the one that it was.
   */
  async use(backend: Backend): Promise<void> {
    checkBackend(backend);
    await this.#queue.run(() => this.#host.use(backend));
  }

  /** Ends the worker and frees the model and its bundle. What is unanswered rejects with code `disposed`. */
  dispose(): void {
    const message = "the recommender was disposed of; load another one";
    this.#disposed.abort(new TigretError("disposed", message));
    void this.history.close();
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
    // Earlier versions stored ids that are refused by now, and no model has.
    const history = async () => (await this.history.list()).filter(isId);
    return async () => (stored ? { ...request, history: await history() } : request);
  }

  async #recommend(method: string, options: RecommendOptions): Promise<Report> {
    const complete = this.#request(method, options);
    const ends = this.#endsOf("recommend", options);
    const isWanted = () => !ends.some((end) => end?.aborted);
    return this.#queue.runWith(
      complete,
      async (request) => {
        const answer = await this.#host.recommend(request, isWanted);
        const { items, unknown, milliseconds, engine, engineName } = answer;
        // As a function: a framework's proxy of the pick passes that on. React refuses to send a
        // browser an object with symbols, but for arrays.
        const asked = { value: () => request, configurable: true };
        for (const { codes } of items) Object.defineProperty(codes, this.#asked, asked);
        const seed = request.seed ?? null;
        return { picks: items, unknown, seed, engine, engineName, milliseconds };
      },
      ...ends,
    );
  }

  /** Asks the worker in turn, with what is to be waited for before. */
  async #ask<M extends Method>(
    method: M,
    args: () => Promise<Methods[M]["arguments"]>,
    options: RecommendOptions = {},
  ): Promise<Methods[M]["result"]> {
    const ask = (ready: Methods[M]["arguments"]) => this.#host.ask(method, ready);
    return this.#queue.runWith(args, ask, ...this.#endsOf(method, options));
  }
}
