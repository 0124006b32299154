/** Bytes from a server: with progress, and again where a connection breaks off. */

import { onAbort } from "./abort.js";
import { brief, TigretError } from "./errors.js";
import { within } from "./timeouts.js";

/** How far a download is. */
export interface Progress {
  /** Bytes that were read, unpacked. It falls where a download has to begin again. */
  loaded: number;
  /**
   * `null` if the server sends no length, compresses the answer, or sends more than it announced. A
   * server of another origin may hide that it compresses; then this is the compressed length at first.
   */
  total: number | null;
}

/** What a download is told. */
export interface DownloadOptions {
  onProgress?: ((progress: Progress) => void) | undefined;
  signal?: AbortSignal | undefined;
  headers?: Record<string, string>;
  /** Past the browser's cache, which may hold a file that was changed on the way. */
  fresh?: boolean;
  /**
   * Where something else serves if this fails: milliseconds that the first answer may take to begin,
   * that it may stall, and that what broke off may take to go on. It then waits for no device that is
   * offline.
   */
  patience?: number;
}

/** What came. */
interface Downloaded {
  bytes: Uint8Array<ArrayBuffer>;
  /**
   * The server's name of the version, if it gave one, and is of the page's own origin: an address may
   * lead to another one, which can refuse to be asked about it.
   */
  etag: string | null;
}

/** Milliseconds without a byte after which a connection counts as broken. */
const STALL = 30_000;
/** Milliseconds before the first attempt to go on; each later one waits twice as long. */
const PAUSE = 500;
/** Attempts in a row that bring nothing new. */
const ATTEMPTS = 4;
/** All attempts: a connection that brings little each time ends, too. */
const ALL_ATTEMPTS = 24;
/** The longest pause that a server may ask for, in milliseconds. */
const LONGEST_PAUSE = 30_000;
/** Milliseconds that an attempt waits for a device that says it is offline. */
const OFFLINE = 60_000;

/** The header that names the version which is at hand. */
export const CONDITION = "if-none-match";
/** The server says that the version named in `If-None-Match` is the current one. */
export const UNCHANGED = Symbol("unchanged");

/**
 * Downloads a file. A connection that breaks off or stalls is taken up again where it was, if the
 * server has ranges and says that the file is still the same one, and else from the start.
 *
 * Rejects with code `download`, or with the signal's reason.
 */
export async function download(
  url: string,
  options: DownloadOptions = {},
): Promise<Downloaded | typeof UNCHANGED> {
  const { signal, patience = Number.POSITIVE_INFINITY } = options;
  const headers = { ...options.headers };
  const asked = { ...options, headers };
  const received = new Received();
  let version: Version | null = null;
  /** The most bytes that any attempt has come to, and how many came to no more since. */
  let [most, fruitless] = [0, 0];
  /** Until when an attempt has to bring something. */
  let until = performance.now() + patience;
  for (let attempt = 1; ; attempt++) {
    try {
      const from = version?.resumable ? received.length : 0;
      const left = until - performance.now();
      const response = await request(url, asked, from, left, most > 0);
      if (response.status === 304) return UNCHANGED;
      const next = versionOf(response);
      if (!goesOn(response, from) || next.name !== version?.name) {
        received.length = 0;
        version = null;
        // 206 is a part of another version, 416 says that it is shorter by now.
        if (response.status !== 200) {
          void response.body?.cancel().catch(() => {});
          throw new Broken("the file changed on the server");
        }
      }
      version = next;
      await read(response, received, asked);
      const etag = response.type === "cors" ? null : response.headers.get("etag");
      return { bytes: received.bytes(), etag };
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof Broken)) throw error;
      const now = performance.now();
      if (received.length > most) {
        most = received.length;
        fruitless = 0;
        until = now + (patience - error.silence);
      } else {
        fruitless++;
      }
      const isOver = fruitless === ATTEMPTS || attempt === ALL_ATTEMPTS || now >= until;
      if (!isOver && error.unanswered && most === 0 && CONDITION in headers) {
        // It may be that another origin, to which the address leads by now, refuses the header.
        delete headers[CONDITION];
        continue;
      }
      if (isOver || (error.unanswered && most === 0)) throw told(url, received, error);
      const wait = Math.max(PAUSE * 2 ** Math.max(fruitless - 1, 0), error.pause);
      await sleep(Math.min(wait, until - now), signal);
      if (patience === Number.POSITIVE_INFINITY) await online(signal);
    }
  }
}

/**
 * The bytes of a response that somebody else has asked for: there is no second attempt.
 *
 * Rejects with code `bad-request` for one that was read already or that nobody may read, `download`,
 * or the signal's reason.
 */
