import { expect, test } from "vitest";
import { HistoryStore, Recommender } from "../src/index.js";
import { fakeWorkers } from "./fake-worker.js";

const isObject = (value: unknown): value is object => typeof value === "object" && value !== null;

/** What Vue's `ref` does: a deep proxy of what its tag calls an object or an array. */
function reactive<T>(value: T): T {
  const tag = Object.prototype.toString.call(value);
  if (!isObject(value) || !["[object Object]", "[object Array]"].includes(tag)) return value;
  return new Proxy(value, {
    get: (target, key, receiver) => reactive(Reflect.get(target, key, receiver)),
  });
}

test("what a framework keeps in its state works: its proxies would have no private fields", async () => {
  const { worker } = fakeWorkers();
  const state = reactive({
    recommender: await Recommender.load(new Uint8Array(1), { backend: "cpu", worker }),
    history: new HistoryStore(),
  });
  expect(await state.recommender.recommend({ history: ["a"] })).toHaveLength(1);
  await state.history.add("b");
  expect(await state.history.list()).toEqual(["b"]);
});

test("options may be a framework's proxies", async () => {
  const { made, worker } = fakeWorkers();
  const { gpu, asked } = reactive({
    gpu: { halves: false },
    asked: { history: ["a"], exclude: ["b"] },
  });
  const recommender = await Recommender.load(new Uint8Array(1), { backend: "cpu", gpu, worker });
  await recommender.recommend(asked);
  expect(() => structuredClone(made[0]?.calls)).not.toThrow();
});

test("a pick that comes back as a framework's proxy is still one", async () => {
  const { made, worker } = fakeWorkers();
  const recommender = await Recommender.load(new Uint8Array(1), { backend: "cpu", worker });
  const state = reactive({ picks: await recommender.recommend({ history: ["a"], beams: 7 }) });
  const [pick] = state.picks;
  if (!pick) throw new Error("no pick");
  await recommender.explain(pick);
  const call = made[0]?.calls.at(-1);
  expect(call).toMatchObject({ item: "a", request: { history: ["a"], beams: 7 } });
  // Workers take no proxies.
  expect(() => structuredClone(call)).not.toThrow();

  // A store may have spread it.
  await recommender.explain({ ...pick });
  expect(made[0]?.calls.at(-1)).toEqual({ ...call, id: expect.any(Number) });
  expect(made[0]?.calls.at(-1)).not.toBe(call);

  // React sends no object with symbols from a server to a browser.
  expect(Reflect.ownKeys(pick)).toEqual(["id", "score", "codes"]);
  expect(JSON.parse(JSON.stringify(pick))).toEqual({ id: "a", score: -1, codes: [0, 1] });
  // Another recommender does not take it, nor is a copy of the codes one of the pick.
  const other = await Recommender.load(new Uint8Array(1), { backend: "cpu", worker });
  const copies = [structuredClone({ ...pick, codes: [...pick.codes] }), { id: "a" } as typeof pick];
  for (const strange of [other.explain(pick), ...copies.map((copy) => recommender.explain(copy))]) {
    await expect(strange).rejects.toMatchObject({ code: "bad-request" });
  }
});
