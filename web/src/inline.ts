/**
 * The package in one file, with worker and wasm module inside, for where nothing follows
 * `new URL(…, import.meta.url)`. A policy has to allow `worker-src blob:`.
 */

import { platform } from "./platform.js";

/** The worker: `bundle.mjs` puts its text in the place of `WORKER`. */
declare const WORKER: string;

/**
 * What `node.ts` builds on, so that the text lies in the package once.
 *
 * @internal
 */
export const shared = { platform, worker: WORKER };

/** Made once, since it holds the text for as long as the page is there. */
let address: string | undefined;

platform.startWorker = () => {
  address ??= URL.createObjectURL(new Blob([shared.worker], { type: "text/javascript" }));
  return new Worker(address);
};

export * from "./index.js";
