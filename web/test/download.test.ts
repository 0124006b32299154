import { afterEach, expect, test, vi } from "vitest";
import { bytesOf, type Progress } from "../src/download.js";

afterEach(() => vi.unstubAllGlobals());

function inChunks(chunks: number[][], init?: ResponseInit): Response {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(new Uint8Array(chunk));
      controller.close();
    },
  });
  return new Response(body, init);
}

async function progressOf(response: Response): Promise<Progress[]> {
  const seen: Progress[] = [];
  await bytesOf(response, (progress) => seen.push(progress));
  return seen;
}

test("a response is read whole, with progress", async () => {
  const headers = { "content-length": "3" };
  expect([...(await bytesOf(inChunks([[1, 2], [3]], { headers })))]).toEqual([1, 2, 3]);
  expect(await progressOf(inChunks([[1, 2], [3]], { headers }))).toEqual([
    { loaded: 2, total: 3 },
    { loaded: 3, total: 3 },
  ]);
});

test("a total is given only where it is known", async () => {
  expect(await progressOf(inChunks([[1]]))).toEqual([{ loaded: 1, total: null }]);
  const headers = { "content-length": "3", "content-encoding": "br" };
  expect(await progressOf(inChunks([[1, 2, 3, 4]], { headers }))).toEqual([
    { loaded: 4, total: null },
  ]);
});

test("bytes, buffers and blobs are copied, a view without what lies around it", async () => {
  const bytes = new Uint8Array([1, 2, 3]);
  const view = bytes.subarray(1);
  expect(await bytesOf(view)).toEqual(view);
  expect((await bytesOf(view)).buffer.byteLength).toBe(2);
  expect(await bytesOf(bytes.buffer)).toEqual(bytes);
  expect((await bytesOf(bytes.buffer)).buffer).not.toBe(bytes.buffer);
  expect(await bytesOf(new Blob([bytes]))).toEqual(bytes);
});

test.each([
  [new Response("", { status: 404 }), "status 404"],
  [new Response("", { headers: { "content-type": "text/html" } }), "an HTML page"],
])("an answer that is no bundle says so (%#)", async (response, message) => {
  await expect(bytesOf(response)).rejects.toMatchObject({
    code: "download",
    message: expect.stringContaining(message),
  });
});

test("a network error names the address", async () => {
  vi.stubGlobal("fetch", () => Promise.reject(new TypeError("refused")));
  await expect(bytesOf("./m.safetensors")).rejects.toMatchObject({
    code: "download",
    message: expect.stringContaining("./m.safetensors"),
  });
});

test("aborting a download rejects with the reason and stops reading", async () => {
  let cancelled = false;
  const body = new ReadableStream({
    pull(stream) {
      stream.enqueue(new Uint8Array(1));
    },
    cancel() {
      cancelled = true;
    },
  });
  const controller = new AbortController();
  const reading = bytesOf(new Response(body), () => controller.abort(), controller.signal);
  await expect(reading).rejects.toMatchObject({ name: "AbortError" });
  expect(cancelled).toBe(true);
});
