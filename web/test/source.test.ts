import { runInNewContext } from "node:vm";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { keep, settled } from "../src/cache.js";
import { forgetFromNowOn, listen } from "../src/erasure.js";
import { bundleOf } from "../src/source.js";

const URL_OF_MODEL = "https://host/m.safetensors";
const HASH_OF_123 = "039058c6f2c0cb492c533b0a4d14ef77cc0f78abccced5287d84a1a2011cfb81";
const BASE64_OF_123 = "A5BYxvLAy0ksUzsKTRTvd8wPeKvMztUofYShogEc+4E=";

type Entries = Map<string, { bytes: Uint8Array<ArrayBuffer>; headers: Headers }>;

/** The Cache API in memory. */
class Caches {
  readonly #all = new Map<string, Entries>();
  /** What was given: as long as it is not read, it takes room, deleted or not. */
  readonly #given: { response: Response; bytes: Uint8Array }[] = [];
  full = false;
  /** Bytes that there is room for; what replaces another needs some beside it. */
  room = Number.POSITIVE_INFINITY;

  #of(name: string): Entries {
    const entries = this.#all.get(name) ?? new Map();
    this.#all.set(name, entries);
    return entries;
  }

  get #used(): number {
    const entries = [...this.#all.values()].flatMap((entries) => [...entries.values()]);
    const held = this.#given.filter(({ response }) => !response.bodyUsed);
    const all = new Set([...entries, ...held].map(({ bytes }) => bytes));
    return [...all].reduce((used, { length }) => used + length, 0);
  }

  /** The bundles. */
  get entries(): Entries {
    return this.#of("tigret");
  }

  /** The addresses of all entries of all caches. */
  get addresses(): string[] {
    const keys = [...this.#all.values()].flatMap((entries) => [...entries.keys()]);
    return keys.map((key) => decodeURIComponent(key.split("/__tigret__/")[1] ?? key));
  }

  async open(name: string): Promise<Partial<Cache>> {
    const entries = this.#of(name);
    return {
      match: async (key) => {
        const entry = entries.get(String(key));
        if (!entry) return undefined;
        const { bytes, headers } = entry;
        const response = new Response(bytes, { headers });
        this.#given.push({ response, bytes });
        return response;
      },
      put: async (key, response) => {
        const bytes = new Uint8Array(await response.arrayBuffer());
        const isFull = this.full || this.#used + bytes.length > this.room;
        if (isFull) throw new DOMException("full", "QuotaExceededError");
        entries.set(String(key), { bytes, headers: response.headers });
      },
      delete: async (key) => entries.delete(String(key)),
      keys: async () => [...entries.keys()].map((url) => ({ url }) as Request),
    };
  }

  async delete(name: string): Promise<boolean> {
    return this.#all.delete(name);
  }

  /** Puts other bytes into every entry. */
  poison(): void {
    for (const entry of this.entries.values()) entry.bytes = new Uint8Array([6, 6, 6]);
  }
}

let caches: Caches;
/** What the server does, and what it was asked. */
let serve: (headers: Headers) => Response;
let asked: Headers[];
let modes: (RequestCache | undefined)[];

beforeEach(() => {
  caches = new Caches();
  asked = [];
  modes = [];
  serve = () => new Response(new Uint8Array([1, 2, 3]), { headers: { etag: '"1"' } });
  vi.stubGlobal("caches", caches);
  vi.stubGlobal("location", new URL("https://host/page/"));
  vi.stubGlobal("origin", "https://host");
  vi.stubGlobal("fetch", async (_: unknown, init: RequestInit) => {
    const headers = new Headers(init.headers);
    asked.push(headers);
    modes.push(init.cache);
    return serve(headers);
  });
});

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

const unreachable = () => {
  throw new TypeError("offline");
};

async function load(options = {}, url = URL_OF_MODEL): Promise<[number[], number]> {
  const found = await bundleOf(url, options);
  const { bytes, downloaded } = found;
  found.keep(new Blob([bytes]));
  await settled();
  return [[...bytes], downloaded];
}

