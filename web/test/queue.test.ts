import { expect, test, vi } from "vitest";
import { Queue } from "../src/queue.js";

const pause = () => new Promise((resolve) => setTimeout(resolve, 1));

test("tasks run one after the other, in order, whatever became of the one before", async () => {
  const queue = new Queue();
  const log: string[] = [];
  const task = (name: string) => async () => {
    log.push(`${name} begins`);
    await pause();
    log.push(`${name} ends`);
    if (name === "a") throw new Error("a failed");
    return name;
  };
  const results = await Promise.allSettled([queue.run(task("a")), queue.run(task("b"))]);
  expect(log).toEqual(["a begins", "a ends", "b begins", "b ends"]);
  expect(results.map((result) => result.status)).toEqual(["rejected", "fulfilled"]);
});

test("a task aborted while it waits rejects at once and never begins", async () => {
  const queue = new Queue();
  const controller = new AbortController();
  let began = false;
  let firstEnded = false;
  const first = queue.run(async () => {
    await pause();
    firstEnded = true;
  });
  const second = queue.run(async () => {
    began = true;
  }, controller.signal);
  controller.abort();
  await expect(second).rejects.toMatchObject({ name: "AbortError" });
  expect(firstEnded).toBe(false);
  await first;
  await queue.run(async () => {});
  expect(began).toBe(false);
});

test("a task aborted while it runs rejects at once, and the next waits until it has ended", async () => {
  const queue = new Queue();
  const controller = new AbortController();
  let ended = false;
  const running = queue.run(async () => {
    await pause();
    await pause();
    ended = true;
  }, controller.signal);
  await Promise.resolve();
  controller.abort(new Error("changed my mind"));
  await expect(running).rejects.toThrow("changed my mind");
  expect(ended).toBe(false);
  await queue.run(async () => expect(ended).toBe(true));
});

test("a task ends with the first of its signals", async () => {
  const [a, b] = [new AbortController(), new AbortController()];
  const running = new Queue().run(() => new Promise(() => {}), a.signal, undefined, b.signal);
  b.abort("second");
  a.abort("first");
  await expect(running).rejects.toBe("second");
});

test("a queue that ends rejects what waits, what runs and what comes later, with its reason", async () => {
  const end = new AbortController();
  const queue = new Queue(end.signal);
  let begun = 0;
  const task = () => {
    begun++;
    return new Promise<void>(() => {});
  };
  const own = new AbortController();
  const tasks = [queue.run(task), queue.run(task), queue.run(task, own.signal)];
  await Promise.resolve();
  end.abort("over");
  own.abort("later");
  for (const ended of [...tasks, queue.run(task)]) await expect(ended).rejects.toBe("over");
  expect(begun).toBe(1);
});

test("what is slow to come for one task delays those behind it once, and ends with its signal", async () => {
  vi.useFakeTimers();
  try {
    const end = new AbortController();
    const queue = new Queue(end.signal);
    const own = new AbortController();
    const never = () => new Promise<object>(() => {});
    const slow = queue.runWith(never, async () => {}, own.signal);
    const slower = queue.runWith(never, async () => {});
    const ended = [expect(slow).rejects.toBe("own"), expect(slower).rejects.toBe("all")];
    await vi.advanceTimersByTimeAsync(600);
    let through = 0;
    for (let task = 0; task < 5; task++) void queue.run(async () => through++);
    await vi.advanceTimersByTimeAsync(0);
    expect(through).toBe(5);
    own.abort("own");
    await ended[0];
    end.abort("all");
    await ended[1];
  } finally {
    vi.useRealTimers();
  }
});

test("a task that is aborted while it is waited for does not begin, though it is ready", async () => {
  const queue = new Queue();
  const own = new AbortController();
  let begun = 0;
  const ask = async () => {
    await pause();
    return {};
  };
  const calls = [
    queue.runWith(ask, async () => begun++, own.signal),
    queue.runWith(ask, async () => begun++),
  ];
  await Promise.resolve();
  own.abort("own");
  await expect(calls[0]).rejects.toBe("own");
  await calls[1];
  expect(begun).toBe(1);
});

test("many tasks at once are no leak of listeners to Node", async () => {
  const warned: string[] = [];
  const warn = ({ message }: Error) => warned.push(message);
  process.on("warning", warn);
  const queue = new Queue(new AbortController().signal);
  await Promise.all(Array.from({ length: 50 }, () => queue.run(pause)));
  process.off("warning", warn);
  expect(warned).toEqual([]);
});
