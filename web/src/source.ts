/** Where a bundle comes from: memory, a response, the device's cache or a server. */

import { untilAborted } from "./abort.js";
import { drop, type Kept, keep, kept } from "./cache.js";
import {
  bytesOfResponse,
  CONDITION,
  download,
  type Progress,
  Refused,
  UNCHANGED,
} from "./download.js";
import { erasuresSoFar, isForgotten } from "./erasure.js";
import { shown, TigretError } from "./errors.js";
import { checkIntegrity, parseIntegrity, type Sha256, sha256Of } from "./integrity.js";
import { platform } from "./platform.js";

/** Where a bundle comes from. */
export type Source = string | URL | Response | Blob | ArrayBuffer | Uint8Array;

interface SourceOptions {
  onProgress?: ((progress: Progress) => void) | undefined;
  signal?: AbortSignal | undefined;
  /** Whether bundles of addresses (`http:`, `https:`) are kept on the device; default true. */
  cache?: boolean | undefined;
  /** The SHA-256 that the bytes must have. */
  integrity?: string | undefined;
}

/** A load of an address under way. */
interface Loading extends SourceOptions {
  url: string;
  wanted: Sha256 | null;
  /** When it began: of what was forgotten since, nothing is kept, however often it is asked for. */
  begun: number;
}

/** A bundle and how it came. */
export interface Bundle {
  /** In memory that nobody else holds. */
  bytes: Uint8Array<ArrayBuffer>;
  /** Bytes that were read of answers for it, unpacked. */
  downloaded: number;
  /** Where it came from, if that has an address. */
  url: string | undefined;
  /** Begins to keep it on the device, where it is to be kept: for when an engine has taken it. */
  keep(bundle: Blob): void;
  /**
   * For when no engine takes it: fetches it once more, past every cache, and then gives the copy that
   * is kept. `null` where there is nothing left to try.
   */
  again(): Promise<Bundle | null>;
}

/** Milliseconds that a server may take to answer, or to go on, before a copy serves in its place. */
const PATIENCE = 4000;

const nothing = () => {};
const nowhere = async () => null;

/**
 * The bytes of `source`.
 *
 * Of an address with `integrity`, a kept copy with that hash is taken without asking the server.
 * Without it the server is asked whether the copy is the current version; where it cannot be
 * reached, does not answer or go on within 4 seconds, stalls for as long, or fails, the copy serves;
 * {@link Bundle.again} gives it where what the server sends is no bundle.
 *
 * Rejects with code `bad-request`, `download` or `integrity`, or with the signal's reason.
 */
export async function bundleOf(source: Source, given: SourceOptions = {}): Promise<Bundle> {
  const begun = erasuresSoFar();
  const { signal, integrity } = given;
  const wanted = integrity === undefined ? null : parseIntegrity(integrity);
  signal?.throwIfAborted();
  const own = await ownBytes(source, given);
  if (own) {
    if (wanted) checkIntegrity(wanted, await sha256Of(own), "the bundle");
    const { url } = source as Partial<Response>;
    const downloaded = isA<Response>(source, "Response") ? own.byteLength : 0;
    return { bytes: own, url, downloaded, keep: nothing, again: nowhere };
  }
  const url = address(source as string | URL);
  const loading = { ...given, url, wanted, begun };
  const copy = isKept(loading) ? await untilAborted(signal, kept(url)) : null;
  if (copy && wanted === copy.sha256) {
    const found = await fromCopy(loading, copy);
    if (found) return found;
  }
  return fromServer(loading, copy);
}

