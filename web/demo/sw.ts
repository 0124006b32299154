/**
 * The service worker: what the page is made of comes from the network while there is one, and from
 * what was kept where there is none. The model itself is kept by the package.
 */

/** The little that is used of the service worker's scope, whose types exclude those of a page. */
interface Scope {
  addEventListener(type: string, listener: (event: WorkerEvent) => void): void;
  skipWaiting(): Promise<void>;
  clients: {
    claim(): Promise<void>;
    get(id: string): Promise<{ postMessage(message: unknown): void } | undefined>;
    matchAll(options: {
      type: "window";
      includeUncontrolled: boolean;
    }): Promise<readonly { id: string }[]>;
  };
}

/**
 * What a page says: at the start of a visit its own address and what it has loaded, and whether that
 * was before this script saw its requests; and that all is deleted.
 */
type Message = Keep | { kind: "forget" };

interface Keep {
  kind: "keep";
  page: string;
  urls: string[];
  isLate: boolean;
}

interface WorkerEvent {
  data?: Message;
  /** Who sends a message. */
  source?: { id: string };
  request: Request;
  /** The page or worker that asks. */
  clientId: string;
  /** The page or worker that the answer becomes; not every browser says. */
  resultingClientId?: string;
  waitUntil(work: Promise<unknown>): void;
  respondWith(response: Promise<Response>): void;
}

const scope = self as unknown as Scope;
const CACHE = `tigret-demo${new URL("./", location.href).pathname}`;

/** Milliseconds that the network may take to answer before what is kept serves. */
const PATIENCE = 4000;

/** Paths of the assets of this version; the build puts them in. */
declare const ASSETS: readonly string[];
/** Their addresses. */
const assets = ASSETS.map((path) => new URL(path, location.href).href);

/**
 * The page that started each worker. The browser may stop this script and forget it, but not between
 * a worker and the module that it asks for next.
 */
const pageOf = new Map<string, string>();

/** Pages of this version that are kept once all its assets are, by address. */
const waiting = new Map<string, Response>();

/**
 * Whether anything is kept: after all was deleted this script still answers the pages that are open.
 * Where the browser has stopped it since, the cache tells.
 */
let keeps: boolean | undefined;

scope.addEventListener("install", (event) => event.waitUntil(scope.skipWaiting()));
scope.addEventListener("activate", (event) => {
  // Unless all was deleted while it was installed.
  keeps ??= true;
  event.waitUntil(scope.clients.claim());
});

scope.addEventListener("message", (event) => {
  const { data, source } = event;
  keeps = data?.kind === "keep";
  if (data?.kind === "keep" && source) {
    event.waitUntil(keepFor(source.id, data).catch(() => {}));
  }
});

scope.addEventListener("fetch", (event) => {
  const { request, clientId, resultingClientId } = event;
  if (request.destination === "worker" && resultingClientId) {
    pageOf.set(resultingClientId, clientId);
  }
  const page = pageOf.get(clientId);
  // A page sees its own requests, and not those of its workers.
  if (page) event.waitUntil(tell(page, { kind: "request", url: request.url }));
  if (request.method === "GET" && mayKeep(request.url)) event.respondWith(answer(event));
});

/** The model is the package's own matter, and other origins are none of ours. */
function mayKeep(url: string): boolean {
  const { origin, pathname } = new URL(url);
  return origin === location.origin && !pathname.endsWith(".safetensors");
}

/** Names of assets hold their hash: what is kept under one is never out of date. */
function isAsset(url: string): boolean {
  return url.startsWith(new URL("./assets/", location.href).href);
}

/**
 * The address that an answer is kept under: the page is the same with any query or fragment, and a
 * fragment may be a shared history, which is not stored before the visitor keeps it.
 */
function keyOf({ url, mode }: Request): string {
  const { origin, pathname } = new URL(url);
  return mode === "navigate" ? origin + pathname : url;
}

/** Whether an answer is what was asked for: some hosts give a page for a file that is not there. */
function isItself(url: string, response: Response): boolean {
  return response.ok && !(isAsset(url) && isHtml(response));
}

function isHtml(response: Response): boolean {
  return response.headers.get("content-type")?.startsWith("text/html") ?? false;
}

/** Whether it is an asset of another version than this script's. */
function isOld(url: string): boolean {
  return isAsset(url) && !assets.includes(url);
}

/** Whether a page, kept under this address, is of this script's version: it names its assets alone. */
function isCurrent(page: string, address: string): boolean {
  const paths = page.match(/[\w./:-]*\bassets\/[\w.-]+/g) ?? [];
  const named = paths.map((path) => new URL(path, address).href).filter(isAsset);
  return named.length > 0 && !named.some(isOld);
}

