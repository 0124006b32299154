/**
 * The map of semantic IDs: an icicle with a row a level and a column an item, in the order of the
 * semantic IDs. What the visitor liked is marked; the prefixes that a search kept light up level by
 * level, as the beams narrow down.
 */

import type { Catalogue, Prefix } from "tigret";
import { hueOf } from "./hue.js";

/** A node of the tree: the ranks from `start` to before `end` at a level. */
interface Node {
  start: number;
  end: number;
}

/** What lies under a node: the codes that it stands for, and the ids that begin with them. */
interface Found {
  codes: number[];
  ids: string[];
}

const ROW = 26;
const GAP = 2;
/** Milliseconds in which the beams of a level light up. */
const PACE = 220;

export class SemanticMap {
  readonly #canvas: HTMLCanvasElement;
  readonly #calm = window.matchMedia("(prefers-reduced-motion: reduce)");
  #ids: string[] = [];
  #codes: Uint16Array = new Uint16Array(0);
  #levels = 1;
  /** Nodes of each level, in order. */
  #nodes: Node[][] = [];
  #rankOf = new Map<string, number>();
  #liked: number[] = [];
  /** Where the keyboard looks, if it does. */
  #looked: { level: number; node: Node } | null = null;
  #trace: Prefix[][] = [];
  #began = 0;
  #frame = 0;

