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
    matchAll(): Promise<{ postMessage(message: unknown): void }[]>;
  };
}

interface WorkerEvent {
  data?: { kind: string; urls: string[] };
  request: Request;
  waitUntil(work: Promise<unknown>): void;
  respondWith(response: Promise<Response>): void;
}

const scope = self as unknown as Scope;
const CACHE = "tigret-demo";

scope.addEventListener("install", (event) => event.waitUntil(scope.skipWaiting()));
scope.addEventListener("activate", (event) => event.waitUntil(scope.clients.claim()));

scope.addEventListener("message", (event) => {
  if (event.data?.kind !== "keep") return;
  const keep = async (urls: string[]) => {
    const cache = await caches.open(CACHE);
    for (const url of urls.filter(mayKeep)) {
      if (!(await cache.match(url))) await cache.add(url).catch(() => {});
    }
  };
  event.waitUntil(keep(event.data.urls));
});

scope.addEventListener("fetch", (event) => {
  const { request } = event;
  const worker = request.destination === "worker" || request.url.endsWith(".wasm");
  event.waitUntil(tell({ kind: "request", url: request.url, worker }));
  if (request.method === "GET" && mayKeep(request.url)) event.respondWith(answer(request));
});

/** The model is the package's own matter, and other origins are none of ours. */
function mayKeep(url: string): boolean {
  const { origin, pathname } = new URL(url);
  return origin === location.origin && !pathname.endsWith(".safetensors");
}

async function answer(request: Request): Promise<Response> {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request, { ignoreSearch: request.mode === "navigate" });
  // Names of assets hold their hash: what is kept under one is never out of date.
  if (kept && new URL(request.url).pathname.includes("/assets/")) return kept;
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    if (kept) return kept;
    throw error;
  }
}

async function tell(message: unknown): Promise<void> {
  for (const client of await scope.clients.matchAll()) client.postMessage(message);
}
