/** Leaves nothing of this package on the device. */

import { deleteBundles } from "./cache.js";
import { forgetChoices } from "./choice-memory.js";
import { forgetFromNowOn } from "./erasure.js";
import { reasonOf, TigretError } from "./errors.js";
import { DATABASE, forgetMemory, hasDatabase, isDenied } from "./history.js";
import { after } from "./timeouts.js";

/** Milliseconds that the histories may take: a page may hold them open, or the browser hang. */
const LIMIT = 5000;

/**
 * Deletes all that this package keeps on the device, for every model and history of this origin:
 * histories, bundles, and which engine is the faster one. Recommenders that are loaded go on. What is
 * being loaded, by other pages of the origin too, is not kept, nor is what this page is still adding to
 * a history.
 *
 * Rejects with a {@link TigretError} (`storage`) if the browser does not delete the histories within
 * 5 seconds (for example because another page keeps them open), or if its cache fails to delete the
 * bundles or does not answer within 4 seconds. Everything else has been deleted by then.
 */
export async function forget(): Promise<void> {
  forgetFromNowOn();
  forgetMemory();
  forgetChoices();
  // Side by side: the histories, which are most private, wait for nothing.
  const parts = await Promise.allSettled([deleteHistories(), deleteBundles()]);
  for (const part of parts) if (part.status === "rejected") throw part.reason;
}

function deleteHistories(): Promise<void> {
  return new Promise((resolve, reject) => {
    try {
      const request = globalThis.indexedDB.deleteDatabase(DATABASE);
      const done = after(LIMIT, () => {
        const message =
          "the histories are not deleted yet: another tab or script of this site may hold them open; they are gone once it is closed";
        reject(new TigretError("storage", message));
      });
      request.onsuccess = () => {
        done();
        resolve();
      };
      request.onerror = async (event) => {
        // Firefox tells the page of what is not prevented, as of an error that nobody caught.
        event.preventDefault();
        done();
        // Where the browser does not say, its error has to.
        const isThere = (await hasDatabase()) ?? !(await isDenied(request.error));
        if (!isThere) return resolve();
        const message = `the histories could not be deleted (${reasonOf(request.error)})`;
        reject(new TigretError("storage", message, { cause: request.error }));
      };
    } catch {
      // Denied, or there is none.
      resolve();
    }
  });
}