export async function bytesOfResponse(
  response: Response,
  options: DownloadOptions = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const received = new Received();
  const isOpaque = response.type === "opaque";
  if (isOpaque || response.bodyUsed || response.body?.locked) {
    const message = isOpaque
      ? "the response is opaque: fetch it with CORS"
      : "the response was read already; give a new one, or a `response.clone()` made earlier";
    throw new TigretError("bad-request", message);
  }
  try {
    check(response, response.url || "the response");
    await read(response, received, options);
  } catch (error) {
    options.signal?.throwIfAborted();
    if (!(error instanceof Broken)) throw error;
    throw told(response.url || "the response", received, error);
  }
  return received.bytes();
}

/** A connection failed; another attempt may succeed. */
class Broken extends Error {
  /** No server answered: the address or the network may be wrong, rather than the connection. */
  readonly unanswered: boolean;
  /** Milliseconds that the server asks to be left alone. */
  readonly pause: number;
  /** Milliseconds without a byte after which it was noticed. */
  readonly silence: number;

  constructor(
    why: string,
    options: ErrorOptions & { unanswered?: boolean; pause?: number; silence?: number } = {},
  ) {
    super(why, options);
    const { unanswered = false, pause = 0, silence = 0 } = options;
    this.unanswered = unanswered;
    this.pause = pause;
    this.silence = silence;
  }
}

function told(url: string, received: Received, error: Broken): TigretError {
  const from = brief(url);
  const message =
    received.length === 0
      ? `${from} could not be fetched (${error.message}): check the address, the network, connect-src in the content security policy and, for another origin, its CORS headers`
      : `${from}: the download broke off after ${received.length} bytes (${error.message}); try again`;
  return new TigretError("download", message, { cause: error.cause ?? error });
}

interface Version {
  /** A strong name: bytes of two answers with the same one belong together. */
  name: string | null;
  resumable: boolean;
}

function versionOf(response: Response): Version {
  const etag = response.headers.get("etag");
  const strong = etag !== null && !etag.startsWith("W/") ? etag : null;
  const name = strong ?? response.headers.get("last-modified");
  // Ranges count bytes as they are sent.
  return { name, resumable: name !== null && isPlain(response) };
}

/**
 * Whether the bytes that are read are surely those that were sent, not those of a compressed answer:
 * another origin hides what it is, unless it exposes the header.
 */
function isPlain(response: Response): boolean {
  const encoding = response.headers.get("content-encoding");
  return encoding === null ? response.type !== "cors" : encoding === "identity";
}

/** Whether an answer is the part that was asked for. */
function goesOn(response: Response, from: number): boolean {
  const range = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "");
  // Another origin may hide the header; the status then has to do.
  return from > 0 && response.status === 206 && (range === null || Number(range[1]) === from);
}

/**
 * Asks for a file from a byte on; the answer has to begin within `left` milliseconds. `later` is
 * whether something came before: a server that is busy now is then worth waiting for.
 */
async function request(
  url: string,
  options: DownloadOptions,
  from: number,
  left: number,
  later: boolean,
): Promise<Response> {
  const headers = { ...options.headers };
  if (from > 0) headers.range = `bytes=${from}-`;
  const late = new AbortController();
  const off = onAbort(options.signal, () => late.abort());
  let response: Response;
  try {
    const { signal } = late;
    const cache = from > 0 ? "no-store" : options.fresh ? "reload" : "no-cache";
    response = await inTime(
      Math.ceil(Math.min(stallOf(options), left)),
      fetch(url, { headers, cache, signal }),
    );
  } catch (cause) {
    late.abort();
    throw new Broken((cause as Error).message, { cause, unanswered: true });
  } finally {
    off();
  }
  try {
    check(response, url, CONDITION in headers, from > 0);
  } catch (error) {
    // Nobody reads the rest, and the browser would let the next request of the address wait for it.
    late.abort();
    if (!later || !(error instanceof Refused) || !isPassing(error.status)) throw error;
    const pause = Math.min(retryAfter(response), LONGEST_PAUSE);
    throw new Broken(`the server answered with status ${error.status}`, { cause: error, pause });
  }
  return response;
}

/** Milliseconds without a byte after which another attempt, or what else serves, is better. */
function stallOf({ patience = STALL }: DownloadOptions): number {
  return Math.min(STALL, patience);
}

/** Whether a status says that the server may answer another time. */
function isPassing(status: number): boolean {
  return status === 408 || status === 429 || status >= 500;
}

/** The pause that a server asks for, in milliseconds; 0 where it asks for none. */
function retryAfter(response: Response): number {
  const text = response.headers.get("retry-after") ?? "";
  const seconds = /^\d+$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return seconds > 0 ? 1000 * seconds : 0;
}

