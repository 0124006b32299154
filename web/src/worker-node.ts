/// <reference types="node" />
/**
 * Makes a thread of Node look like a browser's worker, whose script follows this one: the CPU
 * engine, for tests and for pages that are rendered on a server.
 */

// Whether a text may `import` or `require` is up to the flags of the program.
const { parentPort } = process.getBuiltinModule("node:worker_threads");

const events = new EventTarget();
const tell = (type: string, what: object) =>
  events.dispatchEvent(Object.assign(new Event(type), what));
parentPort?.on("message", (data) => tell("message", { data }));
// How a panic in the module says what happened, before the trap.
globalThis.reportError = (error) => tell("error", { error });

const self = {
  // Without locks: an end of the thread is an event.
  navigator: {},
  postMessage: (message: unknown) => parentPort?.postMessage(message),
  addEventListener: events.addEventListener.bind(events),
};
Object.assign(globalThis, { self });

export {};