test("the second visit asks whether the copy is current, and downloads nothing if it is", async () => {
  expect(await load()).toEqual([[1, 2, 3], 3]);
  serve = () => new Response(null, { status: 304 });
  const seen: unknown[] = [];
  expect(await load({ onProgress: (at: unknown) => seen.push(at) })).toEqual([[1, 2, 3], 0]);
  expect(asked[1]?.get("if-none-match")).toBe('"1"');
  expect(seen).toEqual([{ loaded: 3, total: 3 }]);
});

test("what was on its way when all was forgotten is not kept, and what comes later is", async () => {
  serve = () => {
    forgetFromNowOn();
    return new Response(new Uint8Array([1, 2, 3]), { headers: { etag: '"1"' } });
  };
  expect(await load()).toEqual([[1, 2, 3], 3]);
  expect(caches.addresses).toEqual([]);
  serve = () => new Response(new Uint8Array([1, 2, 3]), { headers: { etag: '"1"' } });
  await load();
  expect(caches.entries.size).toBe(1);
});

test("nor is it kept where it is asked for once more", async () => {
  const good = new Uint8Array([1, 2, 3]);
  const changes = [
    // Changed on the way, once.
    { integrity: HASH_OF_123, first: () => new Response(new Uint8Array([9])) },
    // The copy that is current is damaged.
    { kept: true, first: () => new Response(null, { status: 304 }) },
    // So is the one that would serve in the server's place.
    { kept: true, first: () => new Response(null, { status: 503 }) },
  ];
  for (const { kept = false, first, ...options } of changes) {
    serve = () => new Response(good, { headers: { etag: '"1"' } });
    if (kept) await load();
    caches.poison();
    let answers = 0;
    serve = () => {
      if (answers++ > 0) return new Response(good);
      forgetFromNowOn();
      return first();
    };
    expect(await load(options)).toEqual([[1, 2, 3], 3]);
    expect([answers > 1, caches.addresses], `${first}`).toEqual([true, []]);
  }
  // Nor where no engine takes the first.
  serve = () => new Response(good);
  const found = await bundleOf(URL_OF_MODEL);
  forgetFromNowOn();
  (await found.again())?.keep(new Blob([good]));
  await settled();
  expect(caches.addresses).toEqual([]);
});

/** What another page of the origin does that forgets, and the time until this one hears of it. */
async function forgetElsewhere(): Promise<void> {
  const other = new BroadcastChannel("tigret:forget");
  other.postMessage(null);
  await new Promise((resolve) => setTimeout(resolve, 20));
  other.close();
}

test("what another page forgets while it is on its way here is not kept", async () => {
  const deaf = listen();
  const found = await bundleOf(URL_OF_MODEL);
  await forgetElsewhere();
  found.keep(new Blob([found.bytes]));
  await settled();
  expect(caches.addresses).toEqual([]);
  deaf();
  // What is not under way hears nothing, and has nothing to lose.
  await forgetElsewhere();
  await load();
  expect(caches.entries.size).toBe(1);
});

test("what another page forgets while it is being written here leaves no cache", async () => {
  const { open } = caches;
  caches.open = async (name) => {
    const cache = await open.call(caches, name);
    const put = async (...entry: Parameters<Cache["put"]>) => {
      await forgetElsewhere();
      await cache.put?.(...entry);
    };
    return { ...cache, put };
  };
  const deleted = vi.spyOn(caches, "delete");
  await load();
  expect(caches.addresses).toEqual([]);
  expect(deleted.mock.calls.flat().sort()).toEqual(["tigret", "tigret-uses"]);
});

test("what is still being written when all is forgotten takes nothing away that came since", async () => {
  const { open } = caches;
  let end = () => {};
  const gate = new Promise<void>((resolve) => (end = resolve));
  caches.open = async (name) => {
    const cache = await open.call(caches, name);
    const put = async (...entry: Parameters<Cache["put"]>) => {
      if (String(entry[0]).endsWith("slow")) await gate;
      await cache.put?.(...entry);
    };
    return { ...cache, put };
  };
  const keepSoon = async (name: string) => {
    keep(`https://host/${name}`, new Blob(["new"]), Promise.resolve(HASH_OF_123), null);
    await new Promise((resolve) => setTimeout(resolve, 10));
  };
  await keepSoon("slow");
  forgetFromNowOn();
  for (const name of ["tigret", "tigret-uses"]) await caches.delete(name);
  await keepSoon("new");
  end();
  await settled();
  expect(caches.addresses).toEqual(["https://host/new", "https://host/new"]);
});

