/** How a source becomes a model on an engine. */

import { onAbort, untilAborted } from "./abort.js";
import type { Progress } from "./download.js";
import { EngineHost } from "./engine-host.js";
import { erasuresSoFar, listen } from "./erasure.js";
import { brief, TigretError } from "./errors.js";
import { tell } from "./events.js";
import type { LoadOptions } from "./options.js";
import { platform } from "./platform.js";
import { type Bundle, bundleOf, type Source } from "./source.js";

/** What helps where a server sends a file that was packed, and does not say so. */
const GZIP = "it is gzip; serve it with Content-Encoding: gzip, or unpack it";

/**
 * Starts a worker, gets a bundle and puts it on an engine; resolves with what has them, and the
 * bytes that were downloaded. `end` ends the worker, and is aborted where this rejects.
 */
export async function load(
  source: Source,
  options: LoadOptions,
  end: AbortController,
): Promise<[EngineHost, number]> {
  const { backend = "auto", onProgress, signal, cache, integrity } = options;
  signal?.throwIfAborted();
  const start = options.worker ?? platform.startWorker;
  // It fetches and compiles its module while the bundle is on its way.
  // Options are a copy: workers take no proxies.
  const host = new EngineHost(start, { ...options.gpu }, end.signal);
  const [begun, deaf] = [erasuresSoFar(), listen()];
  const engine = backend === "auto" ? "cpu" : backend;
  // Nobody waits for a bundle that no engine will take, or no worker, or the caller.
  const unwanted = new AbortController();
  host.require(engine).catch((error) => {
    if (!host.isGone) unwanted.abort(error);
  });
  const stop = () => end.abort(new TigretError("disposed", "loading was stopped"));
  const off = onAbort(signal, () => {
    unwanted.abort(signal?.reason);
    stop();
  });
  try {
    // What the page's own function throws is no failure of the download.
    const progress = onProgress && ((at: Progress) => tell(onProgress, at));
    const wanted = { onProgress: progress, cache, integrity, signal: unwanted.signal };
    // What is read on the device may not come to an end.
    let found = await untilAborted(unwanted.signal, bundleOf(source, wanted));
    let { downloaded } = found;
    const take = ({ bytes, url }: Bundle) => {
      // The engine takes the bytes away.
      const isGzip = bytes[0] === 0x1f && bytes[1] === 0x8b;
      return host.load(bytes, engine).catch((error) => {
        if (error.code !== "bad-bundle" || !(url || isGzip)) throw error;
        const what = isGzip ? GZIP : error.message;
        throw new TigretError("bad-bundle", `${url ? brief(url) : "the bundle"}: ${what}`);
      });
    };
    let bundle: Blob | undefined;
    while (!bundle) {
      bundle = await take(found).catch(async (error: TigretError) => {
        if (error.code !== "bad-bundle") throw error;
        const again = untilAborted(unwanted.signal, found.again());
        const better = await again.catch(() => null);
        if (!better) throw error;
        found = better;
        // Where a copy serves, what was read in vain does not count.
        downloaded = better.downloaded && downloaded + better.downloaded;
        return undefined;
      });
    }
    found.keep(bundle);
    if (backend === "auto") await host.use("auto", begun);
    signal?.throwIfAborted();
    return [host, downloaded];
  } catch (error) {
    stop();
    signal?.throwIfAborted();
    throw error;
  } finally {
    off();
    deaf();
  }
}
