import { expect, test } from "vitest";
import { Recommender } from "../src/index.js";
import { Failure, fakeWorkers } from "./fake-worker.js";

const BUNDLE = new Uint8Array(8);

test("added items have semantic IDs and count", async () => {
  const { made, worker } = fakeWorkers();
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  const added = await recommender.addItems([
    { id: "x", embedding: [1, 2] },
    { id: "y", embedding: new Float64Array([3, 4]) },
  ]);
  expect(added).toEqual([
    { id: "x", codes: [1, 1] },
    { id: "y", codes: [1, 1] },
  ]);
  expect(recommender.info.items).toBe(5);
  expect(made[0]?.calls.at(-1)).toMatchObject({
    method: "add",
    ids: ["x", "y"],
    embeddings: new Float32Array([1, 2, 3, 4]),
    width: 2,
  });
});

test("added items outlive a crashed worker", async () => {
  let crashes = 1;
  const { made, worker } = fakeWorkers({
    before: (call) => {
      if (call.method === "recommend" && crashes-- > 0) throw new Failure("crash");
    },
  });
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  await recommender.addItems([{ id: "x", embedding: [1, 2] }]);
  await recommender.recommend({ history: ["x"] });
  expect(made).toHaveLength(2);
  expect(made[1]?.calls.map((call) => call.method)).toEqual(["load", "add", "recommend"]);
  expect(recommender.info.items).toBe(4);
});

test("what cannot be added is refused by name before the worker is asked", async () => {
  const { made, worker } = fakeWorkers();
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  for (const [items, message] of [
    [{ id: "x" }, "the items are an object, not an array"],
    [new Array(1), "items[0]: the options are undefined"],
    [[{ id: 7, embedding: [1, 2] }], "items[0].id is 7, not a string"],
    [[{ id: "\udc00x", embedding: [1, 2] }], "items[0].id holds half a character"],
    [new Array(2 ** 32 - 1), "4294967295 items are more than there is memory for"],
    [[{ id: "x", embedding: [1] }], 'the embedding of item "x" has 1 numbers; this model needs 2'],
    [[{ id: "x", embedding: "ab" }], 'the embedding of item "x" is "ab"; this model needs 2'],
    [[{ id: "x", embedding: [1, Number.NaN] }], 'number 1 of the embedding of item "x" is NaN'],
    [
      [{ id: "x", embedding: [1n, 2] }],
      'number 0 of the embedding of item "x" is 1n, not a number',
    ],
    [[{ id: "x", embedding: [1, -1e20] }], "is -100000000000000000000, not a number from -1e15 to"],
    [[{ id: "x", embeding: [1, 2] }], 'there is no option "embeding"'],
  ] as const) {
    const adding = recommender.addItems(items as never);
    await expect(adding).rejects.toMatchObject({ code: "bad-request" });
    await expect(adding).rejects.toThrow(message);
  }
  expect(made[0]?.calls).toHaveLength(1);
});

test("a model without a tokenizer takes no items, and says how to get one that does", async () => {
  const { worker } = fakeWorkers({ embedding: null });
  const recommender = await Recommender.load(BUNDLE, { backend: "cpu", worker });
  const adding = recommender.addItems([]);
  await expect(adding).rejects.toMatchObject({ code: "no-tokenizer" });
  await expect(adding).rejects.toThrow("--with-tokenizer");
});

test("items that are too many for the GPU are refused, and none is added", async () => {
  const { worker } = fakeWorkers({
    before: ({ method }) => {
      if (method === "add") throw new Failure("no-gpu", "too many");
    },
  });
  const recommender = await Recommender.load(BUNDLE, { backend: "webgpu", worker });
  const adding = recommender.addItems([{ id: "x", embedding: [1, 2] }]);
  await expect(adding).rejects.toMatchObject({ code: "no-gpu", message: "too many" });
  expect([recommender.engine, recommender.info.items]).toEqual(["webgpu", 3]);
});
