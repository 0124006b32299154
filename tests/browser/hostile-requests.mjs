/**
 * Requests of any kind for a recommender, and what their answers must be. Runs in the page.
 *
 * An answer is held against a beam search written out here, over scores that the model gives to all
 * prefixes of semantic IDs (`trace` with more beams than there are items). An option that is wrong
 * must be named.
 */

/** @typedef {{ id: string, score: number, codes: number[] }} Pick */
/** @typedef {Record<string, any>} Options */
/**
 * @typedef {object} Oracle
 * @property {any} recommender on the CPU, which nobody else asks
 * @property {() => Promise<any>} twin one on the engine of the one that is tested, which nobody
 *     else asks: made when it is needed
 * @property {string[]} ids
 * @property {Map<string, number[]>} codes of every item
 * @property {() => Promise<void>} dispose
 */

/** Scores of engines, and of a beam alone and among others, differ by rounding. */
const TOLERANCE = 1e-3;

/** A generator with a seed (mulberry32). @param {number} seed */
export function generator(seed) {
  let state = seed >>> 0;
  const unit = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (/** @type {number} */ end) => Math.floor(unit() * end);
  return {
    unit,
    below,
    chance: (/** @type {number} */ probability) => unit() < probability,
    /** @template T @param {readonly T[]} all @returns {T} */
    one: (all) => /** @type {T} */ (all[below(all.length)]),
  };
}

/** @typedef {ReturnType<typeof generator>} Random */

const ODD_IDS = ["", "item-", "ITEM-1", "item-999999", "\0", "🐯", " item-1", "__proto__"];

/** Ids as they may come, some of which nobody has. @param {Random} random @param {string[]} known @param {number} most */
function ids(random, known, most) {
  const length = random.chance(0.02) ? 20_000 : random.below(most + 1);
  const drawn = Array.from({ length }, () => {
    if (random.chance(0.85)) return random.one(known);
    return random.chance(0.9) ? random.one(ODD_IDS) : "x".repeat(100_000);
  });
  // Half a surrogate pair is no text that the engine could give back.
  if (random.chance(0.02)) drawn.push("item\ud800");
  return drawn;
}

/** What no option of `recommend` takes. @param {Random} random */
function junk(random) {
  // A hole is not a string either.
  const sparse = new Array(3);
  sparse[1] = "a";
  const all = [Number.NaN, -1, 0.5, Number.MAX_VALUE, "7", 7n, Symbol("s"), {}, () => 1, sparse];
  return random.one([...all, Object.create(null), new Set(["a"]), [7], [null]]);
}

/**
 * @param {Random} random @param {string[]} known
 * @param {{ levels: number[], users: number }} info
 * @returns {Options}
 */
function drawOptions(random, known, { levels, users }) {
  const edges = [0, -0, 1, 2, 512, 513, 2 ** 31, Number.MAX_SAFE_INTEGER, Number.POSITIVE_INFINITY];
  const size = () => (random.chance(0.85) ? 1 + random.below(60) : random.one(edges));
  const temperature = () =>
    random.chance(0.8)
      ? 0.05 + 4 * random.unit()
      : random.one([0, -0, -1, Number.NaN, Number.POSITIVE_INFINITY, 1e-45, 1e-60, 3e38, 1e39]);
  /** @type {Options} */
  const options = { history: ids(random, known, 25) };
  if (random.chance(0.8)) options.beams = size();
  if (random.chance(0.5)) {
    const most = Number.isInteger(options.beams) ? options.beams : 50;
    options.top = random.chance(0.8) ? 1 + random.below(most) : size();
  }
  if (random.chance(0.5)) options.exclude = random.chance(0.5) ? "history" : ids(random, known, 90);
  if (random.chance(0.4)) options.allow = ids(random, known, random.one([0, 1, 90]));
  if (random.chance(0.4)) {
    const several = Array.from({ length: random.one([0, 1, levels.length, 2]) }, temperature);
    options.temperature = random.chance(0.5) ? temperature() : several;
  }
  if (random.chance(options.temperature === undefined ? 0.05 : 0.7)) {
    options.seed = random.chance(0.6)
      ? random.below(100)
      : random.one([0, -0, 2 ** 53 - 1, 2 ** 53, -1, 0.5]);
  }
  if (random.chance(0.2)) options.user = random.one(["", "a reader", "🐯", null, undefined]);
  if (random.chance(0.1)) options.userToken = random.one([0, -0, users - 1, users, 2 ** 32]);
  if (random.chance(0.08)) {
    const names = ["history", "beams", "top", "exclude", "allow", "temperature", "seed", "user"];
    options[random.one([...names, "userToken", "latest", "signal"])] = junk(random);
  }
  if (random.chance(0.02)) options[random.one(["beam", "Top", ""])] = 5;
  return options;
}

