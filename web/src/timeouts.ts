/** Timeouts that do not elapse while the page is frozen. */

/** Steps in which a limit is counted: such a page takes one, however long, and reads what came. */
const STEPS = 4;

/** Calls `late` once as many milliseconds are counted; returns what ends the count before. */
export function after(milliseconds: number, late: () => void): () => void {
  const page: { prerendering?: boolean } & Partial<Document> = globalThis.document ?? {};
  let left = STEPS;
  const timer = setInterval(() => {
    // A page that is prerendered gets no worker before its visit.
    if (page.prerendering || --left > 0) return;
    clearInterval(timer);
    late();
  }, milliseconds / STEPS);
  return () => clearInterval(timer);
}

/** What a promise comes to, or what `late` gives in its place once as many milliseconds are counted. */
export function within<T>(
  milliseconds: number,
  promise: Promise<T>,
  late: () => T | Promise<T>,
): Promise<T> {
  return new Promise((resolve, reject) => {
    promise.then(resolve, reject).finally(after(milliseconds, () => resolve(late())));
  });
}
