/// <reference types="node" />
/** The worker in Node: the CPU engine, for tests and for pages that are rendered on a server. */

import { readFile } from "node:fs/promises";
import { parentPort } from "node:worker_threads";
import type { Call } from "./protocol.js";
import { Server } from "./worker-core.js";

const server = new Server(
  (message) => parentPort?.postMessage(message),
  async () =>
    new Uint8Array(await readFile(new URL("../pkg/tigret_infer_bg.wasm", import.meta.url))),
);

// How a panic in the module says what happened, before the trap.
globalThis.reportError ??= (error) => server.crash(error);

parentPort?.on("message", (call: Call) => void server.receive(call));
