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
