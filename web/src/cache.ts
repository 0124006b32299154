/** Bundles kept on the device by the Cache API: the newest version of each address. */

import { type Sha256, sha256Of } from "./integrity.js";

/** Name of the cache. */
export const CACHE = "tigret";

const HASH = "x-tigret-sha256";
const ETAG = "etag";

/** A kept bundle. */
export interface Kept {
  /** Its hash when it was kept. */
  sha256: Sha256;
  /** The server's name of the version, if it gave one. */
  etag: string | null;
  /** Its bytes, or `null` where they are not those that were kept. */
  bytes(): Promise<Uint8Array<ArrayBuffer> | null>;
}

/** Where an address is kept: under the page's own origin, which nothing else uses. */
function key(url: string): string {
  return new URL(`/__tigret__/${encodeURIComponent(url)}`, globalThis.location.href).href;
}

/** The cache, or `null` where there is none or it is denied. */
async function open(): Promise<Cache | null> {
  try {
    return (await globalThis.caches?.open(CACHE)) ?? null;
  } catch {
    return null;
  }
}

/** What is being written, by address: a load does not wait for its own. */
const writing = new Map<string, Promise<void>>();

/** Resolves once nothing is being written. */
export async function settled(): Promise<void> {
  while (writing.size > 0) await Promise.all(writing.values());
}

/** What is kept of an address. */
export async function kept(url: string): Promise<Kept | null> {
  await writing.get(url);
  try {
    const response = await (await open())?.match(key(url));
    const sha256 = response?.headers.get(HASH);
    if (!response || !sha256) return null;
    return {
      sha256,
      etag: response.headers.get(ETAG),
      bytes: async () => {
        try {
          const bytes = new Uint8Array(await response.arrayBuffer());
          return (await sha256Of(bytes)) === sha256 ? bytes : null;
        } catch {
          return null;
        }
      },
    };
  } catch {
    return null;
  }
}

/**
 * Begins to keep a bundle in the place of older ones of its address; without room for it, or
 * without a hash, nothing is kept.
 */
export function keep(
  url: string,
  bundle: Blob,
  sha256: Promise<Sha256 | null>,
  etag: string | null,
): void {
  // One after the other: the newest stays.
  const before = writing.get(url) ?? Promise.resolve();
  const written = before
    .then(() => write(url, bundle, sha256, etag))
    .finally(() => {
      if (writing.get(url) === written) writing.delete(url);
    });
  writing.set(url, written);
}

async function write(
  url: string,
  bundle: Blob,
  sha256: Promise<Sha256 | null>,
  etag: string | null,
): Promise<void> {
  try {
    const hash = await sha256;
    if (hash === null) return;
    const headers = new Headers({ [HASH]: hash, "content-type": "application/octet-stream" });
    if (etag !== null) headers.set(ETAG, etag);
    await (await open())?.put(key(url), new Response(bundle, { headers }));
  } catch {
    // Full or denied: the next visit downloads again.
  }
}

/** Drops what is kept of an address. */
export async function drop(url: string): Promise<void> {
  try {
    await (await open())?.delete(key(url));
  } catch {
    // Denied: nothing is kept either.
  }
}
