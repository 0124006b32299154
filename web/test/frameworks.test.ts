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

  // Nobody sees what it carries, and another recommender does not take it.
  expect([Object.keys(pick), JSON.parse(JSON.stringify(pick))]).toEqual([
    ["id", "score", "codes"],
    { id: "a", score: -1, codes: [0, 1] },
  ]);
  const other = await Recommender.load(new Uint8Array(1), { backend: "cpu", worker });
  for (const strange of [other.explain(pick), recommender.explain({ ...pick })]) {
    await expect(strange).rejects.toMatchObject({ code: "bad-request" });
  }
});
