/** Which engine was the faster one, as `localStorage` remembers it. */

import type { GpuOptions } from "./types.js";

/** The GPU's come in the order in which they are tried, the second without what not every GPU has. */
export const ON_GPU = ["webgpu", "webgpu-plain"] as const;

const CHOICES = [...ON_GPU, "cpu"] as const;
/** An engine, or the GPU's without what not every GPU has. */
export type Choice = (typeof CHOICES)[number];

/** With what the keys of choices begin: this package keeps nothing else in `localStorage`. */
const PREFIX = "tigret:engine|";
/** Milliseconds that a choice is remembered: drivers and browsers change. */
const MEMORY = 30 * 24 * 3_600_000;

/** Under what a choice is remembered: it holds for one model and engine on one device. */
export function choiceKey(parts: {
  fingerprint: string;
  version: string;
  adapter: string;
  gpu: GpuOptions;
}): string {
  const { version, fingerprint, adapter, gpu } = parts;
  const { halves, packedProducts, subgroups } = gpu;
  const options = [halves, packedProducts, subgroups].join(",");
  const agent = globalThis.navigator?.userAgent ?? "";
  return PREFIX + [version, fingerprint, adapter, options, agent].join("|");
}

/** What a stored text says, if it is not too old. */
function read(text: string | null | undefined): Choice | undefined {
  const [name, at] = (text ?? "").split(" ");
  // A clock may have been set back.
  if (!(Math.abs(Date.now() - Number(at)) < MEMORY)) return undefined;
  return CHOICES.find((choice) => choice === name);
}

/** The remembered choice; `undefined` too where storage is denied. */
export function remembered(key: string): Choice | undefined {
  try {
    return read(globalThis.localStorage?.getItem(key));
  } catch {
    return undefined;
  }
}

/** Remembers a choice where storage allows it, and drops those that are too old. */
export function remember(key: string, choice: Choice): void {
  try {
    const { localStorage } = globalThis;
    for (const other of Object.keys(localStorage)) {
      const isOld = other.startsWith(PREFIX) && !read(localStorage.getItem(other));
      if (isOld) localStorage.removeItem(other);
    }
    localStorage.setItem(key, `${choice} ${Date.now()}`);
  } catch {
    // Denied, full or none: the next visit measures again.
  }
}

/** Forgets a choice: the next visit measures again. */
export function drop(key: string): void {
  try {
    globalThis.localStorage?.removeItem(key);
  } catch {
    // Denied: then nothing is remembered.
  }
}

/** Drops all that this package has in `localStorage`. */
export function forgetChoices(): void {
  try {
    const keys = Object.keys(globalThis.localStorage ?? {});
    for (const key of keys.filter((key) => key.startsWith(PREFIX))) localStorage.removeItem(key);
  } catch {
    // Denied.
  }
}