/** The server answered, and what it answered is no file. */
export class Refused extends TigretError {
  readonly status: number;

  constructor(status: number, message: string) {
    super("download", message);
    this.status = status;
  }
}

/**
 * Refuses what is no file: every status but 200, and those that the request asks for. Some servers
 * send 304 to who has nothing that could be unchanged, or a part to who wants the whole.
 */
function check(response: Response, url: string, conditional = false, part = false): void {
  const { status } = response;
  const from = brief(url);
  if ((conditional && status === 304) || (part && status === 416)) return;
  if (status !== 200 && !(part && status === 206)) {
    throw new Refused(status, `${from}: the server answered with status ${status}`);
  }
  if (response.headers.get("content-type")?.toLowerCase().startsWith("text/html")) {
    throw new Refused(
      status,
      `${from}: the server answered with an HTML page instead of a bundle; check the address`,
    );
  }
}

/** Appends what a response has. */
async function read(
  response: Response,
  received: Received,
  options: DownloadOptions,
): Promise<void> {
  const { onProgress, signal } = options;
  const stall = stallOf(options);
  // The length of a compressed response is not the length of what is read from it.
  const isCompressed = response.headers.has("content-encoding") && !isPlain(response);
  const length = isCompressed ? 0 : Number(response.headers.get("content-length"));
  const rest = length > 0 ? received.length + length : null;
  // A part may end before the file does.
  const range = response.status === 206 && response.headers.get("content-range");
  const whole = isPlain(response) && /\/(\d+)$/.exec(range || "")?.[1];
  const total = whole ? Number(whole) : rest;
  if (!response.body) return;
  const reader = response.body.getReader();
  const cancel = () => void reader.cancel(signal?.reason).catch(() => {});
  const off = onAbort(signal, cancel);
  try {
    if (total !== null) received.reserve(total);
    for (;;) {
      const chunk = await inTime(stall, reader.read());
      signal?.throwIfAborted();
      if (chunk.done) break;
      received.append(chunk.value);
      const { length: loaded } = received;
      onProgress?.({ loaded, total: total !== null && total >= loaded ? total : null });
    }
  } catch (cause) {
    cancel();
    if (cause instanceof Broken || cause instanceof TigretError) throw cause;
    throw new Broken((cause as Error).message, { cause });
  } finally {
    off();
  }
  if (total !== null && received.length < total && isPlain(response)) {
    throw new Broken(`it ended before its ${total} bytes`);
  }
}

/** The bytes that have come. */
class Received {
  #bytes = new Uint8Array(0);
  length = 0;

  /** Makes room for as many bytes, or, where the device has less, for `least` of them or more. */
  reserve(length: number, least = length): void {
    if (this.#bytes.length >= length) return;
    try {
      const larger = new Uint8Array(length);
      larger.set(this.#bytes.subarray(0, this.length));
      this.#bytes = larger;
    } catch (cause) {
      if (length > least) {
        this.reserve(Math.floor((length + least) / 2), least);
        return;
      }
      const message = `the file has ${length} bytes, more than this device has room for`;
      throw new TigretError("download", message, { cause });
    }
  }

  append(chunk: Uint8Array): void {
    const end = this.length + chunk.byteLength;
    // Twice as many, so that a file of unknown length is not copied at each of its chunks.
    if (end > this.#bytes.length) this.reserve(Math.max(end, 2 * this.#bytes.length), end);
    this.#bytes.set(chunk, this.length);
    this.length = end;
  }

  bytes(): Uint8Array<ArrayBuffer> {
    return this.length === this.#bytes.length ? this.#bytes : this.#bytes.slice(0, this.length);
  }
}

/** Rejects where nothing came in time. */
function inTime<T>(milliseconds: number, promise: Promise<T>): Promise<T> {
  const why = `nothing came for ${milliseconds / 1000} seconds`;
  const silence = { silence: milliseconds };
  return within(milliseconds, promise, () => Promise.reject(new Broken(why, silence)));
}

function sleep(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      off();
      resolve();
    }, milliseconds);
    const off = onAbort(signal, () => {
      clearTimeout(timer);
      reject(signal?.reason);
    });
  });
}

/** Waits for a device that says it is offline, for a while: it may be wrong. */
async function online(signal: AbortSignal | undefined): Promise<void> {
  if (globalThis.navigator?.onLine !== false) return;
  const back = new AbortController();
  const wake = () => back.abort();
  const off = onAbort(signal, wake);
  globalThis.addEventListener("online", wake);
  try {
    await sleep(OFFLINE, back.signal);
  } catch {
    signal?.throwIfAborted();
  } finally {
    globalThis.removeEventListener("online", wake);
    off();
  }
}
