/** The demo: a catalogue, a history, and what the model recommends after it. */

import { type Backend, type ModelInfo, Recommender, TigretError } from "tigret";
import { byId, make } from "./dom.js";
import { type Item, parseItems, search } from "./items.js";
import { catalogueEntry, historyEntry, pickEntry } from "./views.js";

const TOP = 20;
const BEAMS = [5, 10, 20, 50, 100, 200, 350, 512];
/** Entries of the catalogue that are added at a time. */
const PAGE = 60;

const page = {
  alert: byId("alert", HTMLDivElement),
  clear: byId("clear", HTMLButtonElement),
  history: byId("history", HTMLOListElement),
  historyEmpty: byId("history-empty", HTMLParagraphElement),
  status: byId("status", HTMLParagraphElement),
  progress: byId("progress", HTMLProgressElement),
  picks: byId("picks", HTMLOListElement),
  unknown: byId("unknown", HTMLParagraphElement),
  backends: byId("backends", HTMLDivElement),
  beams: byId("beams", HTMLInputElement),
  beamsValue: byId("beams-value", HTMLOutputElement),
  facts: byId("facts", HTMLDListElement),
  search: byId("search", HTMLInputElement),
  count: byId("count", HTMLSpanElement),
  items: byId("items", HTMLUListElement),
  more: byId("more", HTMLButtonElement),
  about: byId("about", HTMLParagraphElement),
};

const settings = byId("settings", HTMLDetailsElement);

let items: Item[] = [];
let byItemId = new Map<string, Item>();
let found: Item[] = [];
let shown = 0;
let history = readHash();
let recommender: Recommender | undefined;
let current = new AbortController();

/** The ids in `#history=id1,id2`. A comma inside an id is escaped, so it is split first. */
function readHash(): string[] {
  const ids = /^#history=(.*)$/.exec(location.hash)?.[1] ?? "";
  return ids.split(",").filter(Boolean).map(unescapeId);
}

function unescapeId(id: string): string {
  try {
    return decodeURIComponent(id);
  } catch {
    return id;
  }
}

function writeHash(): void {
  const ids = history.map(encodeURIComponent).join(",");
  const { pathname, search: query } = location;
  window.history.replaceState(null, "", ids ? `#history=${ids}` : pathname + query);
}

/** Shows an error until a call succeeds; what is no call's error stays. */
function fail(error: unknown, ofCall = false): void {
  page.alert.dataset.ofCall = String(ofCall);
  const message = error instanceof Error ? error.message : String(error);
  page.alert.textContent = message;
  page.alert.hidden = false;
}

function itemOf(id: string): Item {
  return byItemId.get(id) ?? { id, title: `Item ${id}`, byline: "", tags: [], hue: 0, text: "" };
}

