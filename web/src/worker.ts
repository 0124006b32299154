/** The worker in a browser. */

import type { Call } from "./protocol.js";
import { Server } from "./worker-core.js";

const server = new Server(
  (message) => self.postMessage(message),
  // Written out as bundlers look for it.
  async () => new URL("../pkg/tigret_infer_bg.wasm", import.meta.url),
);

self.addEventListener("message", ({ data: call }: MessageEvent<Call>) => {
  void server.receive(call);
});

// A panic in the module arrives here: `reportError` first, with the message, then the trap.
self.addEventListener("error", (event) => {
  event.preventDefault();
  server.crash(event.message);
});
self.addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  server.crash(String(event.reason?.message ?? event.reason));
});
