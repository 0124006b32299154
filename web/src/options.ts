/** The options of the face, and their checks: types can lie where the caller is JavaScript. */

import type { Progress } from "./download.js";
import { shown, TigretError } from "./errors.js";
import { checkId, checkIds, checkText } from "./ids.js";
import { parseIntegrity } from "./integrity.js";
import type { AddRequest, EngineRequest } from "./protocol.js";
import type { WorkerLike } from "./remote.js";
import type { GpuOptions, ModelInfo, NewItem } from "./types.js";

/** The largest seed of a sample. */
export const MAX_SEED = Number.MAX_SAFE_INTEGER;

/** The largest number of an embedding, as the engine has it. */
const LARGEST = 1e15;

/** Most beams of a search. */
export const MAX_BEAMS = 512;

/** Which engine may compute: `auto` times both once for a model on a device and keeps the faster. */
export type Backend = "auto" | "webgpu" | "cpu";

export interface LoadOptions {
  /** Default `auto`. */
  backend?: Backend | undefined;
  /** What the WebGPU engine may make use of. Default: what suits the device. */
  gpu?: GpuOptions | undefined;
  /**
   * Whether a bundle from an address (`http:`, `https:`) is kept on the device (Cache API), so that
   * the next visit does not download it again and works offline. A server of another origin is asked
   * for the whole file at each visit, unless `integrity` is given. Default true. Whenever one is kept,
   * bundles that were not used for 30 days are dropped, and of one origin and path, whatever the
   * query, all but the two used last; where there is no room, its own older version goes first, then
   * the one used longest ago.
   */
  cache?: boolean | undefined;
  /**
   * The SHA-256 that the bundle must have: `sha256-` and base64, or 64 hexadecimal digits. With it
   * a kept copy is used without asking the server.
   */
  integrity?: string | undefined;
  /** The visitor's id for calls that name none, for models that were trained with user tokens. */
  userId?: string | undefined;
  /** Name of the stored history ({@link Recommender.history}). Default `default`. */
  historyName?: string | undefined;
  /** Called while the bundle is downloaded. */
  onProgress?: ((progress: Progress) => void) | undefined;
  /** Aborts the download and the start. */
  signal?: AbortSignal | undefined;
  /**
   * Starts the worker, where the bundler in use does not know
   * `new Worker(new URL("./worker.js", import.meta.url))`. It is called again where a worker has to
   * be replaced, and makes a new one each time: one of before is refused.
   */
  worker?: (() => WorkerLike) | undefined;
}

export interface RecommendOptions {
  /** Ids of the items that the visitor liked, oldest first. Default: the stored history. */
  history?: readonly string[] | undefined;
  /**
   * The visitor's id, for models that were trained with user tokens; `null` for a call without one,
   * also where `userId` names one.
   */
  user?: string | null | undefined;
  /** The index of a user token, instead of `user`. */
  userToken?: number | undefined;
  /** How many items to return, at most `beams`. Default 20, or `beams` where that is less. */
  top?: number | undefined;
  /** Width of the beam search, 1 to 512. Default 50. */
  beams?: number | undefined;
  /** Ids that are never returned; `"history"` stands for those of the history. Default none. */
  exclude?: "history" | readonly string[] | undefined;
  /** Only these ids may be returned. An empty list gives an empty answer. Default all. */
  allow?: readonly string[] | undefined;
  /**
   * Samples `beams` items without replacement instead of searching for the best, and returns the
   * first `top` of them in the order in which they were drawn. 1 follows the model, above 1 is more
   * diverse. One number, or one a level of the semantic ID; above 0.
   */
  temperature?: number | readonly number[] | undefined;
  /**
   * With `temperature`: the same seed gives the same sample on the same engine. 0 to
   * {@link MAX_SEED}; drawn anew for each call by default.
   */
  seed?: number | undefined;
  /**
   * Takes the place of earlier calls of the same method with `latest` that are not answered yet:
   * they reject with code `superseded` (`recommend` and `report` are the same in this). For pages
   * that recommend while the visitor clicks; where several parts of a page share a recommender, each
   * uses a `signal` of its own instead.
   */
  latest?: boolean | undefined;
  /** Aborts the call: it rejects with the signal's reason, an `AbortError` by default. */
  signal?: AbortSignal | undefined;
}

// What a caller may name: the types are not there to be asked.

