/** Item ids of a caller, and other texts that reach the engine: what it could not take is refused. */

import { shown, TigretError } from "./errors.js";

/** Half of a surrogate pair would become another character in the engine. */
const HALF = /\p{Surrogate}/u;

/** Throws with code `bad-request` for a text that is none; `name` is what holds it. */
export function checkText(name: string, text: string): void {
  if (!HALF.test(text)) return;
  throw new TigretError("bad-request", `${name} holds half a character: ${shown(text)}`);
}

/** Throws with code `bad-request` for what is no string. */
export function checkString(name: string, id: unknown): asserts id is string {
  if (typeof id === "string") return;
  const message = `${name} is ${shown(id)}, not a string; item ids are strings`;
  throw new TigretError("bad-request", message);
}

/** Whether something can be an item's id. */
export function isId(id: unknown): id is string {
  return typeof id === "string" && !HALF.test(id);
}

/** Throws with code `bad-request` for what can be no item's id. */
export function checkId(name: string, id: unknown): asserts id is string {
  checkString(name, id);
  checkText(name, id);
}

/** As {@link checkId}, each of a list, which may be a long one. */
export function checkIds(name: string, ids: readonly unknown[]): asserts ids is string[] {
  const wrong = ids.findIndex((id) => !isId(id));
  if (wrong >= 0) checkId(`${name}[${wrong}]`, ids[wrong]);
}
