/** What ends when a signal is aborted. */

/**
 * Has a function called when a signal is aborted, at once where it is; returns what takes that back.
 * A caller's signal may be there for as long as the page is.
 */
export function onAbort(signal: AbortSignal | undefined, call: () => void): () => void {
  if (signal?.aborted) call();
  signal?.addEventListener("abort", call);
  return () => signal?.removeEventListener("abort", call);
}

/** What a promise comes to, or the reason of a signal that is aborted before. */
export function untilAborted<T>(signal: AbortSignal | undefined, promise: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const off = onAbort(signal, () => reject(signal?.reason));
    promise.then(resolve, reject).finally(off);
  });
}