function count(number: number, one: string, many = `${one}s`): string {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

// The catalogue.

function showCatalogue(): void {
  found = search(items, page.search.value);
  shown = 0;
  page.items.replaceChildren();
  page.count.textContent =
    found.length === items.length
      ? count(items.length, "item")
      : `${found.length.toLocaleString("en")} of ${count(items.length, "item")}`;
  showMore();
}

function showMore(): void {
  const liked = new Set(history);
  const next = found.slice(shown, shown + PAGE);
  page.items.append(...next.map((item) => catalogueEntry(item, liked.has(item.id))));
  shown += next.length;
  page.more.hidden = shown >= found.length;
}

function toggle(id: string): void {
  history = history.includes(id) ? history.filter((other) => other !== id) : [...history, id];
  historyChanged();
}

function historyChanged(): void {
  writeHash();
  showHistory();
  void recommend();
}

function showHistory(): void {
  page.history.replaceChildren(...history.map((id) => historyEntry(itemOf(id))));
  page.historyEmpty.hidden = history.length > 0;
  page.clear.hidden = history.length === 0;
  const liked = new Set(history);
  for (const button of page.items.querySelectorAll<HTMLButtonElement>("button[data-id]")) {
    button.ariaPressed = String(liked.has(button.dataset.id ?? ""));
  }
}

// The recommendations.

function beams(): number {
  return BEAMS[page.beams.valueAsNumber] ?? 50;
}

async function recommend(): Promise<void> {
  if (!recommender) return;
  current.abort();
  current = new AbortController();
  const { signal } = current;
  try {
    const width = beams();
    const { picks, unknown, engine, engineName, milliseconds } = await recommender.report({
      history,
      beams: width,
      top: Math.min(TOP, width),
      exclude: "history",
      signal,
    });
    const best = picks[0]?.score ?? 0;
    page.picks.replaceChildren(...picks.map((pick) => pickEntry(itemOf(pick.id), pick, best)));
    const name = engine === "cpu" ? "CPU" : `WebGPU (${engineName})`;
    page.status.textContent = `${count(picks.length, "item")} in ${milliseconds.toFixed(1)} ms · ${name}`;
    page.unknown.textContent = `${count(unknown.length, "id")} of the history ${unknown.length === 1 ? "is" : "are"} not in the model's catalogue and ${unknown.length === 1 ? "was" : "were"} skipped.`;
    page.unknown.hidden = unknown.length === 0;
    if (page.alert.dataset.ofCall === "true") page.alert.hidden = true;
  } catch (error) {
    if (!signal.aborted) fail(error, true);
  }
}

function selectBackend(backend: Backend): void {
  const input = page.backends.querySelector(`input[value=${backend}]`);
  if (input instanceof HTMLInputElement) input.checked = true;
}

async function changeBackend(backend: Backend): Promise<void> {
  if (!recommender) return;
  try {
    await recommender.use(backend);
    page.alert.hidden = true;
    await recommend();
  } catch (error) {
    selectBackend(recommender.engine);
    fail(error);
  }
}

// The start.

function showFacts(info: ModelInfo): void {
  const facts: [string, string][] = [
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
  const rows = facts.map(([name, value]) =>
    make("div", "", make("dt", "", name), make("dd", "", value)),
  );
  page.facts.replaceChildren(...rows);
}

/** What `about.json` may say of the model; every part may be missing. */
type About = Partial<Record<string, unknown>>;

function showAbout(about: About): void {
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
  page.about.textContent = sentences.join(" ");
}

async function fetchText(url: string): Promise<string> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: the server answered with status ${response.status}`);
  return response.text();
}

async function loadAbout(): Promise<void> {
  try {
    showAbout(JSON.parse(await fetchText("./model/about.json")) as About);
  } catch {
    // The file is optional.
  }
}

async function loadItems(): Promise<void> {
  items = parseItems(await fetchText("./model/items.jsonl"));
  byItemId = new Map(items.map((item) => [item.id, item]));
  showCatalogue();
  showHistory();
}

async function loadModel(): Promise<void> {
  const wanted = new URLSearchParams(location.search).get("backend");
  const backend: Backend = wanted === "webgpu" || wanted === "cpu" ? wanted : "auto";
  selectBackend(backend);
  const onProgress = ({ loaded, total }: { loaded: number; total: number | null }) => {
    const megabytes = (loaded / 1e6).toFixed(1);
    page.status.textContent = `Downloading the model: ${megabytes} MB`;
    if (total) page.progress.value = loaded / total;
    if (loaded === total) page.status.textContent = "Starting the engine…";
  };
  const url = "./model/model.safetensors";
  try {
    recommender = await Recommender.load(url, { backend, onProgress });
  } catch (error) {
    if (!(error instanceof TigretError && error.code === "no-gpu")) throw error;
    recommender = await Recommender.load(url, { backend: "cpu", onProgress });
    selectBackend("cpu");
    fail(new Error(`${error.message}. The CPU computes for now.`));
  }
  page.progress.hidden = true;
  showFacts(recommender.info);
}

function listen(): void {
  settings.open = window.matchMedia("(min-width: 60rem)").matches;
  for (const list of [page.items, page.picks, page.history]) {
    list.addEventListener("click", (event) => {
      const button = (event.target as Element).closest<HTMLButtonElement>("button[data-id]");
      if (button?.dataset.id) toggle(button.dataset.id);
    });
  }
  page.clear.addEventListener("click", () => {
    history = [];
    historyChanged();
    page.search.focus();
  });
  page.search.addEventListener("input", showCatalogue);
  page.more.addEventListener("click", showMore);
  new IntersectionObserver(
    (entries) => {
      if (entries.some((entry) => entry.isIntersecting)) showMore();
    },
    { rootMargin: "400px" },
  ).observe(page.more);
  page.beams.addEventListener("input", () => {
    page.beamsValue.value = String(beams());
    void recommend();
  });
  page.backends.addEventListener("change", (event) => {
    void changeBackend((event.target as HTMLInputElement).value as Backend);
  });
  window.addEventListener("hashchange", () => {
    // Other fragments are places on the page.
    if (!location.hash.startsWith("#history")) return;
    history = readHash();
    historyChanged();
  });
}

async function start(): Promise<void> {
  listen();
  showHistory();
  const about = loadAbout();
  try {
    await Promise.all([loadItems(), loadModel()]);
    await recommend();
  } catch (error) {
    page.progress.hidden = true;
    page.status.textContent = "Stopped";
    fail(error);
  }
  await about;
  document.documentElement.dataset.ready = "true";
}

void start();
