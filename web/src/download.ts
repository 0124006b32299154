/** Getting the bytes of a bundle, with progress. */

import { TigretError } from "./errors.js";

/** How far a download is, in bytes. `total` is `null` where the server does not say. */
export interface Progress {
  loaded: number;
  total: number | null;
}

/** Where a bundle comes from. */
export type Source = string | URL | Response | Blob | ArrayBuffer | Uint8Array;

/**
 * The bytes of `source`, in memory that nobody else holds.
 *
 * Rejects with code `download`, or with the signal's reason.
 */
export async function bytesOf(
  source: Source,
  onProgress?: (progress: Progress) => void,
  signal?: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> {
  signal?.throwIfAborted();
  if (source instanceof ArrayBuffer) return new Uint8Array(source.slice());
  if (source instanceof Uint8Array) return new Uint8Array(source);
  if (source instanceof Blob) return new Uint8Array(await source.arrayBuffer());
  const response = source instanceof Response ? source : await request(source, signal);
  return read(response, onProgress, signal);
}

async function request(url: string | URL, signal?: AbortSignal): Promise<Response> {
  try {
    return await fetch(url, { ...(signal && { signal }) });
  } catch (cause) {
    signal?.throwIfAborted();
    throw new TigretError(
      "download",
      `${url} could not be fetched (${(cause as Error).message}): check the address, the network and, for another origin, its CORS headers`,
      { cause },
    );
  }
}

async function read(
  response: Response,
  onProgress?: (progress: Progress) => void,
  signal?: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> {
  const from = response.url || "the response";
  if (!response.ok) {
    throw new TigretError(
      "download",
      `${from}: the server answered with status ${response.status}`,
    );
  }
  if (response.headers.get("content-type")?.startsWith("text/html")) {
    throw new TigretError(
      "download",
      `${from}: the server answered with an HTML page instead of a bundle; check the address`,
    );
  }
  if (!response.body) return new Uint8Array(await response.arrayBuffer());
  // The length of a compressed response is not the length of what is read from it.
  const length = response.headers.has("content-encoding")
    ? 0
    : Number(response.headers.get("content-length"));
  const chunks: Uint8Array[] = [];
  let loaded = 0;
  const reader = response.body.getReader();
  const cancel = () => void reader.cancel(signal?.reason).catch(() => {});
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    for (;;) {
      const { done, value } = await reader.read();
      signal?.throwIfAborted();
      if (done) break;
      chunks.push(value);
      loaded += value.byteLength;
      onProgress?.({ loaded, total: length >= loaded ? length : null });
    }
  } catch (cause) {
    signal?.throwIfAborted();
    const why = (cause as Error).message;
    throw new TigretError(
      "download",
      `${from}: the download broke off after ${loaded} bytes (${why}); try again`,
      { cause },
    );
  } finally {
    signal?.removeEventListener("abort", cancel);
  }
  const bytes = new Uint8Array(loaded);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.byteLength;
  }
  return bytes;
}
