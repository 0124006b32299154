import { getEventListeners } from "node:events";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type DownloadOptions, download, type Progress, UNCHANGED } from "../src/download.js";
import { bundleOf } from "../src/source.js";

beforeEach(() => {
  // Nobody waits for the pauses between attempts.
  vi.useFakeTimers();
  vi.setTimerTickMode("nextTimerAsync");
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

/** A body in chunks that breaks off at the end, if it is to. */
function body(chunks: number[][], breaks = false): ReadableStream<Uint8Array> {
  const left = [...chunks];
  return new ReadableStream({
    pull(stream) {
      const chunk = left.shift();
      if (chunk) stream.enqueue(new Uint8Array(chunk));
      else if (breaks) stream.error(new TypeError("network error"));
      else stream.close();
    },
  });
}

function inChunks(chunks: number[][], init?: ResponseInit): Response {
  return new Response(body(chunks), init);
}

/** An answer whose body breaks off, or one of another origin. */
const broken = (bytes: number[], init?: ResponseInit) => new Response(body([bytes], true), init);
const foreign = (response: Response) => Object.defineProperty(response, "type", { value: "cors" });

/** A part of a file that begins at a byte. */
const partAt = (from: number): ResponseInit => ({
  status: 206,
  headers: { etag: '"1"', "content-range": `bytes ${from}-99/*` },
});

/** Stubs `fetch` with these answers in turn; returns what it was asked for. */
function server(...answers: (Response | Error)[]): Headers[] {
  const asked: Headers[] = [];
  vi.stubGlobal("fetch", async (_: unknown, init: RequestInit) => {
    asked.push(new Headers(init.headers));
    const answer = answers[asked.length - 1] ?? new Error("one request too many");
    if (answer instanceof Error) throw answer;
    return answer;
  });
  return asked;
}

async function bytesOf(options: DownloadOptions = {}): Promise<number[]> {
  const found = await download("https://host/m.safetensors", options);
  if (found === UNCHANGED) throw new Error("unchanged");
  return [...found.bytes];
}

async function progressOf(response: Response): Promise<Progress[]> {
  const seen: Progress[] = [];
  await bundleOf(response, { onProgress: (progress) => seen.push(progress) });
  return seen;
}

test("a response is read whole, with progress", async () => {
  const headers = { "content-length": "3" };
  const { bytes, downloaded } = await bundleOf(inChunks([[1, 2], [3]], { headers }));
  expect([[...bytes], downloaded]).toEqual([[1, 2, 3], 3]);
  expect(await progressOf(inChunks([[1, 2], [3]], { headers }))).toEqual([
    { loaded: 2, total: 3 },
    { loaded: 3, total: 3 },
  ]);
});

test("a file of unknown length needs no more room than it takes", async () => {
  let room = 0;
  const sizes: number[] = [];
  class Bytes extends Uint8Array {
    // biome-ignore lint/suspicious/noExplicitAny: whatever the real one takes
    constructor(...from: any[]) {
      if (typeof from[0] === "number") {
        if (from[0] > room) throw new RangeError("Array buffer allocation failed");
        sizes.push(from[0]);
      }
      super(...(from as [number]));
    }
  }
  const pieces = [Array(80).fill(1), ...Array(30).fill([2])];
  const coming = () => new Response(body(pieces));
  vi.stubGlobal("Uint8Array", Bytes);
  room = 110;
  const { bytes } = await bundleOf(coming());
  expect([bytes.length, bytes[79], bytes[80]]).toEqual([110, 1, 2]);
  // Not one size a chunk: each costs a copy of all that has come.
  expect(sizes.length).toBeLessThan(12);
  room = 109;
  await expect(bundleOf(coming())).rejects.toMatchObject({
    code: "download",
    message: "the file has 110 bytes, more than this device has room for",
  });
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
  const copyOf = async (source: Uint8Array | ArrayBuffer | Blob) => (await bundleOf(source)).bytes;
  expect(await copyOf(view)).toEqual(view);
  expect((await copyOf(view)).buffer.byteLength).toBe(2);
  expect(await copyOf(bytes.buffer)).toEqual(bytes);
  expect((await copyOf(bytes.buffer)).buffer).not.toBe(bytes.buffer);
  expect(await copyOf(new Blob([bytes]))).toEqual(bytes);
});

test.each([
  [new Response("", { status: 404 }), "status 404"],
  [new Response("", { headers: { "content-type": "text/html" } }), "an HTML page"],
  [new Response("", { headers: { "content-type": "Text/HTML; charset=utf-8" } }), "an HTML page"],
])("an answer that is no bundle says so (%#)", async (response, message) => {
  await expect(bundleOf(response)).rejects.toMatchObject({
    code: "download",
    message: expect.stringContaining(message),
  });
});

test("a response that was fetched without CORS is refused by what it is", async () => {
  const opaque = new Response(null);
  Object.defineProperties(opaque, { type: { value: "opaque" }, status: { value: 0 } });
  await expect(bundleOf(opaque)).rejects.toMatchObject({
    code: "bad-request",
    message: expect.stringContaining("with CORS"),
  });
});

test("a network error names the address, and is not tried again where nothing came", async () => {
  const asked = server(new TypeError("refused"));
  await expect(bytesOf()).rejects.toMatchObject({
    code: "download",
    message: expect.stringMatching(/^https:\/\/host\/m.safetensors .*connect-src.*CORS/),
  });
  expect(asked).toHaveLength(1);
  await expect(bundleOf("no address")).rejects.toMatchObject({ code: "bad-request" });
});

test("a download that breaks off goes on where it was", async () => {
  const whole = { "content-length": "4", etag: '"1"' };
  const part = { "content-length": "2", etag: '"1"', "content-range": "bytes 2-3/4" };
  const seen: Progress[] = [];
  const asked = server(
    new Response(body([[1, 2]], true), { headers: whole }),
    new TypeError("still away"),
    new Response(body([[3, 4]]), { status: 206, headers: part }),
  );
  expect(await bytesOf({ onProgress: (at) => seen.push(at) })).toEqual([1, 2, 3, 4]);
  expect(asked.map((headers) => headers.get("range"))).toEqual([null, "bytes=2-", "bytes=2-"]);
  expect(seen).toEqual([
    { loaded: 2, total: 4 },
    { loaded: 4, total: 4 },
  ]);
});

test("a server that sends less than the rest of the file is asked for what is behind that", async () => {
  const part = (from: number, to: number) => ({
    status: 206,
    headers: {
      "content-length": `${to - from + 1}`,
      etag: '"1"',
      "content-range": `bytes ${from}-${to}/4`,
    },
  });
  const asked = server(
    new Response(body([[1]], true), { headers: { "content-length": "4", etag: '"1"' } }),
    new Response(body([[2, 3]]), part(1, 2)),
    new Response(body([[4]]), part(3, 3)),
  );
  expect(await bytesOf()).toEqual([1, 2, 3, 4]);
  expect(asked.map((headers) => headers.get("range"))).toEqual([null, "bytes=1-", "bytes=3-"]);
});

test.each([
  ["another version", { status: 206, headers: { etag: '"2"', "content-range": "bytes 2-3/4" } }],
  ["another place", { status: 206, headers: { etag: '"1"', "content-range": "bytes 0-3/4" } }],
  ["nothing behind it", { status: 416 }],
])("a part that does not fit is not joined: %s", async (_, init) => {
  const etag = { etag: '"1"' };
  let isLeft = false;
  const other = new ReadableStream({
    pull: (controller) => controller.enqueue(new Uint8Array([9, 9])),
    cancel: () => {
      isLeft = true;
    },
  });
  const asked = server(
    new Response(body([[1, 2]], true), { headers: etag }),
    new Response(other, init),
    new Response(body([[5, 6, 7]]), { headers: etag }),
  );
  expect(await bytesOf()).toEqual([5, 6, 7]);
  expect(asked[2]?.has("range")).toBe(false);
  // Its connection is not kept open.
  expect(isLeft).toBe(true);
});

test("without a name for its version a file is downloaded from the start again", async () => {
  const asked = server(new Response(body([[1]], true)), new Response(body([[1, 2]])));
  expect(await bytesOf()).toEqual([1, 2]);
  expect(asked[1]?.has("range")).toBe(false);
});

test("a server that stalls, or ends too early, is asked again, and not for ever", async () => {
  const headers = { etag: '"1"', "content-length": "2" };
  const silent = new Response(new ReadableStream(), { headers });
  const short = new Response(body([[1]]), { headers });
  const rest = { etag: '"1"', "content-range": "bytes 1-1/2" };
  server(silent, short, new Response(body([[2]]), { status: 206, headers: rest }));
  expect(await bytesOf()).toEqual([1, 2]);
  const silence = () => new Response(new ReadableStream(), { headers });
  const asked = server(silence(), silence(), silence(), silence(), silence());
  await expect(bytesOf()).rejects.toMatchObject({ code: "download" });
  expect(asked).toHaveLength(4);
});

test("a server that takes the question and says nothing is given up", async () => {
  let given: AbortSignal | null | undefined;
  vi.stubGlobal("fetch", (_: unknown, init: RequestInit) => {
    given = init.signal;
    return new Promise(() => {});
  });
  await expect(bytesOf()).rejects.toMatchObject({
    code: "download",
    message: expect.stringContaining("nothing came for 30 seconds"),
  });
  expect(given?.aborted).toBe(true);
});

test("a signal that outlives a download keeps nothing of it, however many attempts it takes", async () => {
  const { signal } = new AbortController();
  const away = new TypeError("away");
  server(broken([1], { headers: { etag: '"1"' } }), away, new Response(body([[2]]), partAt(1)));
  expect(await bytesOf({ signal })).toEqual([1, 2]);
  expect(getEventListeners(signal, "abort")).toHaveLength(0);
});

test("aborting a download rejects with the reason and stops reading", async () => {
  let cancelled = false;
  const endless = new ReadableStream({
    pull(stream) {
      stream.enqueue(new Uint8Array(1));
    },
    cancel() {
      cancelled = true;
    },
  });
  const controller = new AbortController();
  const onProgress = () => controller.abort();
  const reading = bundleOf(new Response(endless), { onProgress, signal: controller.signal });
  await expect(reading).rejects.toMatchObject({ name: "AbortError" });
  expect(cancelled).toBe(true);
});

test("an abort ends the pause between two attempts", async () => {
  server(new Response(body([[1]], true)));
  const controller = new AbortController();
  const begin = performance.now();
  const reading = bytesOf({ signal: controller.signal });
  setTimeout(() => controller.abort(), 20);
  await expect(reading).rejects.toMatchObject({ name: "AbortError" });
  expect(performance.now() - begin).toBe(20);
});

test("attempts that bring something are not counted, but for those that never end", async () => {
  const first = broken([0], { headers: { etag: '"1"' } });
  const parts = Array.from({ length: 40 }, (_, at) => broken([at + 1], partAt(at + 1)));
  const end = new Response(body([[10]]), partAt(10));
  server(first, ...parts.slice(0, 9), end);
  expect(await bytesOf()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);

  const asked = server(broken([0], { headers: { etag: '"1"' } }), ...parts.slice(9));
  await expect(bytesOf()).rejects.toMatchObject({ code: "download" });
  expect(asked.length).toBeLessThan(30);
});

test.each([408, 429, 500, 503])(
  "a server that is busy (%d) when a download goes on is asked again",
  async (status) => {
    const begun = () => broken([1], { headers: { etag: '"1"' } });
    const busy = () => new Response("busy", { status });
    const asked = server(begun(), busy(), busy(), new Response(body([[2]]), partAt(1)));
    expect(await bytesOf()).toEqual([1, 2]);
    expect(asked[3]?.get("range")).toBe("bytes=1-");
    // Not before anything has come, and not for ever.
    const refused = server(busy());
    await expect(bytesOf()).rejects.toMatchObject({
      message: expect.stringContaining(`${status}`),
    });
    expect(refused).toHaveLength(1);
    const more = server(begun(), busy(), busy(), busy(), busy(), busy());
    await expect(bytesOf()).rejects.toMatchObject({
      message: expect.stringContaining(`${status}`),
    });
    // Four that bring nothing, after one that did.
    expect(more).toHaveLength(5);
  },
);

test.each(["offline", "busy", "silent", "stalled"] as const)(
  "who has something else waits four seconds for a download to go on (%s)",
  async (how) => {
    vi.setTimerTickMode("manual");
    vi.stubGlobal("navigator", { onLine: how !== "offline" });
    const stalled = new ReadableStream({ start: (stream) => stream.enqueue(new Uint8Array([1])) });
    const begun = () => {
      if (how === "stalled") return new Response(stalled, { headers: { etag: '"1"' } });
      return broken([1], { headers: { etag: '"1"' } });
    };
    const after = () => {
      if (how === "offline") return Promise.reject(new TypeError("offline"));
      if (how === "silent") return new Promise<Response>(() => {});
      const headers = { "retry-after": "30" };
      return Promise.resolve(new Response("busy", { status: 503, headers }));
    };
    let requests = 0;
    vi.stubGlobal("fetch", () => (requests++ === 0 ? Promise.resolve(begun()) : after()));
    const begin = performance.now();
    const ended = bytesOf({ patience: 4000 }).catch(({ code }) => [code, performance.now()]);
    await vi.advanceTimersByTimeAsync(100_000);
    const [code, end] = (await ended) as [string, number];
    expect(code).toBe("download");
    expect(end - begin).toBeLessThan(5000);
    // What has stalled for as long is not asked for again.
    if (how === "stalled") expect(requests).toBe(1);
    else expect(requests).toBeGreaterThan(1);
  },
);

test("a file that is gone when a download goes on is not asked for again", async () => {
  const begun = broken([1], { headers: { etag: '"1"' } });
  const asked = server(begun, new Response("gone", { status: 404 }));
  await expect(bytesOf()).rejects.toMatchObject({ message: expect.stringContaining("404") });
  expect(asked).toHaveLength(2);
});

test.each([
  ["7", 7000],
  ["3600", 30_000],
  [new Date(Date.UTC(2030, 0, 1, 0, 0, 9)).toUTCString(), 9000],
])("the pause that a server asks for is kept, up to half a minute (%s)", async (after, pause) => {
  vi.setTimerTickMode("manual");
  vi.setSystemTime(Date.UTC(2030, 0, 1));
  const headers = { "retry-after": after };
  const begun = broken([1], { headers: { etag: '"1"' } });
  const busy = new Response("busy", { status: 503, headers });
  const asked = server(begun, busy, new Response(body([[2]]), partAt(1)));
  const reading = bytesOf();
  await vi.advanceTimersByTimeAsync(600);
  expect(asked).toHaveLength(2);
  // A date is taken as it stands when it is read, half a second after the first attempt.
  await vi.advanceTimersByTimeAsync(pause - 700);
  expect(asked).toHaveLength(2);
  await vi.advanceTimersByTimeAsync(700);
  expect(await reading).toEqual([1, 2]);
});

test("a device that is offline goes on when it is online again", async () => {
  const page = new EventTarget();
  const navigator = { onLine: false };
  vi.stubGlobal("navigator", navigator);
  vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
  vi.stubGlobal("removeEventListener", page.removeEventListener.bind(page));
  const begun = () => broken([1], { headers: { etag: '"1"' } });
  const asked = server(begun(), new Response(body([[2]]), partAt(1)));
  vi.setTimerTickMode("manual");
  const reading = bytesOf();
  await vi.advanceTimersByTimeAsync(30_000);
  expect(asked).toHaveLength(1);
  navigator.onLine = true;
  page.dispatchEvent(new Event("online"));
  expect(await reading).toEqual([1, 2]);

  navigator.onLine = false;
  server(begun());
  const controller = new AbortController();
  const aborted = expect(bytesOf({ signal: controller.signal })).rejects.toMatchObject({
    name: "AbortError",
  });
  setTimeout(() => controller.abort(), 10_000);
  await vi.advanceTimersByTimeAsync(10_000);
  await aborted;
});

test("an answer of another origin may be compressed, unless its header says otherwise", async () => {
  const headers = { etag: '"1"', "content-length": "4" };
  // The compressed bytes are more than those that are read.
  server(foreign(inChunks([[1, 2, 3]], { headers })));
  expect(await bytesOf()).toEqual([1, 2, 3]);
  let asked = server(
    foreign(broken([1, 2], { headers })),
    foreign(inChunks([[1, 2, 3]], { headers })),
  );
  expect(await bytesOf()).toEqual([1, 2, 3]);
  expect(asked[1]?.has("range")).toBe(false);

  const plain = { ...headers, "content-encoding": "identity" };
  const rest = { ...plain, "content-length": "2", "content-range": "bytes 2-3/4" };
  asked = server(
    foreign(inChunks([[1, 2]], { headers: plain })),
    foreign(inChunks([[3, 4]], { status: 206, headers: rest })),
  );
  expect(await bytesOf()).toEqual([1, 2, 3, 4]);
  expect(asked[1]?.get("range")).toBe("bytes=2-");
});