test("nobody waits for a hash that is not asked for, and it is that of the bytes as they came", async () => {
  const { subtle } = globalThis.crypto;
  let go = () => {};
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  let hashed = 0;
  const digest = async (name: string, bytes: BufferSource) => {
    hashed++;
    const hash = await subtle.digest(name, bytes);
    await gate;
    return hash;
  };
  vi.stubGlobal("crypto", { subtle: { digest } });
  const found = await bundleOf(URL_OF_MODEL);
  found.keep(new Blob([found.bytes]));
  // To the engine.
  structuredClone(found.bytes, { transfer: [found.bytes.buffer] });
  expect(caches.entries.size).toBe(0);
  go();
  await settled();
  const [entry] = caches.entries.values();
  expect([...(entry?.bytes ?? [])]).toEqual([1, 2, 3]);
  expect([...(entry?.headers.values() ?? [])]).toContain(HASH_OF_123);

  await load({ cache: false });
  expect(hashed).toBe(1);
});

test("what cannot be hashed is not kept", async () => {
  const digest = async () => {
    throw new Error("too little memory");
  };
  vi.stubGlobal("crypto", { subtle: { digest } });
  expect(await load()).toEqual([[1, 2, 3], 3]);
  expect(caches.entries.size).toBe(0);
});

test("another origin is not asked with a header that it may refuse", async () => {
  vi.stubGlobal("origin", "https://elsewhere");
  await load();
  serve = () => new Response(new Uint8Array([4]), { headers: { etag: '"2"' } });
  expect(await load()).toEqual([[4], 1]);
  expect(asked[1]?.has("if-none-match")).toBe(false);
});

test.each(["about:srcdoc", "blob:https://host/1"])(
  "a copy serves where the address of the page is %s",
  async (here) => {
    vi.stubGlobal("location", new URL(here));
    await load();
    serve = () => new Response(null, { status: 304 });
    expect(await load()).toEqual([[1, 2, 3], 0]);
  },
);

/** What an address that leads to another origin answers: that one allows no header of ours. */
const elsewhere = (headers: Headers) => {
  if (headers.has("if-none-match")) throw new TypeError("Failed to fetch");
  const answer = new Response(new Uint8Array([4]), { headers: { etag: '"2"' } });
  return Object.defineProperty(answer, "type", { value: "cors" });
};

test("an address that leads to another origin is asked with no header that this one may refuse", async () => {
  serve = elsewhere;
  await load();
  await load();
  expect(asked.map((headers) => headers.has("if-none-match"))).toEqual([false, false]);
});

test("a copy of before the address led to another origin is replaced", async () => {
  await load();
  serve = elsewhere;
  expect(await load()).toEqual([[4], 1]);
  expect(await load()).toEqual([[4], 1]);
  const conditional = asked.map((headers) => headers.has("if-none-match"));
  expect(conditional).toEqual([false, true, false, false]);
});

test("a new version takes the place of the old one", async () => {
  await load();
  serve = () => new Response(new Uint8Array([4]), { headers: { etag: '"2"' } });
  expect(await load()).toEqual([[4], 1]);
  expect(caches.entries.size).toBe(1);
  serve = unreachable;
  expect(await load()).toEqual([[4], 0]);
});

test("offline, or where the server fails, the copy serves; where the file is gone it does not", async () => {
  await load();
  serve = unreachable;
  expect(await load()).toEqual([[1, 2, 3], 0]);
  for (const status of [400, 401, 403, 408, 429, 500, 503]) {
    serve = () => new Response("", { status });
    expect(await load(), `${status}`).toEqual([[1, 2, 3], 0]);
  }
  serve = () => new Response("<html>", { headers: { "content-type": "text/html" } });
  expect(await load()).toEqual([[1, 2, 3], 0]);
  for (const status of [404, 410]) {
    serve = () => new Response("", { status });
    await expect(load(), `${status}`).rejects.toMatchObject({ code: "download" });
  }
});

