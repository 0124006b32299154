/** `backend: "auto"`: which engine is the faster one for a model on a device. */

import type { Answer, Engine, EngineRequest, GpuOptions } from "./protocol.js";

/** A GPU without what not every GPU has. */
export const PLAIN: GpuOptions = { halves: false, packedProducts: false, subgroups: false };

/** An engine, or the GPU's without what not every GPU has. */
export type Choice = Engine | "webgpu-plain";

/** What a choice needs of the worker. */
export interface Timed {
  /** With `gpu` in the place of the caller's own options. */
  use(engine: Engine, gpu?: GpuOptions): Promise<unknown>;
  recommend(request: EngineRequest): Promise<Answer>;
}

/** The first call compiles pipelines and fills caches. */
const WARM_UP = 1;
/** Few and odd: the visitor waits for them once, and the engines rarely lie close together. */
const RUNS = 3;

/** A first call this many times slower than the CPU's median is not for compiling alone. */
const HOPELESS_FIRST = 20;
/** A later call this many times slower settles it too. */
const HOPELESS = 2;

/**
 * Median time of one recommendation on the engine in use, in milliseconds. Stops early, with
 * infinity, where it will not come near `rival`.
 */
async function medianTime(
  timed: Timed,
  request: EngineRequest,
  rival = Number.POSITIVE_INFINITY,
): Promise<number> {
  const times: number[] = [];
  for (let run = 0; run < WARM_UP + RUNS; run++) {
    const { milliseconds } = await timed.recommend(request);
    const limit = run < WARM_UP ? HOPELESS_FIRST : HOPELESS;
    if (milliseconds > limit * rival) return Number.POSITIVE_INFINITY;
    if (run >= WARM_UP) times.push(milliseconds);
  }
  times.sort((a, b) => a - b);
  return times[RUNS >> 1] ?? Number.POSITIVE_INFINITY;
}

/**
 * Times both engines and leaves the faster one in use. The CPU must be in use at the start; it
 * is what remains where WebGPU is missing or fails.
 */
export async function fasterEngine(timed: Timed, request: EngineRequest): Promise<Choice> {
  const cpu = await medianTime(timed, request);
  // Once more in case it is what not every GPU has that fails.
  for (const choice of ["webgpu", "webgpu-plain"] as const) {
    try {
      await timed.use("webgpu", choice === "webgpu" ? undefined : PLAIN);
      if ((await medianTime(timed, request, cpu)) < cpu) return choice;
      break;
    } catch (error) {
      // No device, or one that fails at once.
      if ((error as { code?: string }).code === "no-gpu") break;
    }
  }
  await timed.use("cpu");
  return "cpu";
}

/** With what the keys of this package begin in `localStorage`. */
export const PREFIX = "tigret:";

/** Under what a choice is remembered: it holds for one model and engine on one device. */
export function choiceKey(parts: {
  fingerprint: string;
  version: string;
  adapter: string | null;
  gpu: GpuOptions;
}): string {
  const { version, fingerprint, adapter, gpu } = parts;
  const { halves, packedProducts, subgroups } = gpu;
  const options = [halves, packedProducts, subgroups].join(",");
  const agent = globalThis.navigator?.userAgent ?? "";
  return [`${PREFIX}engine`, version, fingerprint, adapter ?? "-", options, agent].join("|");
}

/** The remembered choice; `undefined` too where storage is denied. */
export function remembered(key: string): Choice | undefined {
  try {
    const value = globalThis.localStorage?.getItem(key);
    return (["webgpu", "webgpu-plain", "cpu"] as const).find((choice) => choice === value);
  } catch {
    return undefined;
  }
}

/** Remembers a choice where storage allows it. */
export function remember(key: string, choice: Choice): void {
  try {
    globalThis.localStorage?.setItem(key, choice);
  } catch {
    // Denied or full: the next visit measures again.
  }
}
