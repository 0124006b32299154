/** Runs tasks one after the other, in the order in which they came. */
export class Queue {
  readonly #end: AbortSignal | undefined;
  #last: Promise<void> = Promise.resolve();

  /** `end` aborts every task, as the signal of each does. */
  constructor(end?: AbortSignal) {
    this.#end = end;
  }

  /**
   * Runs `task` when all before it are through. If `signal` is aborted the promise rejects with
   * its reason at once; a task that has not begun is skipped, one that has is left to end.
   */
  run<T>(task: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const signals = [this.#end, signal];
      const aborted = () => signals.find((signal) => signal?.aborted);
      const abort = () => reject(aborted()?.reason);
      if (aborted()) return abort();
      const offs = signals.map((signal) => onAbort(signal, abort));
      this.#last = this.#last.then(async () => {
        try {
          if (!aborted()) resolve(await task());
        } catch (error) {
          reject(error);
        } finally {
          for (const off of offs) off();
        }
      });
    });
  }
}

/**
 * A signal that is aborted as soon as one of two is, with its reason: `AbortSignal.any` is younger
 * than browsers that the CPU engine serves.
 */
export function joined(first: AbortSignal, second: AbortSignal | undefined): AbortSignal {
  if (!second) return first;
  const either = new AbortController();
  for (const signal of [first, second]) {
    const abort = () => either.abort(signal.reason);
    if (signal.aborted) abort();
    onAbort(either.signal, onAbort(signal, abort));
  }
  return either.signal;
}

/** Has a function called when a signal is aborted; returns what takes that back. */
export function onAbort(signal: AbortSignal | undefined, call: () => void): () => void {
  signal?.addEventListener("abort", call);
  return () => signal?.removeEventListener("abort", call);
}
