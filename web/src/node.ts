/// <reference types="node" />
/** The package in Node: the same face, with the CPU engine, and files beside addresses. */

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { TigretError } from "./errors.js";
import { platform } from "./platform.js";
import type { WorkerLike } from "./remote.js";

/** The worker, as text: bundlers would not follow its file. `bundle.mjs` puts it in this place. */
declare const NODE_WORKER: string;

platform.startWorker = startWorker;
platform.readFile = readSource;

/** A thread that looks like a browser's worker. */
function startWorker(): WorkerLike {
  // Flags of the program itself (such as --input-type) are none of the worker.
  const worker = new Worker(NODE_WORKER, { eval: true, execArgv: [] });
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

export * from "./index.js";
