/** Bundles kept on the device by the Cache API: the newest version of each address in use. */

import { erasuresSoFar, isForgotten, listen } from "./erasure.js";
import { reasonOf, TigretError } from "./errors.js";
import { type Sha256, sha256Of } from "./integrity.js";
import { within } from "./timeouts.js";

/** Name of the cache. */
const CACHE = "tigret";
/** Name of the cache that knows when each bundle was used last: a small entry for each. */
const USES = "tigret-uses";

/** Milliseconds that a bundle is kept without being used. */
const UNUSED = 30 * 24 * 3_600_000;
/**
 * Bundles of one path, whatever the rest of its address says: the newest and the one that another
 * tab may have.
 */
const VERSIONS = 2;
/** Milliseconds after which a cache that does not answer counts as none. */
const LIMIT = 4000;
/** Milliseconds that the bytes of a copy may take: large ones on a slow device take some. */
const READING = 30_000;

const USED = "x-tigret-used";
const HASH = "x-tigret-sha256";
const ETAG = "etag";

/** A kept bundle. */
export interface Kept {
  /** Its hash when it was kept. */
  sha256: Sha256;
  /** The server's name of the version, if it gave one. */
  etag: string | null;
  /** Its bytes, or `null` where they are not those that were kept, or do not come. */
  bytes(): Promise<Uint8Array<ArrayBuffer> | null>;
  /** Lets go of it: what may still be read takes room also once it is deleted. */
  release(): void;
}

/** A host that nobody has: the address of a frame or a worker may be none to build upon. */
const HOST = "https://tigret.invalid";
/** Under what addresses are kept. */
const FOLDER = "/__tigret__/";

/** Where an address is kept. */
function key(url: string): string {
  return HOST + FOLDER + encodeURIComponent(url);
}

/** The origin and the path of the address that is kept under a key. */
function pathOf(key: string): string {
  const { origin, pathname } = new URL(decodeURIComponent(key.split(FOLDER)[1] ?? ""));
  return origin + pathname;
}

/** A cache, or `null` where there is none, it is denied or does not answer. */
async function open(name = CACHE): Promise<Cache | null> {
  try {
    return await within<Cache | null>(LIMIT, globalThis.caches.open(name), () => null);
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

/** What is kept of an address, as far as the cache answers. */
export function kept(url: string): Promise<Kept | null> {
  return within<Kept | null>(LIMIT, find(url), () => null);
}

async function find(url: string): Promise<Kept | null> {
  const begun = erasuresSoFar();
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
          const bytes = await within(READING, bytesOf(response, sha256), () => null);
          if (bytes && !isForgotten(begun)) begin(url, () => note(url));
          return bytes;
        } catch {
          return null;
        }
      },
      release: () => void response.body?.cancel().catch(() => {}),
    };
  } catch {
    return null;
  }
}

/** The bytes of a kept response, or `null` where they are not those of the hash. */
async function bytesOf(
  response: Response,
  sha256: Sha256,
): Promise<Uint8Array<ArrayBuffer> | null> {
  const bytes = new Uint8Array(await response.arrayBuffer());
  return (await sha256Of(bytes)) === sha256 ? bytes : null;
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
  begin(url, () => write(url, bundle, sha256, etag));
}

/** Begins to write something of an address: one after the other, so that the newest stays. */
function begin(url: string, job: () => Promise<void>): void {
  const [begun, deaf] = [erasuresSoFar(), listen()];
  const before = writing.get(url);
  const run = async () => {
    await before;
    try {
      if (!isForgotten(begun)) await job();
    } catch {
      // Full or denied: nothing is kept, and the next visit downloads again.
    }
    // The last of it may have been written after the caches were deleted; what came since stays.
    if (isForgotten(begun)) await leaveNothing(url).catch(() => {});
    deaf();
    if (writing.get(url) === written) writing.delete(url);
  };
  const written = run();
  writing.set(url, written);
}

