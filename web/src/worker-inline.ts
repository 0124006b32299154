/** The worker with the wasm module inside it: `bundle.mjs` puts its bytes in the place of `WASM`. */

import { serveInBrowser } from "./worker-browser.js";

/** The wasm module, gzip in base64. */
declare const WASM: string;

async function wasm(): Promise<Uint8Array<ArrayBuffer>> {
  const zipped = Uint8Array.from(atob(WASM), (character) => character.charCodeAt(0));
  const stream = new Blob([zipped]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

serveInBrowser(wasm);
