import { expect, test } from "vitest";
import {
  checkLoadOptions,
  type LoadOptions,
  type RecommendOptions,
  toRequest,
} from "../src/options.js";

/** Options as a JavaScript caller may give them. */
const request = (options: Record<string, unknown>) =>
  toRequest({ history: [], ...options } as unknown as RecommendOptions);

test("the defaults are the contract's", () => {
  expect(request({})).toEqual({
    history: [],
    top: 20,
    beams: 50,
    exclude: [],
    exclude_history: false,
  });
});

test("every option reaches the engine under its name", () => {
  const options = { history: ["a"], user: "u", top: 3, beams: 4, exclude: ["b"], allow: [] };
  expect(request(options)).toEqual({ ...options, exclude_history: false });
  expect(request({ exclude: "history" })).toMatchObject({ exclude: [], exclude_history: true });
  expect(request({ userToken: 7 })).toMatchObject({ user_token: 7 });
  expect(request({ user: null })).not.toHaveProperty("user");
});

test("a sample has a temperature for each level or one, and a seed", () => {
  expect(request({ temperature: 1.5, seed: 7 })).toMatchObject({ temperature: [1.5], seed: 7 });
  expect(request({ temperature: [1, 2, 3, 4], seed: 0 })).toMatchObject({
    temperature: [1, 2, 3, 4],
    seed: 0,
  });
  const seeds = [1, 2, 3].map(() => request({ temperature: 1 }).seed);
  expect(new Set(seeds).size).toBe(3);
  for (const seed of seeds) {
    expect(seed).toSatisfy((n: number) => Number.isSafeInteger(n) && n >= 0);
  }
});

test("fewer beams than the default number of results return as many as there are", () => {
  expect(request({ beams: 5 }).top).toBe(5);
});

test.each([
  [{ beams: 0 }, "beams is 0, not a whole number from 1 to 512"],
  [{ beams: 513 }, "beams is 513"],
  [{ beams: 1.5 }, "beams is 1.5"],
  [{ beams: "50" }, 'beams is "50"'],
  [{ top: 51 }, "top is 51, not a whole number from 1 to 50"],
  [{ top: Number.NaN }, "top is NaN"],
  [{ history: "a" }, 'history is "a", not an array'],
  [{ history: ["a", 7] }, "history[1] is 7, not a string"],
  [{ exclude: "seen" }, 'exclude is "seen", not "history" or an array of item ids'],
  [{ allow: [null] }, "allow[0] is null"],
  [{ history: ["a", "\ud800"] }, "history[1] holds half a character"],
  [{ exclude: ["b\udc00"] }, "exclude[0] holds half a character"],
  [{ allow: ["\udc00\ud800"] }, "allow[0] holds half a character"],
  [{ user: 7 }, "user is 7"],
  [{ user: "" }, "user is an empty string; leave it out, or give null"],
  [{ user: "a\ud800" }, "user holds half a character"],
  [{ user: "u", userToken: 1 }, "user or userToken, not both"],
  [{ userToken: -1 }, "userToken is -1"],
  [{ temperature: 0 }, "temperature is 0, not a finite number above 0"],
  [{ temperature: -1 }, "temperature is -1"],
  [{ temperature: Number.NaN }, "temperature is NaN"],
  [{ temperature: [1, Number.POSITIVE_INFINITY] }, "temperature is Infinity"],
  [{ temperature: 1e-60 }, "temperature is 1e-60"],
  [{ temperature: "1" }, 'temperature is "1"'],
  [{ temperature: [] }, "temperature is an empty array"],
  [{ temperature: 1, seed: -1 }, "seed is -1"],
  [{ temperature: 1, seed: 2 ** 53 }, "seed is 9007199254740992"],
  [{ seed: 3 }, "seed is given, but no temperature"],
  [{ signal: {} }, "signal is an object, not an AbortSignal"],
  [{ beam: 5 }, 'no option "beam"'],
])("%j is refused with the option's name", (options, message) => {
  expect(() => request(options)).toThrow(
    expect.objectContaining({ code: "bad-request", message: expect.stringContaining(message) }),
  );
});

