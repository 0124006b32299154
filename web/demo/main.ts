/** The demo: a catalogue, a history, and what the model recommends after it. */

import { type Backend, forget, type Pick, Recommender, TigretError } from "tigret";
import { type About, count, facts, inWords } from "./about.js";
import { Arrivals } from "./arrivals.js";
import { CatalogueView } from "./catalogue.js";
import { Controls } from "./controls.js";
import { byId, make, onEntryClick, replaceEntries, say, setHidden } from "./dom.js";
import { type Item, parseArrivals, parseItems } from "./items.js";
import { isSame, Liked } from "./liked.js";
import { linkTo, takeHistory } from "./link.js";
import { SemanticMap } from "./map.js";
import { tellOfMap } from "./map-hint.js";
import { megabytes, RequestCount, seldom, Times } from "./meter.js";
import { forgetOffline, stayOffline } from "./offline.js";
import { historyEntry, pickEntry } from "./views.js";

const MODEL = "./model/model.safetensors";
/** Of this demo: another one of the origin has other items. */
const HISTORY = `demo${new URL("./", location.href).pathname}`;
/** An item of the history that does less than this for a pick is no reason for it. */
const REASON = 0.05;
/** Milliseconds between two reports on the download: a screen reader reads each of them out. */
const PAUSE = 2000;
const SHARED =
  "This history came with a link: neither it nor what you change in it is stored until you keep it.";

const page = {
  alert: byId("alert", HTMLDivElement),
  copy: byId("copy", HTMLButtonElement),
  clear: byId("clear", HTMLButtonElement),
  shared: byId("shared", HTMLDivElement),
  sharedTold: byId("shared-told", HTMLParagraphElement),
  own: byId("own", HTMLButtonElement),
  keep: byId("keep", HTMLButtonElement),
  copied: byId("copied", HTMLParagraphElement),
  link: byId("link", HTMLInputElement),
  history: byId("history", HTMLOListElement),
  historyEmpty: byId("history-empty", HTMLParagraphElement),
  status: byId("status", HTMLParagraphElement),
  progress: byId("progress", HTMLProgressElement),
  picks: byId("picks", HTMLOListElement),
  unknown: byId("unknown", HTMLParagraphElement),
  requests: byId("requests", HTMLParagraphElement),
  device: byId("device", HTMLDListElement),
  facts: byId("facts", HTMLDListElement),
  forget: byId("forget", HTMLButtonElement),
  forgotten: byId("forgotten", HTMLParagraphElement),
  map: byId("map", HTMLCanvasElement),
  mapHint: byId("map-hint", HTMLParagraphElement),
  about: byId("about", HTMLParagraphElement),
};

const liked = new Liked(HISTORY, {
  changed: showHistory,
  storing: (busy) => {
    page.history.setAttribute("aria-busy", String(busy));
  },
  failed: fail,
});
const catalogue = new CatalogueView((id) => liked.toggle(id));
const controls = new Controls({
  changed: () => void recommend(),
  chosen: (backend) => void changeBackend(backend),
});
const arrivals = new Arrivals(catalogue, { added: showAdded, failed: fail });
const map = new SemanticMap(page.map);
const times = new Times();

let items: Item[] = [];
let byItemId = new Map<string, Item>();
let recommender: Recommender | undefined;
/** Counts the answers that were asked for: what belongs to an older one is not shown any more. */
let turn = 0;
/** Counts the changes of the engine: one that fails leaves what is shown to a newer one. */
let changes = 0;

// The history.

function showHistory(): void {
  const { ids, isShared } = liked;
  const isEmpty = ids.length === 0;
  const entries = ids.map((id) => historyEntry(itemOf(id)));
  replaceEntries(page.history, entries, catalogue);
  page.historyEmpty.hidden = !isEmpty;
  setHidden(page.copy, isEmpty, catalogue);
  const elsewhere = isEmpty ? catalogue : page.copy;
  setHidden(page.clear, isEmpty || isShared, elsewhere);
  setHidden(page.shared, !isShared, elsewhere);
  say(page.sharedTold, isShared ? SHARED : "");
  // What was told is true of what was shown before.
  setHidden(page.link, true, elsewhere);
  page.link.value = "";
  page.copied.textContent = "";
  page.forgotten.textContent = "";
  catalogue.setLiked(ids);
  map.setLiked(ids);
  void recommend();
}

async function readHistory(): Promise<void> {
  // First: what another window stores meanwhile is told of.
  liked.follow();
  await liked.showOwn().catch(fail);
  openLink();
  window.addEventListener("hashchange", openLink);
}

/** Shows the history of the address, if there is one that is not shown already. */
function openLink(): void {
  const ids = takeHistory() ?? [];
  if (ids.length > 0 && !isSame(ids, liked.ids)) liked.showShared(ids);
}