/**
 * The options that are wrong: the contract's conditions, written down once more.
 *
 * @param {Options} options @param {{ levels: number[], users: number }} info
 */
function wrongOptions(options, { levels, users }) {
  const { history, user, userToken, exclude, allow, temperature, seed, latest, signal } = options;
  /** @type {string[]} */
  const wrong = [];
  /** @param {string} name @param {boolean} fits */
  const must = (name, fits) => void (fits || wrong.push(name));
  const known = ["history", "user", "userToken", "top", "beams", "exclude", "allow", "temperature"];
  for (const name of Object.keys(options)) {
    must(name, [...known, "seed", "latest", "signal"].includes(name));
  }
  const between = (
    /** @type {unknown} */ value,
    /** @type {number} */ a,
    /** @type {number} */ b,
  ) => typeof value === "number" && Number.isInteger(value) && value >= a && value <= b;
  const isIds = (/** @type {unknown} */ value) =>
    Array.isArray(value) &&
    Array.from(value).every(
      (id) => typeof id === "string" && /** @type {any} */ (id).isWellFormed(),
    );
  const beams = options.beams ?? 50;
  const beamsFit = between(beams, 1, 512);
  must("beams", beamsFit);
  if (beamsFit) must("top", between(options.top ?? 1, 1, beams));
  must("history", history === undefined || isIds(history));
  must("exclude", exclude === undefined || exclude === "history" || isIds(exclude));
  must("allow", allow === undefined || isIds(allow));
  must("user", user === undefined || user === null || (typeof user === "string" && user !== ""));
  if (userToken !== undefined) {
    must("userToken", between(userToken, 0, users - 1));
    must("user", user === undefined || user === null);
  }
  if (temperature !== undefined) {
    const all = Array.isArray(temperature) ? temperature : [temperature];
    const length = all.length === 1 || all.length === levels.length;
    const narrow = (/** @type {unknown} */ t) => (typeof t === "number" ? Math.fround(t) : -1);
    must("temperature", length && Array.from(all).every((t) => narrow(t) > 0 && narrow(t) < 1e39));
  }
  must("seed", seed === undefined || (between(seed, 0, 2 ** 53 - 1) && temperature !== undefined));
  must("latest", latest === undefined || typeof latest === "boolean");
  must("signal", signal === undefined || signal instanceof AbortSignal);
  return wrong;
}

/** By code, as numbers. @param {number[]} a @param {number[]} b */
function compareCodes(a, b) {
  for (let level = 0; level < a.length; level++) {
    if (a[level] !== b[level]) return (a[level] ?? 0) - (b[level] ?? 0);
  }
  return 0;
}

/**
 * Beam search, plainly: at each level the best live prefixes survive. `certain` is false where two
 * prefixes at the cut have nearly the same score, so that rounding decides.
 *
 * @param {Map<string, number>[]} scores of the prefixes of each level
 * @param {number[][]} allowed semantic IDs @param {number} beams
 */
function beamSearch(scores, allowed, beams) {
  let certain = true;
  let live = allowed;
  /** @type {{ codes: number[], score: number }[]} */
  let best = [];
  for (const [level, ofLevel] of scores.entries()) {
    /** @type {Map<string, number[]>} */
    const prefixes = new Map();
    for (const codes of live) {
      const prefix = codes.slice(0, level + 1);
      prefixes.set(prefix.join(), prefix);
    }
    const ranked = [...prefixes]
      .map(([key, codes]) => ({ codes, score: ofLevel.get(key) ?? Number.NaN }))
      .sort((a, b) => b.score - a.score || compareCodes(a.codes, b.codes));
    best = ranked.slice(0, beams);
    const [last, next] = [best.at(-1), ranked[beams]];
    if (last && next && last.score - next.score <= 2 * TOLERANCE) certain = false;
    const kept = new Set(best.map(({ codes }) => codes.join()));
    live = live.filter((codes) => kept.has(codes.slice(0, level + 1).join()));
  }
  return { best, certain };
}