async function write(
  url: string,
  bundle: Blob,
  sha256: Promise<Sha256 | null>,
  etag: string | null,
): Promise<void> {
  const begun = erasuresSoFar();
  const hash = await sha256;
  if (hash === null || isForgotten(begun)) return;
  const headers = new Headers({ [HASH]: hash, "content-type": "application/octet-stream" });
  if (etag !== null) headers.set(ETAG, etag);
  const put = async () => {
    // First, since another tab may tidy up in between.
    await note(url);
    const cache = await open();
    if (!isForgotten(begun)) await cache?.put(key(url), new Response(bundle, { headers }));
  };
  const makeRoom = [
    // The copy of before takes room beside the one that replaces it.
    async () => void (await (await open())?.delete(key(url))),
    () => tidy(key(url)),
  ];
  for (;;) {
    try {
      await put();
      break;
    } catch (error) {
      const make = makeRoom.shift();
      if (!make || !(await couldFit(error, bundle.size))) throw error;
      await make();
    }
  }
  await tidy();
}

/** With what some browsers tell beside the standard's. */
type Estimate = StorageEstimate & { usageDetails?: { caches?: number } };

/** Whether a bundle failed for want of room, and not of more than there can be. */
async function couldFit(error: unknown, size: number): Promise<boolean> {
  if ((error as Error | null)?.name !== "QuotaExceededError") return false;
  const storage = globalThis.navigator?.storage;
  const { quota = size, usage = 0, usageDetails }: Estimate = (await storage?.estimate?.()) ?? {};
  // What caches take may be given back, where the browser tells it from the rest.
  return size <= quota - (usage - (usageDetails?.caches ?? usage));
}

/** Notes that the bundle of an address is used now. */
async function note(url: string): Promise<void> {
  const headers = { [USED]: String(Date.now()) };
  await (await open(USES))?.put(key(url), new Response(null, { headers }));
}

/**
 * Drops bundles that nobody uses: addresses that change would fill the device. To make room for what
 * is kept under a key, the one of another key that was used longest ago goes, too.
 */
async function tidy(roomFor?: string): Promise<void> {
  const [bundles, uses] = [await open(), await open(USES)];
  if (!bundles || !uses) return;
  const urls = async (cache: Cache) => (await cache.keys()).map(({ url }) => url);
  const kept = new Set(await urls(bundles));
  // A bundle that found no room has left a note alone.
  const noted = [...new Set([...kept, ...(await urls(uses))])].map(async (url) => {
    const used = Number((await uses.match(url))?.headers.get(USED) ?? 0);
    return { url, used };
  });
  const byUse = (await Promise.all(noted)).sort((a, b) => b.used - a.used);
  const others = byUse.filter(({ url }) => kept.has(url) && url !== roomFor);
  const oldest = roomFor === undefined ? undefined : others.at(-1)?.url;
  const versions = new Map<string, number>();
  for (const { url, used } of byUse) {
    const path = pathOf(url);
    const newer = versions.get(path) ?? 0;
    if (kept.has(url)) versions.set(path, newer + 1);
    const inUse = newer < VERSIONS && Date.now() - used < UNUSED;
    if (inUse && url !== oldest) continue;
    await bundles.delete(url);
    await uses.delete(url);
  }
}

/** Begins to drop what is kept of an address. */
export function drop(url: string): void {
  begin(url, () => erase(url));
}

/** Deletes what is kept of an address. */
async function erase(url: string): Promise<void> {
  for (const name of [CACHE, USES]) await (await open(name))?.delete(key(url));
}

/** Deletes what is kept of an address, and the caches where nothing else is or comes. */
async function leaveNothing(url: string): Promise<void> {
  await erase(url);
  for (const name of [CACHE, USES]) {
    const isEmpty = (await (await open(name))?.keys())?.length === 0;
    if (isEmpty && writing.size === 1) await globalThis.caches.delete(name);
  }
}

/** Deletes all bundles. Rejects with code `storage` where the cache fails to, or does not answer. */
export async function deleteBundles(): Promise<void> {
  let answers = true;
  const late = () => {
    answers = false;
  };
  await within(LIMIT, settled(), late);
  await within(LIMIT, deleteCaches(), late);
  if (answers) return;
  const message =
    "the bundles are not deleted yet: the browser's cache does not answer; try again later";
  throw new TigretError("storage", message);
}

async function deleteCaches(): Promise<void> {
  const deletions = [CACHE, USES].map(async (name) => globalThis.caches?.delete(name));
  for (const deletion of await Promise.allSettled(deletions)) {
    if (deletion.status === "fulfilled") continue;
    const cause = deletion.reason;
    // Denied: nothing is kept either.
    if ((cause as Error | null)?.name === "SecurityError") continue;
    const message = `the bundles could not be deleted (${reasonOf(cause)})`;
    throw new TigretError("storage", message, { cause });
  }
}
