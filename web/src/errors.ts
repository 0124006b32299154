/**
 * What went wrong, for a program:
 *
 * - `bad-request`: an option is out of range or of the wrong type;
 * - `bad-bundle`: the file is not a bundle, or a damaged one; the message names the field, or says that its weights are too large to compute with;
 * - `no-tokenizer`: items are to be added to a model whose bundle cannot give them semantic IDs;
 * - `download`: the file could not be fetched;
 * - `integrity`: the file is another one than `integrity` asks for, or that cannot be checked;
 * - `no-gpu`: `backend: "webgpu"` where there is no usable WebGPU;
 * - `device-lost`: the GPU failed; of a recommendation, so did everything tried instead;
 * - `crashed`: the worker stopped; of a recommendation, so did the one started in its place;
 * - `superseded`: a newer call of the same method with `latest` took the place of this one;
 * - `storage`: the browser could not read or write the history, or delete what is kept;
 * - `disposed`: the recommender is not there any more.
 */
export type TigretErrorCode =
  | "bad-request"
  | "bad-bundle"
  | "no-tokenizer"
  | "download"
  | "integrity"
  | "no-gpu"
  | "device-lost"
  | "crashed"
  | "superseded"
  | "storage"
  | "disposed";

/**
 * Every error that this package raises, except for the `reason` of an aborted signal.
 *
 * `tigret` and `tigret/inline` each have a class of their own: import all from one of them, or test
 * whether `error.name` is `TigretError`.
 */
export class TigretError extends Error {
  override readonly name = "TigretError";
  readonly code: TigretErrorCode;

  constructor(code: TigretErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** A GPU that does not answer. */
export class Late extends TigretError {
  constructor(milliseconds: number) {
    super("crashed", `the GPU did not answer within ${milliseconds / 1000} seconds`);
  }
}

/** Whether the engine failed, rather than the request: another engine may succeed. */
export function isFailure(error: unknown): error is TigretError {
  return error instanceof TigretError && ["device-lost", "crashed", "no-gpu"].includes(error.code);
}

/** Why the browser failed, as it says. Where storage is full, Chromium gives a name and no words. */
export function reasonOf(error: unknown): string {
  const said = error instanceof Error && (error.message || error.name);
  return said || "the browser does not say why";
}

/** Longest text of a caller, or address, that a message shows whole, in characters. */
const LONGEST = 100;

/** A text as a message has it: a `data:` address holds a whole file. */
export function brief(text: string): string {
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}

/** A value as a message shows it: objects of a caller may not be turned into strings. */
export function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(brief(value));
  if (typeof value === "bigint") return brief(`${value}n`);
  if (typeof value === "function") return "a function";
  if (value === null || typeof value !== "object") return brief(String(value));
  return Array.isArray(value) ? "an array" : "an object";
}