test("a server that does not answer costs who has a copy four seconds", async () => {
  await load();
  const answer = fetch;
  vi.stubGlobal("fetch", (url: string, init: RequestInit) => {
    void answer(url, init);
    return new Promise(() => {});
  });
  const timers = ["setTimeout", "clearTimeout", "setInterval", "clearInterval"] as const;
  vi.useFakeTimers({ toFake: [...timers, "performance"] });
  const asks = async (times: number) => {
    while (asked.length < times) await new Promise((resolve) => setImmediate(resolve));
  };
  const loading = load();
  await asks(2);
  await vi.advanceTimersByTimeAsync(4000);
  expect(await loading).toEqual([[1, 2, 3], 0]);

  // A copy that is no good is none, and the server has its time.
  caches.poison();
  const late = load();
  await asks(3);
  await vi.advanceTimersByTimeAsync(4000);
  await asks(4);
  const refused = expect(late).rejects.toThrow("nothing came for 30 seconds");
  await vi.advanceTimersByTimeAsync(30_000);
  await refused;
});

test.each([HASH_OF_123, HASH_OF_123.toUpperCase(), `sha256-${BASE64_OF_123}`])(
  "with integrity a copy is used without asking (%#)",
  async (integrity) => {
    expect(await load({ integrity })).toEqual([[1, 2, 3], 3]);
    expect(await load({ integrity })).toEqual([[1, 2, 3], 0]);
    expect(asked).toHaveLength(1);
  },
);

test("another file than the one that is meant is refused, wherever it comes from", async () => {
  const integrity = "0".repeat(64);
  await expect(load({ integrity })).rejects.toMatchObject({
    code: "integrity",
    message: expect.stringContaining(HASH_OF_123),
  });
  expect(caches.entries.size).toBe(0);
  const bytes = new Uint8Array([1, 2, 3]);
  await expect(bundleOf(bytes, { integrity })).rejects.toMatchObject({ code: "integrity" });
  expect((await bundleOf(bytes, { integrity: HASH_OF_123 })).downloaded).toBe(0);
});

test("a copy that was changed on the device is not used", async () => {
  await load();
  caches.poison();
  expect(await load({ integrity: HASH_OF_123 })).toEqual([[1, 2, 3], 3]);
  caches.poison();
  serve = (headers) =>
    headers.has("if-none-match")
      ? new Response(null, { status: 304 })
      : new Response(new Uint8Array([1, 2, 3]));
  expect(await load()).toEqual([[1, 2, 3], 3]);
});

test("a full cache, none, or one that is denied costs nothing but the copy", async () => {
  caches.full = true;
  expect(await load()).toEqual([[1, 2, 3], 3]);
  vi.stubGlobal("caches", undefined);
  expect(await load()).toEqual([[1, 2, 3], 3]);
  const open = () => Promise.reject(new DOMException("denied", "SecurityError"));
  vi.stubGlobal("caches", { open });
  expect(await load()).toEqual([[1, 2, 3], 3]);
});

test.each(["open", "match"])("a cache that does not answer (%s) counts as none", async (silent) => {
  const { open } = caches;
  let answer = () => {};
  const silence = new Promise<never>((_, reject) => {
    answer = () => reject(new Error("too late"));
  });
  silence.catch(() => {});
  const never = () => silence;
  const opened = async (name: string) => ({ ...(await open.call(caches, name)), match: never });
  caches.open = silent === "open" ? never : opened;
  vi.useFakeTimers();
  const loading = bundleOf(URL_OF_MODEL);
  await vi.advanceTimersByTimeAsync(4000);
  expect([...(await loading).bytes]).toEqual([1, 2, 3]);
  // What is to be kept then holds up no later load for good.
  (await loading).keep(new Blob([new Uint8Array([1, 2, 3])]));
  const again = bundleOf(URL_OF_MODEL);
  await vi.advanceTimersByTimeAsync(4000);
  expect([...(await again).bytes]).toEqual([1, 2, 3]);
  answer();
  vi.useRealTimers();
  await settled();
});

