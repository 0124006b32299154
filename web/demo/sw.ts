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
 * What a page says: at the start of a visit what it has loaded, and whether that was before this
 * script saw its requests; and that all is deleted.
 */
type Message = { kind: "keep"; urls: string[]; isLate: boolean } | { kind: "forget" };

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

/**
 * Whether anything is kept: after all was deleted this script still answers the pages that are open.
 * Where the browser has stopped it since, the cache tells.
 */
let keeps: boolean | undefined;

scope.addEventListener("install", (event) => event.waitUntil(scope.skipWaiting()));
scope.addEventListener("activate", (event) => {
  keeps = true;
  event.waitUntil(scope.clients.claim());
});

scope.addEventListener("message", (event) => {
  const { data, source } = event;
  keeps = data?.kind === "keep";
  if (data?.kind === "keep" && source) {
    event.waitUntil(keepFor(source.id, data.urls, data.isLate));
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

/** Whether it is an asset of another version than this script's. */
function isOld(url: string): boolean {
  return isAsset(url) && !assets.includes(url);
}

/**
 * Keeps what a page has loaded, once there is room for it. Where that is late, its worker has loaded
 * more, which neither it nor this script has seen: the assets of its version are kept, too.
 */
async function keepFor(page: string, loaded: string[], isLate: boolean): Promise<void> {
  // One of another version still needs its own; the next page tries again.
  const isCurrent = !loaded.some(isOld);
  if (isCurrent) await deleteOldAssets(page).catch(() => {});
  await keepAll(isCurrent && isLate ? [...assets, ...loaded] : loaded).catch(() => {});
}

async function keepAll(urls: string[]): Promise<void> {
  const cache = await caches.open(CACHE);
  for (const url of urls.filter(mayKeep)) {
    if (!(await cache.match(url))) await cache.add(url).catch(() => {});
  }
}

/** Deletes the assets of other versions, unless another open window may still need them. */
async function deleteOldAssets(page: string): Promise<void> {
  const windows = await scope.clients.matchAll({ type: "window", includeUncontrolled: true });
  if (windows.some(({ id }) => id !== page)) return;
  const cache = await caches.open(CACHE);
  for (const { url } of await cache.keys()) {
    if (isOld(url)) await cache.delete(url);
  }
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
  let isLate = false;
  const fetched = fetch(request).then((response) => {
    // A newer page names assets that only a visit to it brings, so it waits for one.
    const keeps = cache && response.ok && !(isLate && request.mode === "navigate");
    if (keeps) event.waitUntil(cache.put(key, response.clone()).catch(() => {}));
    // A server that is out of order is no better than none.
    return kept && response.status >= 500 ? kept : response;
  });
  if (!kept) return fetched;
  // An answer that comes too late is kept for the next visit, unless it is a page.
  event.waitUntil(fetched.catch(() => {}));
  const late = new Promise<Response>((resolve) => {
    setTimeout(() => {
      isLate = true;
      resolve(kept);
    }, PATIENCE);
  });
  return Promise.race([fetched, late]).catch(() => kept);
}

async function tell(id: string, message: unknown): Promise<void> {
  (await scope.clients.get(id))?.postMessage(message);
}