/** @param {unknown} condition @param {string} message */
function check(condition, message) {
  if (!condition) throw new Error(message);
}

/**
 * Throws where a report is not what its options ask for.
 *
 * @param {Oracle} oracle @param {Options} options @param {any} report
 */
async function checkReport({ recommender, twin, ids, codes }, options, report) {
  const { history, user, userToken, exclude = [], allow, beams = 50 } = options;
  const top = options.top ?? Math.min(20, beams);
  const excluded = new Set(exclude === "history" ? history : exclude);
  const allowList = allow && new Set(allow);
  const allows = (/** @type {string} */ id) => !excluded.has(id) && (allowList?.has(id) ?? true);
  const allowed = ids.filter(allows);
  /** @type {Pick[]} */
  const picks = report.picks;

  const unknown = history.filter((/** @type {string} */ id) => !codes.has(id));
  check(JSON.stringify(report.unknown) === JSON.stringify(unknown), "the unknown ids are others");
  const most = Math.min(top, allowed.length);
  check(picks.length === most, `${picks.length} items, not ${most}`);
  check(new Set(picks.map(({ id }) => id)).size === picks.length, "an item is returned twice");

  const asked = { history, user, userToken, beams: 512 };
  /** @type {{ codes: number[], score: number }[][]} */
  const levels = await recommender.trace(asked);
  const scores = levels.map(
    (level) => new Map(level.map(({ codes, score }) => [codes.join(), score])),
  );
  for (const { id, score, codes: found } of picks) {
    check(allows(id), `${id} is not allowed`);
    check(found.join() === codes.get(id)?.join(), `${id} has the codes ${found}`);
    const own = scores.at(-1)?.get(found.join()) ?? Number.NaN;
    check(Math.abs(score - own) <= TOLERANCE, `${id} has the score ${score}, not ${own}`);
  }
  if (options.temperature === undefined) {
    check(report.seed === null, "a search has a seed");
    const { best, certain } = beamSearch(
      scores,
      allowed.map((id) => codes.get(id) ?? []),
      beams,
    );
    for (const [index, { score }] of picks.entries()) {
      check(index === 0 || score <= (picks[index - 1]?.score ?? 0), `${index}: not in order`);
      const rival = best[index]?.score ?? Number.NaN;
      const same = !certain || Math.abs(score - rival) <= TOLERANCE;
      check(same, `${index}: score ${score}, the best is ${rival}`);
    }
  } else {
    check(Number.isSafeInteger(report.seed) && report.seed >= 0, `the seed is ${report.seed}`);
    if (options.seed !== undefined) check(report.seed === options.seed, "another seed");
    const { signal: _, latest: __, ...rest } = options;
    const again = await (await twin()).recommend({ ...rest, seed: report.seed });
    check(JSON.stringify(again) === JSON.stringify(picks), "alone, the seed gives another sample");
  }
}

/**
 * What options look like in a message. @param {Options} options
 */
function shown(options) {
  const text = JSON.stringify(options, (_, value) => {
    if (typeof value === "number" || typeof value === "bigint") return String(value);
    if (typeof value === "symbol" || typeof value === "function") return typeof value;
    if (typeof value === "string" && value.length > 100) return `${value.length} characters`;
    return Array.isArray(value) && value.length > 100 ? `${value.length} of ${value[0]}…` : value;
  });
  return text;
}

/**
 * Asks a recommender groups of requests at once. Returns how they ended, and what was wrong.
 *
 * @param {any} tigret the package @param {string} url @param {string} backend
 * @param {number} seed @param {number} calls
 */