const LOAD_OPTIONS = {
  backend: true,
  gpu: true,
  cache: true,
  integrity: true,
  userId: true,
  historyName: true,
  onProgress: true,
  signal: true,
  worker: true,
} satisfies Record<keyof LoadOptions, true>;

const GPU_OPTIONS = {
  halves: true,
  packedProducts: true,
  subgroups: true,
} satisfies Record<keyof GpuOptions, true>;

const RECOMMEND_OPTIONS = {
  history: true,
  user: true,
  userToken: true,
  top: true,
  beams: true,
  exclude: true,
  allow: true,
  temperature: true,
  seed: true,
  latest: true,
  signal: true,
} satisfies Record<keyof RecommendOptions, true>;

const NEW_ITEM = { id: true, embedding: true } satisfies Record<keyof NewItem, true>;

function bad(message: string): never {
  throw new TigretError("bad-request", message);
}

function noUnknown(name: string, given: unknown, known: object): void {
  if (typeof given !== "object" || given === null || Array.isArray(given)) {
    bad(`${name}: the options are ${shown(given)}, not an object`);
  }
  for (const key of Object.keys(given)) {
    if (!Object.hasOwn(known, key)) {
      const all = Object.keys(known).join(", ");
      bad(`${name}: there is no option ${shown(key)}; the options are ${all}`);
    }
  }
}

function integer(name: string, value: unknown, least: number, most: number, why = ""): number {
  if (!Number.isInteger(value) || (value as number) < least || (value as number) > most) {
    bad(`${name} is ${shown(value)}, not a whole number from ${least} to ${most}${why}`);
  }
  return value as number;
}

function ids(name: string, value: unknown, or = ""): string[] {
  if (!Array.isArray(value)) bad(`${name} is ${shown(value)}, not ${or}an array of item ids`);
  checkIds(name, value);
  return [...value];
}

function temperatures(value: number | readonly number[], levels?: number): number[] {
  const all = Array.isArray(value) ? [...value] : [value];
  if (all.length === 0) bad("temperature is an empty array: give one value, or one a level");
  if (levels !== undefined && all.length !== 1 && all.length !== levels) {
    const has = `temperature has ${all.length} values, the model has ${levels} levels`;
    bad(`${has}: give one value, or one a level`);
  }
  for (const one of all) {
    // The engines compute in 32 bits.
    const narrow = typeof one === "number" ? Math.fround(one) : Number.NaN;
    if (!Number.isFinite(narrow) || narrow <= 0) {
      bad(`temperature is ${shown(one)}, not a finite number above 0`);
    }
  }
  return all;
}

function randomSeed(): number {
  const [high = 0, low = 0] = crypto.getRandomValues(new Uint32Array(2));
  return (high >>> 11) * 2 ** 32 + low;
}

function flag(name: string, value: unknown): void {
  if (value !== undefined && typeof value !== "boolean") {
    bad(`${name} is ${shown(value)}, not true or false`);
  }
}

/** Signals of other realms are signals, too: frames, and the test environments that are made of them. */
function checkSignal(signal: unknown): void {
  const given = (signal ?? {}) as Partial<AbortSignal>;
  const methods = [given.throwIfAborted, given.addEventListener, given.removeEventListener];
  const isSignal =
    typeof given.aborted === "boolean" && methods.every((method) => typeof method === "function");
  if (signal !== undefined && !isSignal) {
    bad(`signal is ${shown(signal)}, not an AbortSignal; pass \`controller.signal\``);
  }
}

/** Checks what `load` and `use` are told to compute on. */
export function checkBackend(backend: unknown): void {
  if (backend !== "auto" && backend !== "webgpu" && backend !== "cpu") {
    bad(`backend is ${shown(backend)}, not "auto", "webgpu" or "cpu"`);
  }
}

/** Checks the options of `load`. */
export function checkLoadOptions(options: LoadOptions): void {
  noUnknown("load", options, LOAD_OPTIONS);
  const { backend = "auto", cache, integrity, userId, historyName, onProgress, worker } = options;
  const { signal, gpu = {} } = options;
  flag("cache", cache);
  noUnknown("load: gpu", gpu, GPU_OPTIONS);
  for (const [name, value] of Object.entries(gpu)) flag(`gpu.${name}`, value);
  if (integrity !== undefined) parseIntegrity(integrity);
  for (const [name, value] of Object.entries({ userId, historyName })) {
    if (value !== undefined && (typeof value !== "string" || value === "")) {
      bad(`${name} is ${shown(value)}, not a string of at least one character`);
    }
  }
  if (userId !== undefined) checkText("userId", userId);
  checkSignal(signal);
  checkBackend(backend);
  for (const [name, value] of Object.entries({ onProgress, worker })) {
    if (value !== undefined && typeof value !== "function") {
      bad(`${name} is ${shown(value)}, not a function`);
    }
  }
}