test("a copy whose bytes do not come counts as none", async () => {
  await load();
  const { open } = caches;
  const silence = new Promise<never>(() => {});
  let answer = () => {};
  const dropped = new Promise<boolean>((resolve) => {
    answer = () => resolve(true);
  });
  caches.open = async (name) => ({
    ...(await open.call(caches, name)),
    match: async () =>
      ({
        headers: new Headers({ "x-tigret-sha256": HASH_OF_123 }),
        arrayBuffer: () => silence,
      }) as unknown as Response,
    delete: () => dropped,
  });
  vi.useFakeTimers();
  const options = { integrity: HASH_OF_123 };
  const loading = bundleOf(URL_OF_MODEL, options);
  await vi.advanceTimersByTimeAsync(30_000);
  // Nor is the cache waited for to drop it.
  expect((await loading).downloaded).toBe(3);
  answer();
  vi.useRealTimers();
  await settled();
});

test("a load that was aborted while its copy was read tells of no progress", async () => {
  await load();
  const { open } = caches;
  const controller = new AbortController();
  caches.open = async (name) => ({
    ...(await open.call(caches, name)),
    match: async () =>
      ({
        headers: new Headers({ "x-tigret-sha256": HASH_OF_123 }),
        arrayBuffer: async () => {
          controller.abort();
          return new Uint8Array([1, 2, 3]).buffer;
        },
      }) as unknown as Response,
  });
  const onProgress = vi.fn();
  const { signal } = controller;
  const loading = bundleOf(URL_OF_MODEL, { integrity: HASH_OF_123, signal, onProgress });
  await expect(loading).rejects.toMatchObject({ name: "AbortError" });
  expect(onProgress).not.toHaveBeenCalled();
});

test("where there is no room the bundle that was used longest ago makes some", async () => {
  vi.useFakeTimers({ toFake: ["Date"] });
  const at = (name: string) => `https://host/${name}`;
  caches.room = 6;
  for (const name of ["a", "b", "c"]) {
    await load({}, at(name));
    vi.setSystemTime(Date.now() + 1000);
  }
  expect([...new Set(caches.addresses)].sort()).toEqual([at("b"), at("c")]);
  // What is used now is not what goes.
  await load({ integrity: HASH_OF_123 }, at("b"));
  vi.setSystemTime(Date.now() + 1000);
  await load({}, at("d"));
  expect([...new Set(caches.addresses)].sort()).toEqual([at("b"), at("d")]);
});

test("where there is room for one version alone, the new one takes the place of the old", async () => {
  caches.room = 3;
  await load();
  serve = () => new Response(new Uint8Array([4, 5, 6]), { headers: { etag: '"2"' } });
  await load();
  serve = unreachable;
  expect(await load()).toEqual([[4, 5, 6], 0]);
});

test("a bundle that there can be no room for costs no other its place, nor does another failure", async () => {
  // Something else of the origin takes four bytes.
  const estimate = { quota: 10, usage: 10, usageDetails: { caches: 6 } };
  caches.room = 6;
  vi.stubGlobal("navigator", { storage: { estimate: async () => estimate } });
  const at = (name: string) => `https://host/${name}`;
  await load({}, at("a"));
  await load({}, at("b"));
  const before = [...caches.entries.keys()];
  serve = () => new Response(new Uint8Array(7));
  for (const name of ["a", "c", "c"]) await load({}, at(name));
  expect([...caches.entries.keys()]).toEqual(before);

  const { open } = caches;
  const put = () => Promise.reject(new DOMException("the disk failed", "UnknownError"));
  caches.open = async (name) => ({ ...(await open.call(caches, name)), put });
  for (const name of ["a", "c"]) {
    keep(at(name), new Blob(["new"]), Promise.resolve(HASH_OF_123), null);
    await settled();
  }
  expect([...caches.entries.keys()]).toEqual(before);
});

test("what no engine takes is not kept, and fetched once more past every cache", async () => {
  const found = await bundleOf(URL_OF_MODEL);
  expect(caches.entries.size).toBe(0);
  const better = await found.again();
  expect([better?.downloaded, await better?.again()]).toEqual([3, null]);
  await load();
  serve = () => new Response(null, { status: 304 });
  const copy = await bundleOf(URL_OF_MODEL);
  expect(copy.downloaded).toBe(0);
  serve = () => new Response(new Uint8Array([4]));
  expect((await copy.again())?.downloaded).toBe(1);
  await settled();
  expect(caches.entries.size).toBe(0);
  expect(modes).toEqual(["no-cache", "reload", "no-cache", "no-cache", "reload"]);
});

