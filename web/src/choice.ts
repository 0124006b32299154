/** `backend: "auto"`: which engine is the faster one for a model on a device. */

import { type Choice, choiceKey, drop, ON_GPU, remember, remembered } from "./choice-memory.js";
import { isForgotten } from "./erasure.js";
import { isFailure, Late } from "./errors.js";
import { toRequest } from "./options.js";
import type { Answer, EngineRequest, Loaded } from "./protocol.js";
import type { Engine, GpuOptions, ModelInfo, Pick } from "./types.js";

/** A GPU without what not every GPU has. */
export const PLAIN: GpuOptions = { halves: false, packedProducts: false, subgroups: false };

/** What a choice needs of the worker. */
interface Timed {
  /** What is in use; `undefined` where the worker has ended. */
  inUse(): Choice | undefined;
  /** The WebGPU adapter in words, or `null` where there is none. */
  adapter(): Promise<string | null>;
  /** With `gpu` in the place of the caller's own options. */
  use(engine: Engine, gpu?: GpuOptions): Promise<unknown>;
  recommend(request: EngineRequest): Promise<Answer>;
}

/** Which choice an engine is, with what the GPU may make use of. */
export function choiceOf(engine: Engine, gpu: GpuOptions): Choice {
  if (engine === "cpu") return "cpu";
  return gpu === PLAIN ? "webgpu-plain" : "webgpu";
}

/** Remembers another choice in the place of the one that is remembered, if one is, or none. */
export type Correct = (choice: Choice | null) => void;

/**
 * Takes the faster engine into use; remembered unless all was forgotten since `begun`. `gpu` is what
 * the GPU may make use of. Resolves with what corrects the memory where the choice fails later.
 */
export async function choose(
  timed: Timed,
  { info, sampleHistory }: Loaded,
  gpu: GpuOptions,
  begun: number,
): Promise<Correct> {
  const adapter = await timed.adapter();
  // Without an adapter there is nothing to choose, and nothing worth remembering.
  if (adapter === null) {
    await useChoice(timed, "cpu");
    return () => {};
  }
  const key = choiceKey({ ...info, adapter, gpu });
  const keep = (choice: Choice) => {
    if (!isForgotten(begun)) remember(key, choice);
  };
  // Later it is the memory itself that tells what was forgotten, in this tab or another.
  const correct: Correct = (choice) => {
    if (choice === null) drop(key);
    else if (remembered(key)) keep(choice);
  };
  const earlier = remembered(key);
  if (earlier) {
    try {
      await useChoice(timed, earlier);
      return correct;
    } catch (error) {
      if (!isFailure(error)) throw error;
      if (error instanceof Late) {
        // Nobody waits for one that hangs once more.
        await useChoice(timed, "cpu");
        keep("cpu");
        return correct;
      }
    }
  }
  await useChoice(timed, "cpu");
  const request = toRequest({ history: sampleHistory });
  const { weightFormat } = info;
  const isPacked = weightFormat === "q8" || weightFormat === "q4";
  // What the caller wishes of the GPU holds, however slow it is.
  const isFree = Object.values(gpu).every((wish) => wish === undefined);
  const mayEmulate = isPacked && isFree && !/^apple|swiftshader/i.test(adapter);
  const tolerance = toleranceOf(weightFormat);
  const timing = fasterEngine(timed, request, tolerance, mayEmulate);
  const [{ choice, lasts }, inSight] = await Promise.all([timing, staysInSight(timing)]);
  if (lasts && inSight) keep(choice);
  return correct;
}

/** The first call compiles pipelines and fills caches. */
const WARM_UP = 1;
/** Few and odd: the visitor waits for them once, and the engines rarely lie close together. */
const RUNS = 3;

/** A first call this many times slower than the CPU's median is not for compiling alone. */
const HOPELESS_FIRST = 20;
/** A later call this many times slower settles it too: doing without packed products gains less. */
const HOPELESS = 2;

/** A GPU that answers something else than the CPU. */
class Wrong extends Error {}