async function copyLink(): Promise<void> {
  const link = linkTo(liked.ids);
  page.copied.textContent = "";
  try {
    await navigator.clipboard.writeText(link);
    page.copied.textContent = "The link is copied: whoever opens it sees these items.";
  } catch {
    // Denied, or a page without HTTPS.
    page.link.value = link;
    page.link.hidden = false;
    page.link.focus();
    page.link.select();
    page.copied.textContent = "The browser does not let this page copy: copy the link from here.";
  }
}

function itemOf(id: string): Item {
  // One that came later may be liked before this visit adds it.
  const known = byItemId.get(id) ?? arrivals.itemOf(id);
  return known ?? { id, title: `Item ${id}`, byline: "", tags: [], hue: 0, text: "" };
}

// The recommendations.

/** Shows an error until a call, or a change of the engine, succeeds; others stay. */
function fail(error: unknown, until: "call" | "engine" | "none" = "none"): void {
  page.alert.dataset.until = until;
  page.alert.textContent = messageOf(error);
  page.alert.hidden = false;
}

function succeed(what: "call" | "engine"): void {
  if (page.alert.dataset.until === what) page.alert.hidden = true;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

async function recommend(): Promise<void> {
  if (!recommender) return;
  const mine = ++turn;
  const wanted = controls.options(items);
  const asked = { ...wanted, history: liked.ids, exclude: "history", latest: true } as const;
  try {
    const { picks, unknown, milliseconds } = await recommender.report(asked);
    if (mine !== turn) return;
    const best = Math.max(...picks.map((pick) => pick.score));
    const entries = picks.map((pick) => pickEntry(itemOf(pick.id), pick, best));
    page.picks.scrollTop = 0;
    replaceEntries(page.picks, entries, catalogue);
    times.add(milliseconds);
    page.status.textContent = `${count(picks.length, "item")} in ${milliseconds.toFixed(1)} ms · ${engineInWords()}`;
    const skipped = `${count(unknown.length, "id")} of the history ${unknown.length === 1 ? "is" : "are"} not in the model's catalogue and ${unknown.length === 1 ? "was" : "were"} skipped.`;
    say(page.unknown, unknown.length > 0 ? skipped : "");
    succeed("call");
    showDevice();
    const trace = await recommender.trace(asked);
    if (mine !== turn) return;
    map.show(trace);
    await tellWhy(picks, mine);
  } catch (error) {
    const superseded = error instanceof TigretError && error.code === "superseded";
    if (!superseded && mine === turn) fail(error, "call");
  }
}

/** Adds to each pick which item of the history did most for it. */
async function tellWhy(picks: readonly Pick[], mine: number): Promise<void> {
  for (const pick of picks) {
    if (mine !== turn || !recommender || liked.ids.length === 0) return;
    const reasons = (await recommender.explain(pick)).history;
    const [most] = reasons.sort((a, b) => b.influence - a.influence);
    if (mine !== turn) return;
    const place = page.picks.querySelector(`button[data-id="${CSS.escape(pick.id)}"] .reason`);
    if (place && most && most.influence >= REASON) {
      place.replaceChildren("because of ", make("em", "", itemOf(most.id).title));
    }
  }
}

function engineInWords(): string {
  if (!recommender) return "";
  return recommender.engine === "cpu" ? "CPU" : `WebGPU (${recommender.engineName})`;
}

async function changeBackend(backend: Backend): Promise<void> {
  if (!recommender) return;
  const change = ++changes;
  // Which engine is the faster one is kept.
  page.forgotten.textContent = "";
  try {
    await recommender.use(backend);
    succeed("engine");
    await recommend();
  } catch (error) {
    if (change === changes) controls.backend = recommender.engine;
    fail(error, "engine");
  }
}

/** A new item can be found and liked from now on. */
async function showAdded(item: Item): Promise<void> {
  items = [item, ...items];
  byItemId.set(item.id, item);
  catalogue.setItems(items);
  await showMap();
  arrivals.show();
  showFacts();
  await recommend();
}

// What there is to be known.

async function showMap(): Promise<void> {
  if (!recommender) return;
  map.setCatalogue(await recommender.catalogue());
  map.setLiked(liked.ids);
}

function rows(list: HTMLDListElement, facts: readonly (readonly [string, string])[]): void {
  const entries = facts.map(([name, value]) =>
    make("div", "", make("dt", "", name), make("dd", "", value)),
  );
  list.replaceChildren(...entries);
}

function showDevice(): void {
  if (!recommender) return;
  const { downloaded } = recommender;
  rows(page.device, [
    ["Engine", engineInWords()],
    ["Median", `${times.median.toFixed(1)} ms a call`],
    // How the model came, which stays true once nothing is kept.
    ["Download", downloaded > 0 ? megabytes(downloaded) : "0 bytes: a copy of an earlier visit"],
  ]);
}

function showFacts(): void {
  if (recommender) rows(page.facts, facts(recommender.info));
}

async function forgetMe(): Promise<void> {
  // What cannot be emptied is deleted by what follows, or that says why not.
  await liked.clear().catch(() => {});
  const outcomes = await Promise.allSettled([forget(), forgetOffline()]);
  const failed = outcomes.find((outcome) => outcome.status === "rejected");
  page.forgotten.textContent = failed
    ? `Not everything is deleted: ${messageOf(failed.reason)}. The browser's settings can delete the data of this site.`
    : "Nothing about you, and nothing of this page, is kept on this device.";
}

// The start.

async function fetchText(url: string): Promise<string> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: the server answered with status ${response.status}`);
  return response.text();
}

/** What `read` makes of the text of a file, which its errors name. */
function readAs<T>(url: string, text: string, read: (text: string) => T): T {
  try {
    return read(text);
  } catch (error) {
    throw new Error(`${url}: ${messageOf(error)}`);
  }
}

/** A file that may be missing. One that is there and cannot be read is told of. */
async function fetchOptional<T>(url: string, read: (text: string) => T): Promise<T | null> {
  const response = await fetch(url).catch(() => null);
  // Some hosts answer with a page for what is not there.
  if (!response?.ok || response.headers.get("content-type")?.startsWith("text/html")) return null;
  try {
    return readAs(url, await response.text(), read);
  } catch (error) {
    fail(error);
    return null;
  }
}

/** The items and which of them are liked: before that is known, there is nothing to click. */
async function loadItems(): Promise<void> {
  const url = "./model/items.jsonl";
  items = readAs(url, await fetchText(url), parseItems);
  byItemId = new Map(items.map((item) => [item.id, item]));
  controls.offerTags(items);
  await readHistory();
  catalogue.setItems(items);
}

async function loadModel(signal: AbortSignal): Promise<void> {
  const wanted = new URLSearchParams(location.search).get("backend");
  let backend: Backend = wanted === "webgpu" || wanted === "cpu" ? wanted : "auto";
  controls.backend = backend;
  const tell = seldom((loaded: number) => {
    page.status.textContent = `Downloading the model: ${megabytes(loaded)}`;
  }, PAUSE);
  const onProgress = ({ loaded, total }: { loaded: number; total: number | null }) => {
    tell(loaded);
    if (total) page.progress.value = loaded / total;
    if (loaded === total) page.status.textContent = "Starting the engine…";
  };
  const settings = { onProgress, historyName: HISTORY, signal };
  try {
    recommender = await Recommender.load(MODEL, { backend, ...settings });
  } catch (error) {
    // One that hangs ends its worker.
    const ofGpu = ["no-gpu", "device-lost", "crashed"];
    const isOfGpu = error instanceof TigretError && ofGpu.includes(error.code);
    if (backend !== "webgpu" || !isOfGpu) throw error;
    recommender = await Recommender.load(MODEL, { backend: "cpu", ...settings });
    if (controls.backend === backend) controls.backend = "cpu";
    backend = "cpu";
    fail(new Error(`${error.message}. The CPU computes for now.`), "engine");
  }
  page.progress.hidden = true;
  recommender.on("backend-changed", showDevice);
  // Another one may have been chosen meanwhile.
  const selected = controls.backend;
  if (selected !== backend) await changeBackend(selected);
  await showMap();
}

function listen(): void {
  for (const list of [page.picks, page.history]) onEntryClick(list, (id) => liked.toggle(id));
  page.clear.addEventListener("click", () => void liked.clear().catch(fail));
  page.copy.addEventListener("click", () => void copyLink());
  page.own.addEventListener("click", () => void liked.showOwn().catch(fail));
  page.keep.addEventListener("click", () => liked.keep());
  page.forget.addEventListener("click", () => void forgetMe().catch(fail));
  tellOfMap(map, page.map, page.mapHint, (id) => itemOf(id).title);
}

async function start(): Promise<void> {
  page.status.textContent = "Starting…";
  page.progress.hidden = false;
  listen();
  const about = fetchOptional("./model/about.json", (text) => JSON.parse(text) as About);
  const fresh = fetchOptional("./model/new.jsonl", parseArrivals);
  // Without the items the model is of no use.
  const stop = new AbortController();
  try {
    await stayOffline([about, fresh]);
    await Promise.all([loadItems(), loadModel(stop.signal)]);
    page.about.textContent = inWords((await about) ?? {});
    if (recommender?.info.embedding) arrivals.offer((await fresh) ?? [], recommender);
    if (liked.ids.some((id) => arrivals.itemOf(id))) showHistory();
    showFacts();
    // From here on the page needs nothing of the network, and the count shows it.
    new RequestCount((number) => {
      page.requests.textContent = `${count(number, "request")} since the model is here`;
      page.requests.hidden = false;
    });
    await recommend();
  } catch (error) {
    stop.abort();
    page.progress.hidden = true;
    page.status.textContent = "Stopped";
    fail(error);
  }
  document.documentElement.dataset.ready = "true";
}

void start();
