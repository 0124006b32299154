/** The page's end of the worker: calls out, results in. */

import { TigretError } from "./errors.js";
import type { Message, Method, Methods } from "./protocol.js";
import { after } from "./timeouts.js";

/** What this package needs of a `Worker`. */
export interface WorkerLike {
  postMessage(message: unknown, transfer: ArrayBuffer[]): void;
  terminate(): void;
  addEventListener(
    type: "message" | "messageerror" | "error",
    listener: (event: Event) => void,
  ): void;
}

/** Milliseconds that a worker's script may take to arrive and run. */
const START = 60_000;
/** Milliseconds that a worker which has nothing to do may take to answer. */
const WAKE = 8000;
/** Milliseconds for which a worker may compute what nobody waits for. */
const BUSY = 50_000;
/** Milliseconds that the browser may take to give the worker its lock: it answers many pages. */
const HOLD = 60_000;

/** Milliseconds for which the watch goes on after the last call: calls often come in rows. */
const LINGER = 500;

/** What helps where a worker's script does not load; the browser does not say why. */
const MEND =
  "serve worker.js and pkg/ from the page's own origin, with its COEP header, and allow worker-src in the content security policy, or import tigret/inline (worker-src blob:)";

/** What helps where a script runs and does not answer; the browser does not say what it is. */
const SILENT =
  "`worker`, where it is given, has to start dist/worker.js beside pkg/, or a script that imports tigret/worker";

/** Workers that were started: one that answers another recommender, or has ended, answers no more. */
const known = new WeakSet<WorkerLike>();

interface Waiting {
  resolve(value: Methods[Method]["result"]): void;
  reject(error: TigretError): void;
}

export class Remote {
  readonly #worker: WorkerLike;
  readonly #waiting = new Map<number, Waiting>();
  #next = 0;
  #stopped: TigretError | undefined;
  /** Calls that are not settled, those that wait for the worker to be watched included. */
  #unsettled = 0;
  /** Settles once the worker has said that it is there; none where nothing is asked of it. */
  #watched: Promise<void> | undefined;
  /** Ends the page's request for the worker's lock. */
  #unwatch: AbortController | undefined;
  /** Ends the watch after a while without a call. */
  #resting: ReturnType<typeof setTimeout> | undefined;
  #started = false;

  /** Starts a worker. Throws with code `crashed` where that fails, `bad-request` for one of before. */
  static start(start: () => WorkerLike): Remote {
    try {
      const worker = start();
      if (known.has(worker)) {
        const message =
          "`worker` returned a worker that it made before: make a new one at each call";
        throw new TigretError("bad-request", message);
      }
      known.add(worker);
      return new Remote(worker);
    } catch (cause) {
      if (cause instanceof TigretError) throw cause;
      const message = `the worker could not be started (${(cause as Error)?.message}): ${MEND}`;
      throw new TigretError("crashed", message, { cause });
    }
  }

