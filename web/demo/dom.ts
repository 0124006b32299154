/** The few helpers that a page without a framework wants. */

/** The element with this id, which the page is known to have. */
export function byId<E extends HTMLElement>(id: string, kind: new () => E): E {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`the page has no <${kind.name}> #${id}`);
  return element;
}

/** A new element with a class and contents. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = "",
  ...contents: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...contents);
  return element;
}

/** Says something in an element that screen readers read out; written anew, it would be read anew. */
export function say(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Acts on clicks on the buttons of a list's entries, with the item's id. */
export function onEntryClick(list: HTMLElement, act: (id: string) => void): void {
  list.addEventListener("click", (event) => {
    const button = (event.target as Element).closest<HTMLButtonElement>("button[data-id]");
    if (button?.dataset.id) act(button.dataset.id);
  });
}

/** What the focus can be given to. */
export interface Focusable {
  focus(options?: FocusOptions): void;
}

/**
 * Replaces what a list holds. The focus stays on the button of the same item, or goes to the one that
 * took its place, and where there is none, elsewhere.
 */
export function replaceEntries(
  list: HTMLElement,
  entries: readonly HTMLElement[],
  elsewhere: Focusable,
): void {
  const buttons = () => [...list.querySelectorAll<HTMLButtonElement>("button[data-id]")];
  const before = buttons();
  const focused = before.find((button) => button === document.activeElement);
  const visible = focused?.matches(":focus-visible");
  list.replaceChildren(...entries);
  if (!focused) return;
  const after = buttons();
  const same = after.find((button) => button.dataset.id === focused.dataset.id);
  // Who clicks does not look at the focus: only with the keyboard the page scrolls to it.
  (same ?? after[before.indexOf(focused)] ?? after.at(-1) ?? elsewhere).focus({
    preventScroll: !visible,
  });
}

/** Shows or hides an element. The focus that was inside it goes elsewhere. */
export function setHidden(element: HTMLElement, hidden: boolean, elsewhere: Focusable): void {
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  const visible = focused?.matches(":focus-visible");
  element.hidden = hidden;
  if (hidden && focused) elsewhere.focus({ preventScroll: !visible });
}
