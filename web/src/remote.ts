/** The page's end of the worker: calls out, results in. */

import { TigretError } from "./errors.js";
import type { Message, Method, Methods } from "./protocol.js";

/** What this package needs of a `Worker`. */
export type WorkerLike = globalThis.Pick<Worker, "postMessage" | "terminate" | "addEventListener">;

interface Waiting {
  resolve(value: Methods[Method]["result"]): void;
  reject(error: TigretError): void;
}

export class Remote {
  readonly #worker: WorkerLike;
  readonly #waiting = new Map<number, Waiting>();
  #next = 0;
  #stopped: TigretError | undefined;

  constructor(worker: WorkerLike) {
    this.#worker = worker;
    worker.addEventListener("message", (event) => {
      this.#receive((event as MessageEvent<Message>).data);
    });
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      const why =
        (event as ErrorEvent).message ||
        "its script could not be loaded; serve worker.js from the page's own origin and allow it in the content security policy";
      this.stop(new TigretError("crashed", `the worker stopped: ${why}`));
    });
    worker.addEventListener("messageerror", () => {
      this.stop(new TigretError("crashed", "the worker stopped: a message could not be read"));
    });
  }

  /** Asks the worker. Rejects with a {@link TigretError}. */
  call<M extends Method>(
    method: M,
    args: Methods[M]["arguments"],
    transfer: Transferable[] = [],
  ): Promise<Methods[M]["result"]> {
    if (this.#stopped) return Promise.reject(this.#stopped);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as Waiting["resolve"], reject });
      this.#worker.postMessage({ id, method, ...args }, transfer);
    });
  }

  /** Whether the worker has ended. */
  get stopped(): boolean {
    return this.#stopped !== undefined;
  }

  /** Ends the worker; all that is unanswered, and every later call, rejects with `error`. */
  stop(error: TigretError): void {
    if (this.#stopped) return;
    this.#stopped = error;
    this.#worker.terminate();
    for (const waiting of this.#waiting.values()) waiting.reject(error);
    this.#waiting.clear();
  }

  #receive(message: Message): void {
    if (message.kind === "crash") {
      this.stop(new TigretError("crashed", `the worker stopped: ${message.message}`));
      return;
    }
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (message.kind === "result") waiting?.resolve(message.value);
    else waiting?.reject(new TigretError(message.code, message.message));
  }
}
