/** A clock that runs thirty times as fast. */

for (const name of /** @type {const} */ (["setTimeout", "setInterval"])) {
  const set = /** @type {Function} */ (globalThis[name]);
  Object.assign(globalThis, {
    [name]: (/** @type {unknown} */ call, wait = 0) => set(call, wait / 30),
  });
}