  private constructor(worker: WorkerLike) {
    this.#worker = worker;
    worker.addEventListener("message", (event) => {
      this.#receive((event as MessageEvent<Message | null>).data);
    });
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      const why = (event as ErrorEvent).message || `its script could not be loaded: ${MEND}`;
      this.stop(new TigretError("crashed", `the worker stopped: ${why}`));
    });
    worker.addEventListener("messageerror", () => {
      this.stop(new TigretError("crashed", "the worker stopped: a message could not be read"));
    });
    // It begins to compile at once; who asks next hears of a failure.
    void this.wake();
  }

  /** Asks the worker. Rejects with a {@link TigretError}. */
  call<M extends Method>(
    method: M,
    args: Methods[M]["arguments"],
    transfer: ArrayBuffer[] = [],
  ): Promise<Methods[M]["result"]> {
    return this.#inSight(() => this.#post(method, args, transfer));
  }

  /**
   * Resolves once the worker has said that it is there, or has ended: {@link stopped} then knows,
   * which nothing tells of a worker that has nothing to do.
   */
  async wake(): Promise<void> {
    await this.#inSight(async () => {}).catch(() => {});
  }

  /** Stops the worker where no lock would tell of its end, and it does not answer for long. */
  check(): void {
    // Until it has started there is another limit.
    if (!this.#started || this.#unwatch) return;
    this.#within(BUSY, "answer", this.#post("start", {})).catch(() => {});
  }

  #post<M extends Method>(
    method: M,
    args: Methods[M]["arguments"],
    transfer: ArrayBuffer[] = [],
  ): Promise<Methods[M]["result"]> {
    if (this.#stopped) return Promise.reject(this.#stopped);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as Waiting["resolve"], reject });
      try {
        this.#worker.postMessage({ id, method, ...args }, transfer);
      } catch (cause) {
        // Too much for the memory that is left.
        const message = `the worker could not be asked (${(cause as Error).message})`;
        this.stop(new TigretError("crashed", message, { cause }));
      }
    });
  }

  /** Whether the worker has ever said that it is there. */
  get started(): boolean {
    return this.#started;
  }

  /** Why the worker has ended, if it has. */
  get stopped(): TigretError | undefined {
    return this.#stopped;
  }

  /** Ends the worker; all that is unanswered, and every later call, rejects with `error`. */
  stop(error: TigretError): void {
    if (this.#stopped) return;
    this.#stopped = error;
    clearTimeout(this.#resting);
    this.#unwatch?.abort();
    this.#worker.terminate();
    for (const waiting of this.#waiting.values()) waiting.reject(error);
    this.#waiting.clear();
  }

  /**
   * Runs a task while the worker is watched. The watch ends soon after the last task: a page that
   * holds a lock, or waits for one, may not be kept for the way back to it.
   */
  async #inSight<T>(task: () => Promise<T>): Promise<T> {
    this.#unsettled++;
    clearTimeout(this.#resting);
    try {
      this.#watched ??= this.#watch();
      await this.#watched;
      return await task();
    } finally {
      if (--this.#unsettled === 0 && !this.#stopped) this.#restSoon();
    }
  }

  /**
   * Notices that the worker has ended where no event tells of it: when something else than this
   * package ends it, or its script never arrives. The worker says that it is there, and holds a
   * lock, which the browser frees at its end; that works while it computes, too.
   */
  async #watch(): Promise<void> {
    const [limit, failed] = this.#started ? [WAKE, "answer"] : [START, "start"];
    await this.#within(limit, failed, this.#post("start", {}));
    this.#started = true;
    const lock = `tigret:worker:${Math.random()}`;
    const { held } = await this.#within(HOLD, "get its lock", this.#post("hold", { lock }));
    if (!held) return;
    this.#unwatch = new AbortController();
    void this.#wait(lock, this.#unwatch.signal);
  }

  /** Stops the worker where it has not answered after as many milliseconds. */
  async #within<T>(limit: number, failed: string, answer: Promise<T>): Promise<T> {
    const done = after(limit, () => {
      const message = `the worker did not ${failed} within ${limit / 1000} seconds`;
      this.stop(new TigretError("crashed", message + (this.#started ? "" : `; ${SILENT}`)));
    });
    return answer.finally(done);
  }

  /** Stops the worker where its lock is free before the watch ends. */
  async #wait(lock: string, signal: AbortSignal): Promise<void> {
    try {
      await navigator.locks.request(lock, { signal }, () => {
        if (signal.aborted) return;
        this.stop(new TigretError("crashed", "the worker was ended from outside"));
      });
    } catch {
      // The watch ends, or the page itself.
    }
  }

  /** Ends the watch after a while, in which an end of the worker is noticed by its lock. */
  #restSoon(): void {
    if (this.#unwatch) this.#resting = setTimeout(() => this.#rest(), LINGER);
    else this.#rest();
  }

  /** Ends the watch. */
  #rest(): void {
    this.#watched = undefined;
    if (!this.#unwatch) return;
    this.#unwatch.abort();
    this.#unwatch = undefined;
    this.#post("rest", {}).catch(() => {});
  }

  #receive(message: Message | null): void {
    // A worker of the page's own may say other things, too.
    switch (message?.kind) {
      case "result":
        this.#answered(message.id)?.resolve(message.value);
        break;
      case "error":
        this.#answered(message.id)?.reject(new TigretError(message.code, message.message));
        break;
      case "crash":
        this.stop(new TigretError("crashed", `the worker stopped: ${message.message}`));
    }
  }

  /** Who has waited for an answer. */
  #answered(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    return waiting;
  }
}
