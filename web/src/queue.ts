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
      for (const signal of signals) signal?.addEventListener("abort", abort);
      this.#last = this.#last.then(async () => {
        try {
          if (!aborted()) resolve(await task());
        } catch (error) {
          reject(error);
        } finally {
          for (const signal of signals) signal?.removeEventListener("abort", abort);
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
    signal.addEventListener("abort", abort, { once: true });
    const off = () => signal.removeEventListener("abort", abort);
    either.signal.addEventListener("abort", off, { once: true });
  }
  return either.signal;
}
