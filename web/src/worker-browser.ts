/** What a worker in a browser listens to. */

import type { Call, Message } from "./protocol.js";
import { type Module, Server } from "./worker-core.js";

/** Answers the page's calls; `module` says where the wasm module is. */
export function serveInBrowser(module: () => Promise<Module>): void {
  const post = (message: Message) => self.postMessage(message);
  // Pages without HTTPS have no locks.
  const server = new Server(post, module, self.navigator.locks);
  self.addEventListener("message", ({ data: call }: MessageEvent<Call>) => {
    void server.receive(call);
  });
  // A panic in the module arrives here: `reportError` first, with the message, then the trap.
  self.addEventListener("error", (event) => {
    event.preventDefault();
    server.crash(event.error ?? event);
  });
  self.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    server.crash(event.reason);
  });
}
