/// <reference types="node" />
/** The package in Node: the same face, with the CPU engine, and files beside addresses. */

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { shared, TigretError } from "./inline.js";
import type { WorkerLike } from "./remote.js";

/** What makes a thread a browser's worker: `bundle.mjs` puts its text in this place. */
declare const THREAD: string;

shared.platform.startWorker = startWorker;
shared.platform.readFile = readSource;

/** A thread that looks like a browser's worker. */
function startWorker(): WorkerLike {
  // Flags of the program itself (such as --input-type) are none of the worker.
  const worker = new Worker(THREAD + shared.worker, { eval: true, execArgv: [] });
  // A recommender that was not disposed of keeps no program from ending; a call does.
  worker.unref();
  let unanswered = 0;
  return {
    postMessage: (message: unknown, transfer: unknown) => {
      unanswered++;
      worker.ref();
      worker.postMessage(message, transfer as never);
    },
    terminate: () => void worker.terminate(),
    addEventListener: (type: string, listener: unknown) => {
      const call = listener as (event: Event) => void;
      if (type === "message") {
        worker.on("message", (data) => {
          if (--unanswered === 0) worker.unref();
          call(Object.assign(new Event("message"), { data }));
        });
      }
      if (type === "messageerror") worker.on("messageerror", () => call(new Event("messageerror")));
      if (type === "error") {
        const fail = (message: string) => call(Object.assign(new Event("error"), { message }));
        worker.on("error", ({ message }) => fail(message));
        worker.on("exit", (code) => fail(`it ended with exit code ${code}`));
      }
    },
  } as WorkerLike;
}

/** A path, or an address that begins with `file:`; others are left to `fetch`. */
async function readSource(source: string | URL): Promise<Uint8Array<ArrayBuffer> | null> {
  const text = String(source);
  if (/^[a-z]{2,}:/i.test(text) && !text.startsWith("file:")) return null;
  try {
    return new Uint8Array(await readFile(text.startsWith("file:") ? fileURLToPath(text) : text));
  } catch (cause) {
    const message = `${text} could not be read (${(cause as Error).message})`;
    throw new TigretError("download", message, { cause });
  }
}

export * from "./inline.js";