test("a list of ids in the place of the options is refused, also an empty one", () => {
  for (const list of [[], ["a"]]) {
    expect(() => toRequest(list as never)).toThrow("the options are an array, not an object");
  }
});

test("a long text is not quoted whole", () => {
  const history = JSON.stringify(Array(10_000).fill("id"));
  const message = expect.stringMatching(/^history is "\[.{0,200}, not an array of item ids$/);
  expect(() => request({ history })).toThrow(expect.objectContaining({ message }));
});

test.each([
  ["a function", () => "x".repeat(100_000)],
  ["a class", class {}],
  ["a long number", 10n ** 1000n],
  ["a long symbol", Symbol("x".repeat(100_000))],
])("%s is not quoted whole either", (_, top) => {
  expect(() => request({ top: top as never })).toThrow(/^top is .{1,101}, not/);
  const text = typeof top === "function" ? /^top is a function, not/ : /…/;
  expect(() => request({ top: top as never })).toThrow(text);
});

test("a call suits the model", () => {
  const model = { users: 10, levels: [4, 4, 4] };
  const suits = (options: RecommendOptions) => toRequest(options, undefined, model);
  expect(suits({ userToken: 9 }).user_token).toBe(9);
  expect(() => suits({ userToken: 10 })).toThrow("userToken is 10, not a whole number from 0 to 9");
  const none = { ...model, users: 0 };
  expect(() => toRequest({ userToken: 0 }, undefined, none)).toThrow("no user tokens");
  expect(suits({ temperature: [1, 2, 3] }).temperature).toHaveLength(3);
  expect(() => suits({ temperature: [1, 2] })).toThrow("temperature has 2 values");
});

test("options of load are checked too", () => {
  expect(() => checkLoadOptions({ backend: "gpu" } as never)).toThrow('backend is "gpu"');
  expect(() => checkLoadOptions({ onProgress: 1 } as never)).toThrow("onProgress is 1");
  expect(() => checkLoadOptions(null as never)).toThrow("options are null");
  expect(() => checkLoadOptions({ userId: "" })).toThrow('userId is "", not a string of at least');
  expect(() => checkLoadOptions({ userId: "\ud800" })).toThrow("userId holds half a character");
  expect(() => checkLoadOptions({ gpu: { halves: false, subgroups: true } })).not.toThrow();
  expect(() => checkLoadOptions({ gpu: { f16: false } } as never)).toThrow('no option "f16"');
  expect(() => checkLoadOptions({ gpu: { halves: 1 } } as never)).toThrow("gpu.halves is 1");
});

test("an option that is undefined is one that is not given, for the types too", () => {
  const nothing: Required<{ [K in keyof RecommendOptions]: undefined }> = {
    history: undefined,
    user: undefined,
    userToken: undefined,
    top: undefined,
    beams: undefined,
    exclude: undefined,
    allow: undefined,
    temperature: undefined,
    seed: undefined,
    latest: undefined,
    signal: undefined,
  };
  const options: RecommendOptions = nothing;
  expect(toRequest(options)).toEqual(toRequest({}));
  const load: LoadOptions = { gpu: { halves: undefined }, userId: undefined, signal: undefined };
  expect(() => checkLoadOptions(load)).not.toThrow();
});

test("a signal of another realm is one", () => {
  const { signal } = new AbortController();
  const foreign = {
    aborted: false,
    addEventListener: signal.addEventListener.bind(signal),
    removeEventListener: signal.removeEventListener.bind(signal),
    throwIfAborted: signal.throwIfAborted.bind(signal),
  };
  expect(foreign).not.toBeInstanceOf(AbortSignal);
  expect(() => request({ signal: foreign })).not.toThrow();
  for (const method of ["throwIfAborted", "addEventListener", "removeEventListener"]) {
    const partial = { ...foreign, [method]: undefined };
    expect(() => request({ signal: partial }), method).toThrow("not an AbortSignal");
  }
});
