import { onAbort, untilAborted } from "./abort.js";
import { within } from "./timeouts.js";

/** Milliseconds after which a task that waits for something slow goes to the queue's end. */
const SLOW = 250;
/** Milliseconds between two looks at what goes on though its caller has left. */
const LOOK = 10_000;

/** Runs tasks one after the other, in the order in which they came. */
export class Queue {
  readonly #end: AbortSignal | undefined;
  readonly #look: () => void;
  #last: Promise<void> = Promise.resolve();
  /** What rejects each task that is not through. Node warns of many listeners on one signal. */
  readonly #aborts = new Set<() => void>();

  /**
   * `end` aborts every task, as the signal of each does. `look` is called now and then while a task
   * goes on that was aborted: those behind it wait, and nobody else would notice that it never ends.
   */
  constructor(end?: AbortSignal, look: () => void = () => {}) {
    this.#end = end;
    this.#look = look;
    onAbort(end, () => {
      for (const abort of this.#aborts) abort();
    });
  }

  /**
   * Runs `task` when all before it are through. If one of the signals is aborted the promise rejects
   * with its reason at once; a task that has not begun is skipped, one that has is left to end.
   */
  run<T>(task: () => Promise<T>, ...ends: (AbortSignal | undefined)[]): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const signals = [this.#end, ...ends];
      const aborted = () => signals.find((signal) => signal?.aborted);
      let begun = false;
      let looking: ReturnType<typeof setInterval> | undefined;
      const abort = () => {
        reject(aborted()?.reason);
        if (begun) looking ??= setInterval(this.#look, LOOK);
      };
      if (aborted()) return abort();
      this.#aborts.add(abort);
      const offs = ends.map((signal) => onAbort(signal, abort));
      this.#last = this.#last.then(async () => {
        try {
          if (aborted()) return;
          begun = true;
          resolve(await task());
        } catch (error) {
          reject(error);
        } finally {
          clearInterval(looking);
          this.#aborts.delete(abort);
          for (const off of offs) off();
        }
      });
    });
  }

  /**
   * Runs `task` as {@link run} does, with what `ask` comes to, which is asked for when its turn has
   * come. Where that is slow to come, it is waited for beside the queue, and those behind go first.
   */
  async runWith<A extends object, T>(
    ask: () => Promise<A>,
    task: (ready: A) => Promise<T>,
    ...ends: (AbortSignal | undefined)[]
  ): Promise<T> {
    type Done = { value: T } | { asked: Promise<A> };
    const done = await this.run<Done>(
      async () => {
        const asked = ask();
        const ready = await within<A | null>(SLOW, asked, () => null);
        // What was aborted meanwhile is not worth a search: nobody waits for it.
        const isOver = [this.#end, ...ends].some((end) => end?.aborted);
        return ready && !isOver ? { value: await task(ready) } : { asked };
      },
      ...ends,
    );
    if ("value" in done) return done.value;
    const until = (ready: Promise<A>, end?: AbortSignal) => untilAborted(end, ready);
    const ready = await [this.#end, ...ends].reduce(until, done.asked);
    return this.run(() => task(ready), ...ends);
  }
}
