/** What differs between browsers and Node. */

import type { WorkerLike } from "./remote.js";

interface Platform {
  /** Starts the worker that holds the wasm module. */
  startWorker(): WorkerLike;
  /** The bytes of a file that is no matter of `fetch`, or `null`. */
  readFile?(source: string | URL): Promise<Uint8Array<ArrayBuffer> | null>;
}

/** The platform in use: browsers, unless `node.ts` was imported. */
export const platform: Platform = {
  // Written out as bundlers look for it.
  startWorker: () => new Worker(new URL("./worker.js", import.meta.url), { type: "module" }),
};
