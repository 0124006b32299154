export type { Progress } from "./download.js";
export type { RecommenderEvents } from "./engine-host.js";
export { TigretError, type TigretErrorCode } from "./errors.js";
export { forget } from "./forget.js";
export { type HistoryEntry, HistoryStore } from "./history.js";
export type { Backend, LoadOptions, RecommendOptions } from "./options.js";
export { MAX_BEAMS, MAX_SEED } from "./options.js";
export { Recommender, type Report } from "./recommender.js";
export type { WorkerLike } from "./remote.js";
export type { Source } from "./source.js";
export type {
  Added,
  Catalogue,
  Engine,
  Explanation,
  GpuOptions,
  Influence,
  ModelInfo,
  NewItem,
  Pick,
  Prefix,
} from "./types.js";
