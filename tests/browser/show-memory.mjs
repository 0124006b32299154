/** Puts the memory of a worker's wasm module where a test can look at it. */

const instantiate = WebAssembly.instantiateStreaming;
WebAssembly.instantiateStreaming = async (...source) => {
  const made = await instantiate.apply(WebAssembly, source);
  /** @type {any} */ (globalThis).wasmMemory = made.instance.exports.memory;
  return made;
};
