/**
 * A history as a link, `#history=id1,id2`. It is made only when the visitor asks for it, and leaves
 * the address once it was read: browsers keep addresses, and send them to the visitor's other devices.
 */

/** A link to this page that shows these items as liked. */
export function linkTo(ids: readonly string[]): string {
  const link = new URL(location.href);
  link.hash = `history=${ids.map(encodeURIComponent).join(",")}`;
  return link.href;
}

/** Takes the history out of the address; `null` where there is none. */
export function takeHistory(): string[] | null {
  const ids = /^#history=(.*)$/.exec(location.hash)?.[1];
  // Other fragments are places on the page.
  if (ids === undefined) return null;
  const address = new URL(location.href);
  address.hash = "";
  window.history.replaceState(null, "", address.href);
  // A comma inside an id is escaped, so it is split first.
  return ids.split(",").filter(Boolean).map(unescapeId);
}

function unescapeId(id: string): string {
  try {
    return decodeURIComponent(id);
  } catch {
    return id;
  }
}