  constructor(canvas: HTMLCanvasElement) {
    this.#canvas = canvas;
    new ResizeObserver(() => this.#draw()).observe(canvas);
    window
      .matchMedia("(prefers-color-scheme: dark)")
      .addEventListener("change", () => this.#draw());
  }

  /** Takes up the items. */
  setCatalogue({ ids, codes }: Catalogue): void {
    this.#ids = ids;
    this.#codes = codes;
    this.#levels = ids.length > 0 ? codes.length / ids.length : 1;
    this.#rankOf = new Map(ids.map((id, rank) => [id, rank]));
    // Its ranks are those of before.
    this.#looked = null;
    this.#nodes = Array.from({ length: this.#levels }, (_, level) => this.#nodesOf(level));
    this.#canvas.style.height = `${this.#levels * ROW}px`;
    this.#draw();
  }

  /** Marks what the visitor liked. */
  setLiked(ids: readonly string[]): void {
    this.#liked = ids.flatMap((id) => this.#rankOf.get(id) ?? []);
    this.#draw();
  }

  /** Shows what a search kept at each level. */
  show(trace: Prefix[][]): void {
    this.#trace = trace;
    this.#began = this.#calm.matches ? Number.NEGATIVE_INFINITY : performance.now();
    cancelAnimationFrame(this.#frame);
    this.#animate();
    const kept = trace.map((level) => level.length).join(", then ");
    const levels = trace.length === 1 ? "level" : "levels";
    const found = trace.some((level) => level.length > 0)
      ? `The search kept ${kept} prefixes on its ${trace.length} ${levels}.`
      : "The search found no item that it may recommend.";
    const label = `The tree of semantic IDs over ${this.#ids.length} items. ${found} Arrow keys look into it.`;
    this.#canvas.setAttribute("aria-label", label);
  }

  /** What is under a point; `null` beside the tree. */
  at(x: number, y: number): Found | null {
    const { width } = this.#canvas.getBoundingClientRect();
    const level = Math.floor(y / ROW);
    const rank = Math.floor((x / width) * this.#ids.length);
    const node = this.#nodes[level]?.find(({ start, end }) => start <= rank && rank < end);
    return node ? this.#found(level, node) : null;
  }

  /**
   * Looks at another node, as many further along its level and as many levels deeper; at first at the
   * first one. `null` where there is none.
   */
  step(along = 0, deeper = 0): Found | null {
    const rank = this.#looked?.node.start ?? 0;
    const within = (at: number, length: number) => Math.min(Math.max(at, 0), length - 1);
    const level = within((this.#looked?.level ?? 0) + deeper, this.#levels);
    const nodes = this.#nodes[level] ?? [];
    const node = nodes[within(nodes.findIndex(({ end }) => rank < end) + along, nodes.length)];
    this.#looked = node ? { level, node } : null;
    this.#draw();
    return node ? this.#found(level, node) : null;
  }

  /** Looks at none any more. */
  leave(): void {
    this.#looked = null;
    this.#draw();
  }

  #found(level: number, { start, end }: Node): Found {
    const first = start * this.#levels;
    const codes = [...this.#codes.subarray(first, first + level + 1)];
    return { codes, ids: this.#ids.slice(start, end) };
  }

  /** Whether two neighbouring items part at a level or before. */
  #partsAt(rank: number, level: number): boolean {
    for (let l = 0; l <= level; l++) {
      if (this.#codes[rank * this.#levels + l] !== this.#codes[(rank - 1) * this.#levels + l]) {
        return true;
      }
    }
    return false;
  }

  #nodesOf(level: number): Node[] {
    const nodes: Node[] = [];
    let start = 0;
    for (let rank = 1; rank <= this.#ids.length; rank++) {
      if (rank === this.#ids.length || this.#partsAt(rank, level)) {
        nodes.push({ start, end: rank });
        start = rank;
      }
    }
    return nodes;
  }

  /** The ranks under a prefix. */
  #rangeOf(codes: readonly number[]): Node {
    const compare = (rank: number) => {
      for (const [level, code] of codes.entries()) {
        const difference = (this.#codes[rank * this.#levels + level] ?? 0) - code;
        if (difference !== 0) return difference;
      }
      return 0;
    };
    const first = (after: boolean) => {
      let [low, high] = [0, this.#ids.length];
      while (low < high) {
        const middle = (low + high) >> 1;
        const side = compare(middle);
        if (side < 0 || (after && side === 0)) low = middle + 1;
        else high = middle;
      }
      return low;
    };
    return { start: first(false), end: first(true) };
  }

  #animate(): void {
    this.#draw();
    const over = (performance.now() - this.#began) / PACE > this.#levels + 1;
    if (!over) this.#frame = requestAnimationFrame(() => this.#animate());
  }

  #draw(): void {
    const context = this.#canvas.getContext("2d");
    const { width, height } = this.#canvas.getBoundingClientRect();
    if (!context || width === 0 || this.#ids.length === 0) return;
    const scale = window.devicePixelRatio;
    this.#canvas.width = Math.round(width * scale);
    this.#canvas.height = Math.round(height * scale);
    context.scale(scale, scale);
    const style = getComputedStyle(this.#canvas);
    const tone = (name: string) => style.getPropertyValue(name).trim();
    const light = tone("--map-light");
    const chroma = tone("--map-chroma");
    const lit = tone("--map-lit");
    const column = width / this.#ids.length;
    const rectangle = (node: Node, level: number) => {
      const x = node.start * column;
      const room = (node.end - node.start) * column;
      context.fillRect(x, level * ROW, Math.max(room - (room > 3 ? 1 : 0), 0.5), ROW - GAP);
    };
    const hue = (rank: number) => hueOf(this.#codes[rank * this.#levels] ?? 0);

    for (const [level, nodes] of this.#nodes.entries()) {
      // There may be tens of thousands, and to read a colour takes longer than to fill with it.
      let last = Number.NaN;
      for (const node of nodes) {
        const own = hue(node.start);
        if (own !== last) context.fillStyle = `oklch(${light} ${chroma} ${own})`;
        last = own;
        rectangle(node, level);
      }
    }
    const progress = (performance.now() - this.#began) / PACE;
    for (const [level, prefixes] of this.#trace.entries()) {
      const appearing = Math.min(Math.max(progress - level, 0), 1);
      if (appearing === 0) break;
      const next = this.#trace[level + 1];
      const fading = next ? Math.min(Math.max(progress - level - 1, 0), 1) : 0;
      const best = Math.max(...prefixes.map((prefix) => prefix.score));
      const goesOn = new Set(next?.map((prefix) => prefix.codes.slice(0, level + 1).join()));
      for (const { codes, score } of prefixes) {
        const range = this.#rangeOf(codes);
        const strength = 0.3 + 0.7 * Math.exp((score - best) / 2);
        const dims = next && !goesOn.has(codes.join()) ? 1 - 0.85 * fading : 1;
        context.globalAlpha = appearing * strength * dims;
        context.fillStyle = `oklch(${lit} 0.17 ${hue(range.start)})`;
        rectangle(range, level);
      }
    }
    context.globalAlpha = 1;
    context.fillStyle = context.strokeStyle = tone("--ink");
    for (const rank of this.#liked) {
      const x = (rank + 0.5) * column;
      context.fillRect(x - 1, 0, 2, height - GAP);
      context.beginPath();
      context.arc(x, height - GAP - 4, 4, 0, 2 * Math.PI);
      context.fill();
    }
    if (!this.#looked) return;
    const { level, node } = this.#looked;
    context.lineWidth = 2;
    const room = Math.max((node.end - node.start) * column, 4);
    context.strokeRect(node.start * column, level * ROW, room, ROW - GAP);
  }
}
