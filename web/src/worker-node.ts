/// <reference types="node" />
/**
 * The worker in Node, with the wasm module inside it: the CPU engine, for tests and for pages that
 * are rendered on a server. `bundle.mjs` puts the module's bytes in the place of `WASM`.
 */

import type { Call } from "./protocol.js";
import { Server } from "./worker-core.js";

/** The wasm module, brotli in base64. */
declare const WASM: string;

// Whether a text may `import` or `require` is up to the flags of the program.
const { parentPort } = process.getBuiltinModule("node:worker_threads");
const { brotliDecompressSync } = process.getBuiltinModule("node:zlib");

const server = new Server(
  (message) => parentPort?.postMessage(message),
  async () => new Uint8Array(brotliDecompressSync(Buffer.from(WASM, "base64"))),
);

// How a panic in the module says what happened, before the trap.
globalThis.reportError ??= (error) => server.crash(error);

parentPort?.on("message", (call: Call) => void server.receive(call));
