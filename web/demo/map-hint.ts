/** Whoever points at the map, or walks through it by arrow keys, is told what is there. */

import { say } from "./dom.js";
import type { SemanticMap } from "./map.js";

/** Where arrow keys lead: along a level, and deeper. */
const STEPS = new Map<string, [number, number]>([
  ["ArrowLeft", [-1, 0]],
  ["ArrowRight", [1, 0]],
  ["ArrowUp", [0, -1]],
  ["ArrowDown", [0, 1]],
]);

/** Says in `place` what is under the pointer or the keyboard's look; else what it says now. */
export function tellOfMap(
  map: SemanticMap,
  canvas: HTMLCanvasElement,
  place: HTMLElement,
  titleOf: (id: string) => string,
): void {
  const hint = place.textContent ?? "";
  /** A screen reader reads out what keys find, and not what the pointer passes over. */
  const write = (text: string, live: "polite" | "off" = "off") => {
    place.setAttribute("aria-live", live);
    say(place, text);
  };
  const tell = (under: ReturnType<typeof map.at>, live?: "polite") => {
    if (!under) return;
    const titles = under.ids.slice(0, 4).map(titleOf);
    const others = under.ids.length - titles.length;
    const more = others > 0 ? ` and ${others} more` : "";
    write(`${under.codes.join(" · ")}: ${titles.join(", ")}${more}`, live);
  };
  canvas.addEventListener("pointerleave", ({ pointerType }) => {
    // A finger hides what it points at, until it is lifted.
    if (pointerType !== "touch") write(hint);
  });
  canvas.addEventListener("pointermove", ({ offsetX, offsetY }) => tell(map.at(offsetX, offsetY)));
  canvas.addEventListener("focus", () => {
    if (canvas.matches(":focus-visible")) tell(map.step(), "polite");
  });
  canvas.addEventListener("blur", () => {
    map.leave();
    write(hint);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = STEPS.get(event.key);
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    tell(map.step(...step), "polite");
  });
}
