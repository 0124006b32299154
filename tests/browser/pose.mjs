/**
 * Has adapters say of themselves what the worker's address says: `vendor`, and `fallback` where they
 * are software; and has the browser say that it is on the system `on`. Without a vendor, nothing.
 */

const said = new URLSearchParams(location.search);

/** @param {object} prototype @param {string} name @param {unknown} value */
const say = (prototype, name, value) =>
  Object.defineProperty(prototype, name, { get: () => value });

if (said.has("vendor")) {
  say(GPUAdapterInfo.prototype, "vendor", said.get("vendor"));
  say(GPUAdapterInfo.prototype, "architecture", "");
  for (const { prototype } of [GPUAdapterInfo, GPUAdapter])
    say(prototype, "isFallbackAdapter", said.has("fallback"));
  say(Object.getPrototypeOf(navigator), "userAgent", said.get("on"));
}