async function fromServer(
  loading: Loading,
  copy: Kept | null = null,
  fresh = false,
): Promise<Bundle> {
  const { url, wanted, begun, onProgress, signal } = loading;
  /** The file of the last visit, for a server that sends something else by now. */
  const older = async () => {
    const last = isKept(loading) && !wanted ? await kept(url) : null;
    const found = last && (await fromCopy(loading, last));
    // What the server sends was refused before it.
    const again = async () => {
      drop(url);
      return null;
    };
    return found && { ...found, again };
  };
  const again = () =>
    fromServer(loading, null, true).catch(async (error) => {
      const found = mayServe(error) && (await older());
      if (found) return found;
      throw error;
    });
  // A copy of another version than the one that is wanted is of no use.
  const usable = copy && wanted === null ? copy : null;
  // Another origin would be asked first whether it takes the header, and often refuses.
  const headers = usable?.etag && isOwn(url) ? { [CONDITION]: usable.etag } : {};
  let answer: Awaited<ReturnType<typeof download>>;
  try {
    const patience = usable ? { patience: PATIENCE } : {};
    answer = await download(url, { onProgress, signal, headers, fresh, ...patience });
  } catch (error) {
    signal?.throwIfAborted();
    if (!usable || !mayServe(error)) throw error;
    const found = await fromCopy(loading, usable);
    // A copy that is damaged, and gone by now, has cost the server its time to answer.
    return found ?? fromServer(loading);
  }
  if (answer === UNCHANGED) {
    const found = usable && (await fromCopy(loading, usable));
    if (found) return found;
    // The copy is damaged, and gone by now: ask again, without it.
    return fromServer(loading);
  }
  copy?.release();
  const { bytes, etag } = answer;
  const cache = isKept(loading);
  // Another thread computes it while the engine takes the bytes, if nobody has to wait for it.
  const hash = wanted || cache ? sha256Of(bytes).catch(() => null) : null;
  if (wanted) {
    const sha256 = await hash;
    // The browser's own cache may have given a file that was changed on the way, once.
    if (!fresh && sha256 !== null && sha256 !== wanted) return again();
    checkIntegrity(wanted, sha256, url);
  }
  signal?.throwIfAborted();
  return {
    bytes,
    url,
    downloaded: bytes.byteLength,
    keep: (bundle) => {
      if (cache && hash && !isForgotten(begun)) keep(url, bundle, hash, etag);
    },
    again: fresh ? older : again,
  };
}

/** Whether a value is of a built-in class, of this realm or another: a frame's, a test environment's. */
function isA<T>(value: unknown, ...names: string[]): value is T {
  return names.some((name) => Object.prototype.toString.call(value) === `[object ${name}]`);
}

/** Bytes of what is no address, or of what the platform reads by itself. */
async function ownBytes(
  source: Source,
  { onProgress, signal }: SourceOptions,
): Promise<Uint8Array<ArrayBuffer> | null> {
  if (isA<Response>(source, "Response")) return bytesOfResponse(source, { onProgress, signal });
  const isBlob = isA<Blob>(source, "Blob", "File");
  try {
    if (isA<ArrayBuffer>(source, "ArrayBuffer")) return new Uint8Array(source.slice());
    if (isA<Uint8Array>(source, "Uint8Array")) return new Uint8Array(source);
    if (isBlob) return new Uint8Array(await source.arrayBuffer());
  } catch (cause) {
    // A file that was changed or removed since it was chosen, or a buffer that was transferred.
    const code = isBlob ? "download" : "bad-request";
    const message = `the bundle could not be read (${(cause as Error).message})`;
    throw new TigretError(code, message, { cause });
  }
  if (typeof source !== "string" && !isA<URL>(source, "URL")) {
    const message = `the source is ${shown(source)}, no address, response, blob or bytes`;
    throw new TigretError("bad-request", message);
  }
  return (await platform.readFile?.(source)) ?? null;
}

function address(source: string | URL): string {
  try {
    // As `fetch` reads it: a page's <base> counts, and a fragment does not.
    const url = new URL(source, globalThis.document?.baseURI ?? globalThis.location?.href);
    url.hash = "";
    return url.href;
  } catch (cause) {
    const message = `${shown(String(source))} is no address: give a URL, or the bytes of a bundle`;
    throw new TigretError("bad-request", message, { cause });
  }
}

async function fromCopy(loading: Loading, copy: Kept): Promise<Bundle | null> {
  const { url, onProgress, signal } = loading;
  const bytes = await copy.bytes();
  // Who has left hears of no progress.
  signal?.throwIfAborted();
  if (!bytes) {
    // Damaged, or another file put in its place.
    drop(url);
    return null;
  }
  onProgress?.({ loaded: bytes.byteLength, total: bytes.byteLength });
  const again = () => {
    drop(url);
    return fromServer(loading, null, true);
  };
  return { bytes, url, downloaded: 0, keep: nothing, again };
}

/** Whether bundles of an address are kept: those of `blob:` and `data:` are on the device anyway. */
function isKept({ url, cache = true }: Loading): boolean {
  return cache && /^https?:/.test(url);
}

/** Whether an address is of the page's own origin, which the page's own address may not tell. */
function isOwn(url: string): boolean {
  return new URL(url).origin === globalThis.origin;
}

/** Whether a copy may serve for a download that failed: not where the server took the file away. */
function mayServe(error: unknown): boolean {
  const gone = error instanceof Refused && [404, 410].includes(error.status);
  return error instanceof TigretError && error.code === "download" && !gone;
}