test("where no engine takes what the server sends by now, the copy is there still", async () => {
  await load();
  const junk = () => new Response(new Uint8Array([4]));
  const busy = () => new Response("busy", { status: 503 });
  const gone = () => new Response("no", { status: 404 });
  for (const [answers, copy] of [
    [
      [junk, junk],
      [1, 2, 3],
    ],
    [
      [junk, busy],
      [1, 2, 3],
    ],
    [[junk, gone], null],
  ] as const) {
    const left = [...answers, busy, busy, busy];
    serve = () => (left.shift() ?? busy)();
    let found = await bundleOf(URL_OF_MODEL);
    for (let next: typeof found | null = found; next; ) {
      found = next;
      next = found.downloaded > 0 ? await found.again().catch(() => null) : null;
    }
    expect(found.downloaded === 0 ? [...found.bytes] : null).toEqual(copy);
  }
  // No copy is what `integrity` means.
  serve = junk;
  const integrity = "0".repeat(64);
  await expect(bundleOf(URL_OF_MODEL, { integrity })).rejects.toMatchObject({ code: "integrity" });
});

test("a copy that no engine takes either is the last that is tried, and goes if it can", async () => {
  await load();
  serve = () => new Response(new Uint8Array([4]));
  const { open } = caches;
  const fail = () => Promise.reject(new DOMException("the disk failed", "UnknownError"));
  for (const [own, left] of [
    [{ delete: fail }, 1],
    [{}, 0],
  ] as const) {
    caches.open = async (name) => ({ ...(await open.call(caches, name)), ...own });
    asked.length = 0;
    const came: number[] = [];
    let found: Awaited<ReturnType<typeof bundleOf>> | null = await bundleOf(URL_OF_MODEL);
    while (found && came.length < 9) {
      came.push(found.downloaded);
      found = await found.again();
    }
    await settled();
    expect([came, asked.length, caches.entries.size]).toEqual([[1, 1, 0], 2, left]);
  }
});

test("a file that the browser kept as it was changed on the way is fetched past its cache", async () => {
  const good = serve;
  serve = () => (modes.at(-1) === "reload" ? good(new Headers()) : new Response("changed"));
  expect(await load({ integrity: HASH_OF_123 })).toEqual([[1, 2, 3], 3]);
});

test("a server that sends 304 to who has no copy is refused, and not asked for ever", async () => {
  serve = () => new Response(null, { status: 304 });
  await expect(load()).rejects.toMatchObject({
    code: "download",
    message: expect.stringContaining("status 304"),
  });
  expect(asked).toHaveLength(1);
});

test.each([5, null, Symbol("s"), Object.create(null), new Float32Array(2)])(
  "what is no source is refused (%#)",
  async (source) => {
    await expect(bundleOf(source as never)).rejects.toMatchObject({ code: "bad-request" });
    expect(asked).toHaveLength(0);
  },
);

test("bytes of another realm are bytes", async () => {
  const foreign = (code: string) => runInNewContext(code);
  for (const code of ["new Uint8Array([1, 2, 3])", "new Uint8Array([1, 2, 3]).buffer"]) {
    const source = foreign(code);
    expect(source instanceof Uint8Array || source instanceof ArrayBuffer).toBe(false);
    expect([...(await bundleOf(source)).bytes]).toEqual([1, 2, 3]);
  }
  await expect(bundleOf(foreign("new Float32Array(2)"))).rejects.toMatchObject({
    code: "bad-request",
  });
});

test("an address is read as the page's others are", async () => {
  const addresses: string[] = [];
  vi.stubGlobal("document", { baseURI: "https://host/base/" });
  vi.stubGlobal("fetch", async (url: string) => {
    addresses.push(url);
    return new Response("bundle");
  });
  await bundleOf("m.safetensors");
  vi.stubGlobal("document", undefined);
  await bundleOf("m.safetensors");
  expect(addresses).toEqual(["https://host/base/m.safetensors", "https://host/page/m.safetensors"]);
});

