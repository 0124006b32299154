/// <reference types="vite/client" />
/** The page without a network: a service worker keeps what the page is made of. */

/** Milliseconds to wait for the service worker: a page without it works too. */
const PATIENCE = 1500;

/**
 * The service worker's cache, as `sw.ts` names it, which is a script that can import nothing. Other
 * demos of the origin have theirs.
 */
const CACHES = "tigret-demo";
const CACHE = CACHES + new URL("./", location.href).pathname;
const SCRIPT = new URL("./sw.js", location.href).href;

/** Nothing is to be kept any more, also where the service worker comes only now. */
let isForgotten = false;

/**
 * Registers the service worker and waits until it sees this page's requests, so that the worker and
 * the wasm module, which load after this, are kept by the first visit. It never waits for long: in a
 * private window, say, there is no service worker, and the page needs the network. `early` is what the
 * page asked for before: it is kept, too, and the page knows of it once it is here.
 */
export async function stayOffline(early: readonly Promise<unknown>[]): Promise<void> {
  const container = navigator.serviceWorker;
  if (!import.meta.env.PROD || !container) return;
  let isLate = false;
  const late = new Promise<void>((resolve) => {
    setTimeout(() => {
      isLate = true;
      resolve();
    }, PATIENCE);
  });
  const control = takeControl(container);
  const keep = async () => {
    const worker = await control;
    const wasLate = isLate;
    // A newer one comes with a newer page, and has seen nothing of it.
    container.addEventListener("controllerchange", () => letKeep(controllerOf(container), true));
    await Promise.allSettled(early);
    letKeep(worker, wasLate);
  };
  keep().catch(() => {});
  await Promise.race([control.catch(() => {}), late]);
}

/** Tells a service worker what there is to keep, or that there is nothing. */
function letKeep(worker: ServiceWorker | null, isLate: boolean): void {
  if (isForgotten) {
    worker?.postMessage({ kind: "forget" });
    return;
  }
  const page = location.origin + location.pathname;
  const urls = performance.getEntriesByType("resource").map((entry) => entry.name);
  worker?.postMessage({ kind: "keep", page, urls, isLate });
}

/** The service worker that sees this page's requests, if it is its own and not one of a folder above. */
function controllerOf({ controller }: ServiceWorkerContainer): ServiceWorker | null {
  return controller?.scriptURL === SCRIPT ? controller : null;
}

async function takeControl(container: ServiceWorkerContainer): Promise<ServiceWorker> {
  await container.register(SCRIPT);
  return new Promise((resolve) => {
    const look = () => {
      const worker = controllerOf(container);
      if (worker) resolve(worker);
    };
    container.addEventListener("controllerchange", look);
    look();
  });
}

/**
 * Lets go of this page's service worker and of all that it keeps; other pages of the origin have
 * theirs. Rejects where the browser does not delete it.
 */
export async function forgetOffline(): Promise<void> {
  const own = new URL("./", location.href).href;
  isForgotten = true;
  try {
    for (const registration of (await navigator.serviceWorker?.getRegistrations()) ?? []) {
      if (registration.scope !== own) continue;
      // They answer the pages that are open until they are closed.
      for (const worker of [registration.installing, registration.waiting, registration.active]) {
        worker?.postMessage({ kind: "forget" });
      }
      await registration.unregister();
    }
    for (const name of (await globalThis.caches?.keys()) ?? []) {
      if (name === CACHE) await caches.delete(name);
      // Of a demo in a folder above, whose service worker sees this page, too.
      else if (name.startsWith(CACHES) && CACHE.startsWith(name)) await forgetIn(name, own);
    }
  } catch (cause) {
    const { name, message } = cause as Error;
    // Denied: nothing is kept either.
    if (name === "SecurityError") return;
    throw new Error(`the page's own files could not be deleted (${message || name})`, { cause });
  }
}

async function forgetIn(name: string, start: string): Promise<void> {
  const cache = await caches.open(name);
  const own = (await cache.keys()).filter(({ url }) => url.startsWith(start));
  await Promise.all(own.map((request) => cache.delete(request)));
}
