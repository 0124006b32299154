/** What the page and its worker say to each other. */

import type { TigretErrorCode } from "./errors.js";
import type {
  Added,
  Catalogue,
  Engine,
  Explanation,
  GpuOptions,
  ModelInfo,
  Pick,
  Prefix,
} from "./types.js";

/** A request as the engine reads it. */
export interface EngineRequest {
  history: string[];
  user?: string;
  user_token?: number;
  top: number;
  beams: number;
  exclude: string[];
  exclude_history: boolean;
  allow?: string[];
  temperature?: number[];
  seed?: number;
}

/** New items as the worker gets them: all embeddings one after the other. */
export interface AddRequest {
  ids: string[];
  /** Row-major `[ids.length, width]`. */
  embeddings: Float32Array;
  width: number;
}

export interface Loaded {
  info: ModelInfo;
  engineName: string;
  /** A history to time engines with. */
  sampleHistory: string[];
}

export interface Answer {
  items: Pick[];
  /** Ids of the history that the catalogue does not have. */
  unknown: string[];
  /** Time in the worker, without the way there and back. */
  milliseconds: number;
}

/** The worker's methods: arguments and result. */
export interface Methods {
  /** Says at once that the worker is there. The first time it begins to compile its module. */
  start: { arguments: Record<never, never>; result: null };
  /** Takes a lock, until `rest` or the worker's end; `held` is false where there are no locks. */
  hold: { arguments: { lock: string }; result: { held: boolean } };
  /** Gives the lock back. */
  rest: { arguments: Record<never, never>; result: null };
  /**
   * Refuses an engine that this device does not have, before there is a bundle. A module that cannot
   * be had is a crash.
   */
  require: { arguments: { engine: Engine }; result: null };
  load: {
    arguments: { bytes: Uint8Array<ArrayBuffer>; engine: Engine; gpu: GpuOptions };
    result: Loaded;
  };
  use: { arguments: { engine: Engine; gpu: GpuOptions }; result: { engineName: string } };
  /** The WebGPU adapter in words, or `null` where there is none. */
  adapter: { arguments: Record<never, never>; result: string | null };
  add: { arguments: AddRequest; result: Added[] };
  /** By the engine in use, or with `onCpu` by the CPU, beside a GPU that stays. */
  recommend: { arguments: { request: EngineRequest; onCpu?: boolean }; result: Answer };
  explain: { arguments: { request: EngineRequest; item: string }; result: Explanation };
  trace: { arguments: { request: EngineRequest }; result: Prefix[][] };
  catalogue: { arguments: Record<never, never>; result: Catalogue };
}

export type Method = keyof Methods;

export type Call = {
  [M in Method]: { id: number; method: M } & Methods[M]["arguments"];
}[Method];

export type Message =
  | { kind: "result"; id: number; value: Methods[Method]["result"] }
  | { kind: "error"; id: number; code: TigretErrorCode; message: string }
  /** The worker cannot go on; nothing that was asked will be answered. */
  | { kind: "crash"; message: string };