test("what cannot be read any more says so in the package's own words", async () => {
  const removed = new Blob(["bundle"]);
  removed.arrayBuffer = () => Promise.reject(new DOMException("gone", "NotReadableError"));
  await expect(bundleOf(removed)).rejects.toMatchObject({
    code: "download",
    message: expect.stringContaining("gone"),
  });
  const transferred = new Uint8Array(8);
  structuredClone(transferred, { transfer: [transferred.buffer] });
  for (const bytes of [transferred, transferred.buffer]) {
    await expect(bundleOf(bytes)).rejects.toMatchObject({ code: "bad-request" });
  }
  const read = new Response("bundle");
  await read.text();
  const locked = new Response("bundle");
  locked.body?.getReader();
  for (const response of [read, locked]) {
    await expect(bundleOf(response)).rejects.toMatchObject({
      code: "bad-request",
      message: expect.stringContaining("clone()"),
    });
  }
});

test("cache: false keeps nothing and uses nothing", async () => {
  await load();
  expect(await load({ cache: false })).toEqual([[1, 2, 3], 3]);
  expect(asked[1]?.has("if-none-match")).toBe(false);
});

test("integrity cannot be checked without HTTPS, and says so", async () => {
  vi.stubGlobal("crypto", {});
  await expect(load({ integrity: HASH_OF_123 })).rejects.toMatchObject({
    code: "integrity",
    message: expect.stringContaining("HTTPS"),
  });
  expect(await load()).toEqual([[1, 2, 3], 3]);
});

test.each(["sha256-short=", "md5-abc", 5, Object.create(null), "", `sha384-${BASE64_OF_123}`])(
  "what is no hash is refused (%#)",
  async (integrity) => {
    await expect(load({ integrity })).rejects.toMatchObject({ code: "bad-request" });
    expect(asked).toHaveLength(0);
  },
);

test("of addresses that change, those that are in use are kept, and all that is known of them", async () => {
  vi.useFakeTimers({ toFake: ["Date"] });
  const day = () => vi.setSystemTime(Date.now() + 24 * 3_600_000);
  const bundles = () => [...new Set(caches.addresses)].sort();
  const at = (rest: string) => `https://host/${rest}`;
  for (const url of [at("m?v=1"), at("other"), at("m?v=2#top")]) {
    await load({}, url);
    day();
  }
  expect(bundles()).toEqual([at("m?v=1"), at("m?v=2"), at("other")]);
  // The older one of two is used again, and stays.
  await load({ integrity: HASH_OF_123 }, at("m?v=1"));
  day();
  await load({}, at("m?v=3"));
  expect(bundles()).toEqual([at("m?v=1"), at("m?v=3"), at("other")]);
  for (let days = 0; days < 29; days++) day();
  await load({ integrity: HASH_OF_123 }, at("m?v=3"));
  await load({}, at("another"));
  expect(bundles()).toEqual([at("another"), at("m?v=3")]);
  // Nothing is left of them anywhere.
  expect(caches.addresses).toHaveLength(4);
});

test.each(["blob:https://host/1", "data:application/octet-stream,bundle"])(
  "what is on the device anyway is not kept (%s)",
  async (url) => {
    expect(await load({}, url)).toEqual([[1, 2, 3], 3]);
    expect(caches.addresses).toEqual([]);
  },
);

test("no message repeats an address however long it is", async () => {
  const long = `https://host/${"m".repeat(300_000)}`;
  const page = new Response("", { headers: { "content-type": "text/html" } });
  const loads: [string, Response | null, object][] = [
    [long, null, {}],
    [long, new Response(null, { status: 404 }), {}],
    [long, page, {}],
    [long, new Response("other"), { integrity: HASH_OF_123 }],
    [long.replace("host", "["), null, {}],
  ];
  for (const [url, answer, options] of loads) {
    vi.stubGlobal("fetch", async () => answer?.clone() ?? Promise.reject(new TypeError("no")));
    const { name, message } = await bundleOf(url, options).then(
      () => new Error("it came"),
      (error: Error) => error,
    );
    expect([name, message]).toEqual(["TigretError", expect.stringContaining(url.slice(0, 90))]);
    expect(message.length).toBeLessThan(500);
  }
});
