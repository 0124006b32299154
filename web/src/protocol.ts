/** What the page and its worker say to each other. */

import type { TigretErrorCode } from "./errors.js";

/** The engine that computes. */
export type Engine = "webgpu" | "cpu";

/**
 * What the kernels of the WebGPU engine may make use of: `false` switches it off, `true` uses it
 * wherever the device has it; by default what suits the device. The answers differ by rounding.
 */
export interface GpuOptions {
  /** Arithmetic in 16-bit floats, for `f16` bundles (`shader-f16`): scores move by up to .02. */
  halves?: boolean | undefined;
  /** Packed dot products of bytes, for `q8` and `q4` bundles. */
  packedProducts?: boolean | undefined;
  /** Sums and maxima by subgroups, and on software adapters wider tiles. */
  subgroups?: boolean | undefined;
}

/** One recommended item. */
export interface Pick {
  /** The item's id. */
  id: string;
  /**
   * Sum of the model's natural log-probabilities of its semantic ID; higher is better, never above
   * 0. The picks of a sample are not in its order.
   */
  score: number;
  /** Its semantic ID, coarse to fine. */
  codes: number[];
}

/** An item to add. */
export interface NewItem {
  /** The item's id; none that the catalogue has. */
  id: string;
  /**
   * Its content vector, by the encoder that made those of the catalogue: `info.embedding` numbers
   * from -1e15 to 1e15. Not needed where that is 0.
   */
  embedding?: ArrayLike<number> | undefined;
}

/** A new item's semantic ID. */
export interface Added {
  id: string;
  /** Its semantic ID, coarse to fine. */
  codes: number[];
}

/** Why an item has the score that it has. */
export interface Explanation {
  id: string;
  /** Its semantic ID, coarse to fine. */
  codes: number[];
  /** The model's log-probability (natural) of each code, given those before it: one a level. */
  logProbs: number[];
  /** Their sum. */
  score: number;
  /** The items of the history that the model read, oldest first. */
  history: Influence[];
}

/** What one item of a history did for the score of another. */
export interface Influence {
  id: string;
  /** Its semantic ID, coarse to fine. */
  codes: number[];
  /** Leading codes that both semantic IDs share. */
  shared: number;
  /** The score less the score without this item: above 0 where it speaks for the other. */
  influence: number;
}

/** A prefix of semantic IDs that a search kept. */
export interface Prefix {
  /** As many as the level is deep. */
  codes: number[];
  /** Sum of the model's log-probabilities of them. */
  score: number;
  /** Items of the catalogue under it. */
  items: number;
}

/** All items, in ascending order of semantic ID. */
export interface Catalogue {
  ids: string[];
  /** Row-major `[ids.length, info.levels.length]`. */
  codes: Uint16Array;
}

/** Sizes of a model and its catalogue. It is frozen, and another object once items were added. */
export interface ModelInfo {
  /** Changes when any byte of the bundle does. */
  readonly fingerprint: string;
  /** Version of the inference engine. */
  readonly version: string;
  /** Items in the catalogue. */
  readonly items: number;
  /** Codes of each level of a semantic ID. */
  readonly levels: readonly number[];
  /** User tokens; 0 if the model has none. */
  readonly users: number;
  /** A longer history keeps its last `maxItems` items. */
  readonly maxItems: number;
  /**
   * Numbers of a new item's embedding; 0 where its codes are drawn from its id; `null` where the
   * bundle holds no tokenizer, so that no item can be added.
   */
  readonly embedding: number | null;
  /** How the matrices are stored. */
  readonly weightFormat: "f32" | "f16" | "q8" | "q4";
  readonly parameters: number;
  readonly vocabSize: number;
  readonly dModel: number;
  readonly dKv: number;
  readonly dFf: number;
  readonly heads: number;
  readonly encoderLayers: number;
  readonly decoderLayers: number;
  /** Whether the output head is the embedding. */
  readonly tied: boolean;
}

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
  add: { arguments: AddRequest; result: { added: Added[]; items: number } };
  recommend: { arguments: { request: EngineRequest }; result: Answer };
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
