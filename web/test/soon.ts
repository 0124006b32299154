import { vi } from "vitest";

/** The one that no test fakes. */
const nextTurn = setImmediate;

/** What a promise comes to within as many seconds of a faked clock. */
export async function soon<T>(promise: Promise<T>, seconds = 3): Promise<T> {
  let over = false;
  const settled = promise.finally(() => {
    over = true;
  });
  settled.catch(() => {});
  for (let second = 0; second < seconds && !over; second++) {
    await vi.advanceTimersByTimeAsync(1000);
    // What is read of a Blob comes by no timer.
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => nextTurn(resolve));
  }
  if (!over) throw new Error(`not within ${seconds} seconds`);
  return settled;
}
