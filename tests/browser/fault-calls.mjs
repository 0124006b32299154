/** Calls that faults strike at random moments, and what may come of them. Runs in the page. */

import { generator } from "./hostile-requests.mjs";
import { startedWorkers } from "./started-workers.mjs";

/** Scores of two engines differ by rounding. */
const TOLERANCE = 1e-3;

/** @typedef {{ id: string, score: number }[]} Picks */

/** @param {number} milliseconds */
const after = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Whether picks are those of the engine that computed. @param {Picks} found @param {Picks} meant */
const same = (found, meant) =>
  found.length === meant.length &&
  found.every(
    ({ id, score }, at) =>
      id === meant[at]?.id && Math.abs(score - (meant[at]?.score ?? 0)) <= TOLERANCE,
  );

/**
 * Strikes a recommender `rounds` times, before or in a call, and sometimes once more in what the
 * first blow led to. Every call must end in the right answer, or in a typed error where it may; the
 * call after it must be answered.
 *
 * @param {any} tigret @param {string} url @param {"cpu" | "webgpu"} backend
 * @param {"device" | "worker"} what is struck: the GPU's devices, or the worker
 * @param {number} seed @param {number} rounds
 */
export async function holdStrikes(tigret, url, backend, what, seed, rounds) {
  const random = generator(seed);
  const { Recommender, TigretError } = tigret;
  const { workers, worker } = startedWorkers("/tests/losing-worker.mjs");
  const strike = () => {
    if (what === "worker") workers.at(-1)?.terminate();
    else workers.at(-1)?.postMessage("lose");
  };
  const reference = await Recommender.load(url, { backend: "cpu" });
  const recommender = await Recommender.load(url, { backend, worker });
  const { ids } = await recommender.catalogue();
  const questions = Array.from({ length: 8 }, (_, index) => ({
    history: ids.slice(index, 3 * index),
    beams: [512, 1, 30, 100][index % 4],
    exclude: "history",
    ...(index % 3 === 2 && { temperature: 1.5, seed: index }),
  }));
  /** @type {{ cpu: Picks, webgpu: Picks }[]} */
  const meant = [];
  /** @type {number[]} How long each takes. */
  const times = [];
  for (const question of questions) {
    const cpu = await reference.recommend(question);
    meant.push({ cpu, webgpu: await recommender.recommend(question) });
    // The first time is longer than all others.
    const start = performance.now();
    await recommender.recommend(question);
    times.push(performance.now() - start);
  }
  const explanation = JSON.stringify(await reference.explain(ids[0], questions[1]));
  let struck = 0;
  let inCall = 0;
  recommender.on("device-lost", () => struck++);

  /** @type {Record<string, number>} */
  const ends = {};
  /** @type {string[]} */
  const failures = [];
  for (let round = 0; round < rounds; round++) {
    const when = random.one(["before", "in", "in", "twice"]);
    const explains = what === "worker" && random.chance(0.2);
    const which = random.below(questions.length);
    const moment = random.unit() * (times[explains ? 1 : which] ?? 0);
    const where = `${what}, ${when}, after ${moment.toFixed(1)} ms, question ${which}`;
    const before = struck;
    if (when === "before") {
      strike();
      await after(moment);
    }
    const running = explains
      ? recommender.explain(ids[0], questions[1])
      : recommender.report(questions[which]);
    const ended = running.catch((/** @type {unknown} */ error) => error);
    if (when !== "before") {
      await after(moment);
      const count = workers.length;
      strike();
      if (when === "twice") {
        // What is built anew is struck too: a worker that runs already, or devices as they come.
        const over = ended.then(() => true);
        while (what === "worker" && workers.length === count) {
          if (await Promise.race([over, after(1)])) break;
        }
        const newest = workers.at(-1);
        if (workers.length > count) {
          await new Promise((resolve) => newest?.addEventListener("message", resolve));
        }
        await after(random.unit() * (what === "worker" ? 100 : 1000));
        strike();
      }
    }
    const end = await ended;
    if (when !== "before" && struck > before) inCall++;
    const typed = end instanceof TigretError;
    const name = typed ? end.code : end instanceof Error ? String(end) : "answered";
    ends[name] = (ends[name] ?? 0) + 1;
    // A call that is struck once is repeated; what is no recommendation says that it failed.
    const mayFail = when === "twice" || explains;
    if (typed ? !mayFail || !["crashed", "device-lost"].includes(end.code) : name !== "answered") {
      failures.push(`${where}: ended with ${end}`);
    } else if (!typed) {
      const right = explains
        ? JSON.stringify(end) === explanation
        : same(end.picks, meant[which]?.[/** @type {"cpu"} */ (end.engine)] ?? []);
      if (!right) failures.push(`${where}: another answer, ${JSON.stringify(end)}`);
      // What is struck once is set up again, and no other engine takes over.
      if (when !== "twice" && recommender.engine !== backend) failures.push(`${where}: on the CPU`);
    }
    // The next call works.
    const next = await recommender.report(questions[0]).catch((/** @type {unknown} */ e) => e);
    if (!next.picks) failures.push(`${where}: the next call ended with ${next}`);
    else if (!same(next.picks, meant[0]?.[/** @type {"cpu"} */ (next.engine)] ?? [])) {
      failures.push(`${where}: another answer of the next call, ${JSON.stringify(next)}`);
    }
    // Where the GPU was lost twice the CPU took over.
    if (recommender.engine !== backend) await recommender.use(backend);
  }
  recommender.dispose();
  reference.dispose();
  return { ends, failures, struck, inCall };
}
