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

interface WorkerEvent {
  data?: { kind: string; urls: string[] };
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

/**
 * The page that started each worker. The browser may stop this script and forget it, but not between
 * a worker and the module that it asks for next.
 */
const pageOf = new Map<string, string>();

scope.addEventListener("install", (event) => event.waitUntil(scope.skipWaiting()));
scope.addEventListener("activate", (event) => event.waitUntil(scope.clients.claim()));

scope.addEventListener("message", (event) => {
  const { data, source } = event;
  if (data?.kind === "keep" && source) event.waitUntil(keepFor(source.id, data.urls));
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

/** Keeps what a page has loaded, once there is room for it. */
async function keepFor(page: string, loaded: string[]): Promise<void> {
  await deleteOldAssets(page, loaded).catch(() => {});
  await keepAll(loaded).catch(() => {});
}

async function keepAll(urls: string[]): Promise<void> {
  const cache = await caches.open(CACHE);
  for (const url of urls.filter(mayKeep)) {
    if (!(await cache.match(url))) await cache.add(url).catch(() => {});
  }
}

/**
 * Deletes the assets of other versions, unless an open window may still need them: another one than
 * the page, or the page itself, where it is not of this script's version. The next page tries again.
 */
async function deleteOldAssets(page: string, loaded: string[]): Promise<void> {
  const current = new Set(ASSETS.map((path) => new URL(path, location.href).href));
  const isOld = (url: string) => isAsset(url) && !current.has(url);
  if (loaded.some(isOld)) return;
  const windows = await scope.clients.matchAll({ type: "window", includeUncontrolled: true });
  if (windows.some(({ id }) => id !== page)) return;
  const cache = await caches.open(CACHE);
  for (const { url } of await cache.keys()) {
    if (isOld(url)) await cache.delete(url);
  }
}

/** An answer of the network is given also where it cannot be kept: storage may be full, or denied. */
async function answer(event: WorkerEvent): Promise<Response> {
  const { request } = event;
  const key = keyOf(request);
  const cache = await caches.open(CACHE).catch(() => null);
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
