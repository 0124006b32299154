export type { Progress, Source } from "./download.js";
export { TigretError, type TigretErrorCode } from "./errors.js";
export type { Backend, LoadOptions, RecommendOptions } from "./options.js";
export { MAX_BEAMS, MAX_SEED } from "./options.js";
export type { Added, Engine, ModelInfo, NewItem, Pick } from "./protocol.js";
export { Recommender, type Report } from "./recommender.js";