export async function holdCalls(tigret, url, backend, seed, calls) {
  const random = generator(seed);
  const recommender = await tigret.Recommender.load(url, { backend });
  const oracle = await oracleOf(tigret, url, backend);
  /** @type {Record<string, number>} */
  const ends = {};
  /** @type {string[]} */
  const failures = [];
  for (let asked = 0; asked < calls; ) {
    const group = Array.from({ length: Math.min(1 + random.below(5), calls - asked) }, () => {
      const options = drawOptions(random, oracle.ids, recommender.info);
      const controller = new AbortController();
      const stops = random.chance(0.1);
      if (stops && !("signal" in options)) options.signal = controller.signal;
      if (random.chance(0.15) && !("latest" in options)) options.latest = true;
      return { options, stops, controller, after: random.below(20) };
    });
    asked += group.length;
    const running = group.map(({ options }) =>
      recommender.report(options).then(
        (/** @type {any} */ report) => ({ report }),
        (/** @type {any} */ error) => ({ error }),
      ),
    );
    for (const { stops, controller, after } of group) {
      if (stops) setTimeout(() => controller.abort(), after);
    }
    for (const [index, { options, controller }] of group.entries()) {
      const { report, error } = await running[index];
      try {
        const wrong = wrongOptions(options, recommender.info);
        const last = group.findLast(
          (other) =>
            other.options.latest === true &&
            wrongOptions(other.options, recommender.info).length === 0,
        );
        const typed = error instanceof tigret.TigretError;
        const end = report ? "answered" : typed ? error.code : error.name;
        ends[end] = (ends[end] ?? 0) + 1;
        if (end === "bad-request") {
          const named = wrong.some((name) => error.message.includes(name));
          check(named, `"${error.message}" names none of ${wrong.join(", ")}`);
        } else {
          check(wrong.length === 0, `${wrong.join(", ")}: ended with ${end}`);
          if (end === "answered") await checkReport(oracle, options, report);
          else if (end === "AbortError") check(controller.signal.aborted, "nobody aborted");
          else {
            const older = options.latest === true && options !== last?.options;
            check(end === "superseded" && older, `${end}: ${error.message}`);
          }
        }
      } catch (failure) {
        failures.push(`${/** @type {Error} */ (failure).message}: ${shown(options)}`);
      }
    }
  }
  recommender.dispose();
  await oracle.dispose();
  return { ends, failures };
}

/**
 * Disposes of recommenders at random moments of their calls: each call ends in the right answer or
 * with `disposed`. Returns how the calls ended, and what was wrong.
 *
 * @param {any} tigret @param {string} url @param {string} backend
 * @param {number} seed @param {number} rounds
 */
export async function holdDisposals(tigret, url, backend, seed, rounds) {
  const random = generator(seed);
  const bytes = await (await fetch(url)).arrayBuffer();
  const oracle = await oracleOf(tigret, url, backend);
  /** @type {Record<string, number>} */
  const ends = {};
  /** @type {string[]} */
  const failures = [];
  for (let round = 0; round < rounds; round++) {
    const recommender = await tigret.Recommender.load(bytes, { backend });
    const calls = Array.from({ length: 4 }, () => {
      const options = drawOptions(random, oracle.ids, recommender.info);
      return { options, ended: recommender.report(options).catch((/** @type {any} */ e) => e) };
    });
    const waits = Array.from({ length: random.below(4) }, () => random.below(4));
    for (const wait of waits) await new Promise((resolve) => setTimeout(resolve, wait));
    recommender.dispose();
    const late = { history: [] };
    calls.push({
      options: late,
      ended: recommender.report(late).catch((/** @type {any} */ e) => e),
    });
    for (const { options, ended } of calls) {
      const end = await ended;
      const code = end.picks ? "answered" : end.code;
      ends[code] = (ends[code] ?? 0) + 1;
      try {
        if (code === "answered") {
          check(options !== late, "answered after it was disposed of");
          await checkReport(oracle, options, end);
        } else if (code === "bad-request") {
          check(wrongOptions(options, recommender.info).length > 0, end.message);
        } else {
          check(code === "disposed" && end instanceof tigret.TigretError, `${code}: ${end}`);
        }
      } catch (failure) {
        failures.push(`${/** @type {Error} */ (failure).message}: ${shown(options)}`);
      }
    }
  }
  await oracle.dispose();
  return { ends, failures };
}

/** @param {any} tigret @param {string} url @param {string} backend @returns {Promise<Oracle>} */
async function oracleOf(tigret, url, backend) {
  const recommender = await tigret.Recommender.load(url, { backend: "cpu" });
  /** @type {Promise<any> | undefined} */
  let twin;
  const { ids, codes } = await recommender.catalogue();
  const levels = recommender.info.levels.length;
  const of = (/** @type {number} */ at) => [...codes.slice(at * levels, (at + 1) * levels)];
  return {
    recommender,
    twin: () => {
      twin ??= tigret.Recommender.load(url, { backend });
      return /** @type {Promise<any>} */ (twin);
    },
    dispose: async () => {
      recommender.dispose();
      (await twin)?.dispose();
    },
    ids,
    codes: new Map(ids.map((/** @type {string} */ id, /** @type {number} */ at) => [id, of(at)])),
  };
}
