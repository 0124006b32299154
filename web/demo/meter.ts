/** What the page can show for its promise: times, bytes, and requests since the model is there. */

/** Counts the requests of the page from the moment that it is made. */
export class RequestCount {
  #count = 0;

  constructor(onChange: (count: number) => void) {
    const seen = (names: string[]) => {
      if (names.length === 0) return;
      this.#count += names.length;
      onChange(this.#count);
    };
    new PerformanceObserver((list) => {
      seen(list.getEntries().map((entry) => entry.name));
    }).observe({ type: "resource" });
    // What the worker asks for passes the service worker, which tells the page of it and of its own.
    navigator.serviceWorker?.addEventListener("message", ({ data }) => {
      if (data?.kind === "request") seen([data.url]);
    });
    onChange(0);
  }
}

/** The median of the last calls. */
export class Times {
  #last: number[] = [];

  add(milliseconds: number): void {
    this.#last = [...this.#last.slice(-30), milliseconds];
  }

  get median(): number {
    const sorted = [...this.#last].sort((a, b) => a - b);
    return sorted[sorted.length >> 1] ?? 0;
  }
}

/** Passes on at most one call in each span of so many milliseconds. */
export function seldom<Args extends unknown[]>(
  call: (...args: Args) => void,
  milliseconds: number,
): (...args: Args) => void {
  let last = Number.NEGATIVE_INFINITY;
  return (...args) => {
    const now = performance.now();
    if (now - last < milliseconds) return;
    last = now;
    call(...args);
  };
}

/** Bytes for people. */
export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(bytes < 1e5 ? 2 : 1)} MB`;
}
