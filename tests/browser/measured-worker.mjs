/** The package's worker, with the memory of its wasm module where a test can look at it. */

const instantiate = WebAssembly.instantiateStreaming;
WebAssembly.instantiateStreaming = async (...source) => {
  const made = await instantiate.apply(WebAssembly, source);
  /** @type {any} */ (globalThis).wasmMemory = made.instance.exports.memory;
  return made;
};

// Calls that come before the worker listens are kept for it.
/** @type {unknown[]} */
const early = [];
const keep = (/** @type {MessageEvent} */ event) => {
  event.stopImmediatePropagation();
  early.push(event.data);
};
addEventListener("message", keep);
// @ts-expect-error: the address is the test server's.
await import("/package/dist/worker.js");
removeEventListener("message", keep);
for (const data of early) dispatchEvent(new MessageEvent("message", { data }));
