/** Leaves nothing of this package on the device. */

import { CACHE, forgetFromNowOn, settled, USES } from "./cache.js";
import { PREFIX } from "./choice.js";
import { TigretError } from "./errors.js";
import { DATABASE, forgetMemory, hasDatabase } from "./history.js";
import { after } from "./steps.js";

/** Milliseconds that the histories may be held open by a page that does not let go of them. */
const BLOCKED = 5000;

/**
 * Deletes all that this package keeps on the device, for every model and history of this origin:
 * histories, bundles, and which engine is the faster one. Recommenders that are loaded go on, and what
 * is being loaded is not kept.
 *
 * Rejects with a {@link TigretError} (`storage`) where the browser does not delete the histories, or
 * not within 5 seconds since another page holds them open; all else is gone then.
 */
export async function forget(): Promise<void> {
  forgetFromNowOn();
  forgetMemory();
  await settled();
  try {
    for (const name of [CACHE, USES]) await globalThis.caches?.delete(name);
  } catch {
    // Denied: nothing is kept either.
  }
  try {
    const keys = Object.keys(globalThis.localStorage ?? {});
    for (const key of keys.filter((key) => key.startsWith(PREFIX))) localStorage.removeItem(key);
  } catch {
    // Denied.
  }
  await new Promise<void>((resolve, reject) => {
    try {
      const request = globalThis.indexedDB.deleteDatabase(DATABASE);
      let freed = () => {};
      request.onblocked = () => {
        const message =
          "the histories are not deleted yet: another tab or script of this site holds them open; they are gone once it is closed";
        freed = after(BLOCKED, () => reject(new TigretError("storage", message)));
      };
      request.onsuccess = () => {
        freed();
        resolve();
      };
      request.onerror = async () => {
        freed();
        if (!(await hasDatabase())) return resolve();
        const why = request.error?.message || request.error?.name || "the browser does not say why";
        const message = `the histories could not be deleted (${why})`;
        reject(new TigretError("storage", message, { cause: request.error }));
      };
    } catch {
      // Denied, or there is none.
      resolve();
    }
  });
}