/** Room for embeddings. */
function room(items: number, width: number): Float32Array<ArrayBuffer> {
  try {
    return new Float32Array(items * width);
  } catch {
    return bad(`${items} items are more than there is memory for: add them in parts`);
  }
}

/** Checks the items of `addItems` and puts their embeddings one after the other. */
export function toAddRequest(items: readonly NewItem[], width: number): AddRequest {
  if (!Array.isArray(items)) bad(`the items are ${shown(items)}, not an array`);
  const embeddings = room(items.length, width);
  // A hole is no item either.
  const ids = Array.from(items, (item: NewItem, at) => {
    noUnknown(`items[${at}]`, item, NEW_ITEM);
    const { id, embedding = [] } = item;
    checkId(`items[${at}].id`, id);
    // Strings have a length, too.
    const found = typeof embedding === "object" ? embedding?.length : undefined;
    if (found !== width) {
      const what = typeof found === "number" ? `has ${found} numbers` : `is ${shown(embedding)}`;
      bad(`the embedding of item ${shown(id)} ${what}; this model needs ${width} numbers`);
    }
    for (let i = 0; i < width; i++) {
      const value = embedding[i];
      // One that is no number is not below anything.
      if (typeof value !== "number" || !(Math.abs(value) <= LARGEST)) {
        const where = `number ${i} of the embedding of item ${shown(id)}`;
        bad(`${where} is ${shown(value)}, not a number from -1e15 to 1e15`);
      }
      embeddings[at * width + i] = value;
    }
    return id;
  });
  return { ids, embeddings, width };
}

/** Whether options say more than when a call is not wanted any more. */
export function asksSomething(options: RecommendOptions = {}): boolean {
  const { signal, latest, ...rest } = options;
  return Object.values(rest).some((value) => value !== undefined);
}

/**
 * Checks the options of a call and puts them into the engine's words. Where they do not say, the
 * history is empty and the user is the one given. What a call asks for must suit the model; `method`
 * is what the caller has called.
 */
export function toRequest(
  options: RecommendOptions,
  userId?: string,
  model?: Pick<ModelInfo, "users" | "levels">,
  method = "recommend",
): EngineRequest {
  noUnknown(method, options, RECOMMEND_OPTIONS);
  const { history = [], userToken, exclude = [], allow, temperature, seed, signal } = options;
  // A call without any user, for a recommender that has one, says `user: null`.
  const user = options.user === undefined && userToken === undefined ? userId : options.user;
  checkSignal(signal);
  flag("latest", options.latest);
  const beams = integer("beams", options.beams ?? 50, 1, MAX_BEAMS);
  // A caller who asks for a narrow search and no number of items gets what the search can give.
  const top = integer(
    "top",
    options.top ?? Math.min(20, beams),
    1,
    beams,
    " (a search returns at most one item a beam: raise `beams`)",
  );
  const request: EngineRequest = {
    history: ids("history", history),
    top,
    beams,
    exclude: exclude === "history" ? [] : ids("exclude", exclude, '"history" or '),
    exclude_history: exclude === "history",
  };
  if (user !== undefined && user !== null) {
    if (typeof user !== "string") bad(`user is ${shown(user)}, not a string`);
    if (user === "") bad("user is an empty string; leave it out, or give null");
    checkText("user", user);
    if (userToken !== undefined) bad("give user or userToken, not both");
    request.user = user;
  }
  if (userToken !== undefined) {
    if (model?.users === 0) bad("userToken is given, but the model has no user tokens");
    request.user_token = integer("userToken", userToken, 0, (model?.users ?? 2 ** 32) - 1);
  }
  if (allow !== undefined) request.allow = ids("allow", allow);
  if (temperature !== undefined) {
    request.temperature = temperatures(temperature, model?.levels.length);
    request.seed = seed === undefined ? randomSeed() : integer("seed", seed, 0, MAX_SEED);
  } else if (seed !== undefined) {
    bad("seed is given, but no temperature: only a sample has a seed");
  }
  return request;
}