/**
 * Keeps what a window has loaded and, last, its page. Where that is late, its worker has loaded more,
 * which neither it nor this script has seen: the assets of its version are kept, too.
 */
async function keepFor(window: string, { page, urls, isLate }: Keep): Promise<void> {
  const cache = await caches.open(CACHE);
  // One of another version still needs its own; the next window tries again.
  const isOther = urls.some(isOld);
  const loaded = new Set(isLate && !isOther ? [...assets, ...urls] : urls);
  // At once: on a first visit they are mostly here before the model, from when on the page counts.
  const kept = [...loaded].filter(mayKeep).map(async (url) => {
    if (await cache.match(url)) return;
    await tell(window, { kind: "request", url });
    const response = await fetch(url);
    if (isItself(url, response)) await cache.put(url, response);
  });
  await Promise.allSettled(kept);
  if (isOther) return;
  await keepWaiting(cache);
  if (!waiting.has(page) && !(await hasPage(cache, page))) {
    await tell(window, { kind: "request", url: page });
    await keepPage(cache, page, await fetch(page));
  }
  // Until this version is whole, the one before serves where there is no network.
  if (await hasPage(cache, page)) await deleteOld(cache, window);
}

/** Whether the page that is kept under an address is of this version. */
async function hasPage(cache: Cache, address: string): Promise<boolean> {
  const kept = await cache.match(address);
  return kept !== undefined && isCurrent(await kept.text(), address);
}

/**
 * Keeps a page of this version once all its assets are kept: a visit may be cut short. One of another
 * version is kept by the service worker that comes with it.
 */
async function keepPage(cache: Cache, address: string, page: Response): Promise<void> {
  const text = await page.text();
  if (!page.ok || !isCurrent(text, address)) return;
  // Made anew: what the network gave would be stored with its own address, fragment and all.
  waiting.set(address, new Response(text, page));
  await keepWaiting(cache);
}

async function keepWaiting(cache: Cache): Promise<void> {
  if (waiting.size === 0) return;
  for (const url of assets) {
    if (!(await cache.match(url))) return;
  }
  for (const [address, page] of waiting) {
    waiting.delete(address);
    await cache.put(address, page);
  }
}

/** Keeps an answer of the network. */
async function keep(cache: Cache, request: Request, response: Response): Promise<void> {
  const key = keyOf(request);
  if (request.mode === "navigate") return keepPage(cache, key, response);
  await cache.put(key, response);
  if (isAsset(key)) await keepWaiting(cache);
}

/** Deletes pages and assets of other versions, unless another open window may still need them. */
async function deleteOld(cache: Cache, window: string): Promise<void> {
  const windows = await scope.clients.matchAll({ type: "window", includeUncontrolled: true });
  if (windows.some(({ id }) => id !== window)) return;
  for (const { url } of await cache.keys()) {
    if (isOld(url) || (await isOldPage(cache, url))) await cache.delete(url);
  }
}

/** Whether it is a page of another version, as that of another address of the demo may be. */
async function isOldPage(cache: Cache, url: string): Promise<boolean> {
  const kept = isAsset(url) ? undefined : await cache.match(url);
  return kept !== undefined && isHtml(kept) && !isCurrent(await kept.text(), url);
}

/** The cache, unless all was deleted. */
async function openCache(): Promise<Cache | null> {
  return (keeps ?? (await caches.has(CACHE))) ? caches.open(CACHE) : null;
}

/** An answer of the network is given also where it cannot be kept: storage may be full, or denied. */
async function answer(event: WorkerEvent): Promise<Response> {
  const { request } = event;
  const key = keyOf(request);
  const cache = await openCache().catch(() => null);
  const kept = await cache?.match(key).catch(() => undefined);
  if (kept && isAsset(key)) return kept;
  const fetched = fetch(request).then((response) => {
    if (cache && isItself(key, response)) {
      event.waitUntil(keep(cache, request, response.clone()).catch(() => {}));
    }
    // A server that is out of order is no better than none.
    return kept && response.status >= 500 ? kept : response;
  });
  if (!kept) return fetched;
  // An answer that comes too late is kept for the next visit.
  event.waitUntil(fetched.catch(() => {}));
  const late = new Promise<Response>((resolve) => setTimeout(() => resolve(kept), PATIENCE));
  return Promise.race([fetched, late]).catch(() => kept);
}

async function tell(id: string, message: unknown): Promise<void> {
  (await scope.clients.get(id))?.postMessage(message);
}