/** How far scores of the two engines may differ by rounding: those in halves by more. */
function toleranceOf(weightFormat: ModelInfo["weightFormat"]): number {
  return weightFormat === "f16" ? 0.1 : 0.05;
}

/** Whether picks are those that are meant, but for what rounding changes. */
function agree(found: Pick[], meant: Pick[], tolerance: number): boolean {
  const scores = new Map(meant.map(({ id, score }) => [id, score]));
  const shared = found.filter(({ id }) => scores.has(id));
  const isClose = ({ id, score }: Pick) =>
    Math.abs(score - (scores.get(id) ?? Number.NaN)) <= tolerance;
  return shared.every(isClose) && 2 * shared.length >= Math.max(found.length, meant.length);
}

/**
 * Median time of one recommendation, in milliseconds, and the last picks. Stops early, with
 * infinity, where it will not come near `rival`.
 */
async function measure(
  recommend: () => Promise<Answer>,
  rival = Number.POSITIVE_INFINITY,
): Promise<{ time: number; picks: Pick[] }> {
  const times: number[] = [];
  let picks: Pick[] = [];
  for (let run = 0; run < WARM_UP + RUNS; run++) {
    const { milliseconds, items } = await recommend();
    picks = items;
    const limit = run < WARM_UP ? HOPELESS_FIRST : HOPELESS;
    if (milliseconds > limit * rival) return { time: Number.POSITIVE_INFINITY, picks };
    if (run >= WARM_UP) times.push(milliseconds);
  }
  times.sort((a, b) => a - b);
  return { time: times[RUNS >> 1] ?? Number.POSITIVE_INFINITY, picks };
}

/** Whether the page is looked at until `task` is over: a tab that is not, even for a while, is slowed down. */
async function staysInSight(task: Promise<unknown>): Promise<boolean> {
  const { document } = globalThis;
  let wasHidden = false;
  const look = () => {
    wasHidden ||= document?.visibilityState === "hidden";
  };
  look();
  document?.addEventListener("visibilitychange", look);
  try {
    await task;
    return !wasHidden;
  } finally {
    document?.removeEventListener("visibilitychange", look);
  }
}

/**
 * Times both engines and leaves the faster one in use, if it answers as the CPU does. The CPU must
 * be in use at the start; it is what remains where WebGPU is missing, fails or computes wrongly.
 * `mayEmulate`: whether the GPU multiplies by packed products by itself; many have to emulate them.
 * `lasts`: whether another visit would come to the same choice.
 */
async function fasterEngine(
  timed: Timed,
  request: EngineRequest,
  tolerance: number,
  mayEmulate: boolean,
): Promise<{ choice: Choice; lasts: boolean }> {
  let [lasts, hasLost] = [true, false];
  const cpu = await measure(() => timed.recommend(request));
  const onGpu = async () => {
    const answer = await timed.recommend(request);
    if (!agree(answer.items, cpu.picks, tolerance)) throw new Wrong();
    return answer;
  };
  // Once more in case it is what not every GPU has that fails, or is slower than doing without.
  for (const choice of ON_GPU) {
    try {
      await useChoice(timed, choice);
      const { time } = await measure(onGpu, cpu.time);
      if (time < cpu.time) return { choice, lasts };
      hasLost = true;
      if (!mayEmulate || time > HOPELESS * cpu.time) break;
    } catch (error) {
      if (error instanceof Late) break;
      if (error instanceof Wrong) continue;
      if (!isFailure(error)) throw error;
      // A worker that ends, for want of memory above all, says nothing of the device.
      if (error.code === "crashed" && !hasLost) lasts = false;
    }
  }
  await useChoice(timed, "cpu");
  return { choice: "cpu", lasts };
}

/** Takes up what was chosen, unless it is in use. */
async function useChoice(timed: Timed, choice: Choice): Promise<void> {
  if (timed.inUse() === choice) return;
  if (choice === "cpu") await timed.use("cpu");
  else await timed.use("webgpu", choice === "webgpu" ? undefined : PLAIN);
}
