import { readFile } from "node:fs/promises";
import { beforeAll, expect, test } from "vitest";
import init, { Session } from "../pkg/tigret_infer.js";
import { WARM_UP_REQUEST, warmUpBundle } from "../src/warm-up.js";

beforeAll(async () => {
  const module = await readFile(new URL("../pkg/tigret_infer_bg.wasm", import.meta.url));
  await init({ module_or_path: module });
});

test("the module computes with the warm-up's model as with any other", async () => {
  const session = await Session.load(warmUpBundle(), false);
  const { items, unknown } = await session.recommend(JSON.stringify(WARM_UP_REQUEST), false);
  expect(unknown).toEqual([]);
  expect(items).toHaveLength(WARM_UP_REQUEST.top);
  // All weights are alike, so all 34 tokens are at each of the two levels.
  for (const { score } of items) expect(score).toBeCloseTo(-2 * Math.log(34), 3);
  session.free();
});
