/** What the page says of the model: from `about.json` and the model itself. */

import type { ModelInfo } from "tigret";

/** What `about.json` may say; every part may be missing. */
export type About = Partial<Record<string, unknown>>;

export function count(number: number, one: string, many = `${one}s`): string {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** How good the model is, in sentences. */
export function inWords(about: About): string {
  const figure = (name: string) => (typeof about[name] === "number" ? about[name] : undefined);
  const sentences: string[] = [];
  if (about.simulated === true) {
    sentences.push(
      "The items are real; the readers this model learned from are simulated, with tastes drawn from a known rule.",
    );
  }
  const recall = figure("recall@10");
  if (recall !== undefined) {
    const percent = (value: number) => `${(100 * value).toFixed(1)} %`;
    const beside = [
      [figure("popularity recall@10"), "recommending what is popular"],
      [figure("optimum recall@10"), "the best possible"],
    ] as const;
    const others = beside.flatMap(([value, name]) =>
      value === undefined ? [] : [`${name}: ${percent(value)}`],
    );
    sentences.push(
      `In ${percent(recall)} of histories the next item is among the first ten recommendations${others.length ? ` (${others.join("; ")})` : ""}.`,
    );
  }
  return sentences.join(" ");
}

/** Sizes of the model, by name. */
export function facts(info: ModelInfo): [string, string][] {
  return [
    ["Model", `${(info.parameters / 1e6).toFixed(1)} M parameters, ${info.weightFormat}`],
    [
      "Layers",
      `${info.encoderLayers} encoder, ${info.decoderLayers} decoder, width ${info.dModel}`,
    ],
    [
      "Semantic IDs",
      `${info.levels.length} levels of ${[...new Set(info.levels)].join(", ")} codes`,
    ],
    ["Catalogue", count(info.items, "item")],
  ];
}
