/** What a page gives the recommender and gets from it. */

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
