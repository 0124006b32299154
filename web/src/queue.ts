/** Runs tasks one after the other, in the order in which they came. */
export class Queue {
  #last: Promise<void> = Promise.resolve();

  /**
   * Runs `task` when all before it are through. If `signal` is aborted the promise rejects with
   * its reason at once; a task that has not begun is skipped, one that has is left to end.
   */
  run<T>(task: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const abort = () => reject(signal?.reason);
      signal?.addEventListener("abort", abort, { once: true });
      this.#last = this.#last.then(async () => {
        try {
          if (!signal?.aborted) resolve(await task());
        } catch (error) {
          reject(error);
        } finally {
          signal?.removeEventListener("abort", abort);
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
