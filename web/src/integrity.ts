/** Whether a file is the one that was meant: SHA-256, as subresource integrity writes it. */

import { brief, shown, TigretError } from "./errors.js";

/** A hash in lower-case hexadecimal digits. */
export type Sha256 = string;

const HEX = /^[0-9a-f]{64}$/i;

/**
 * Reads `sha256-BASE64`, as `integrity` attributes have it, or 64 hexadecimal digits.
 *
 * Throws with code `bad-request`.
 */
export function parseIntegrity(text: unknown): Sha256 {
  const bad = (): never => {
    throw new TigretError(
      "bad-request",
      `integrity is ${shown(text)}, not "sha256-" with 44 characters of base64, nor 64 hexadecimal digits`,
    );
  };
  if (typeof text !== "string") return bad();
  if (HEX.test(text)) return text.toLowerCase();
  const [, base64] = /^sha256-([A-Za-z0-9+/]{43}=)$/.exec(text) ?? [];
  if (base64 === undefined) return bad();
  return hex(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)));
}

/** The hash of bytes, or `null` where the platform has none: pages without HTTPS. */
export async function sha256Of(bytes: Uint8Array<ArrayBuffer>): Promise<Sha256 | null> {
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) return null;
  return hex(new Uint8Array(await subtle.digest("SHA-256", bytes)));
}

/** Rejects with code `integrity` unless `found` is the hash that is wanted. */
export function checkIntegrity(wanted: Sha256, found: Sha256 | null, from: string): void {
  if (found === wanted) return;
  const what =
    found === null
      ? "its integrity cannot be checked here: a page needs HTTPS (or localhost) for that"
      : `its SHA-256 is ${found}, not ${wanted}: it is another file than the one that was meant, or was changed on the way`;
  throw new TigretError("integrity", `${brief(from)}: ${what}`);
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
