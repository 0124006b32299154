/** Remembers every GPU device of this worker, and destroys them on the message "lose". */

/** @type {{ destroy(): void }[]} */
const devices = [];
const { GPUAdapter } = /** @type {any} */ (globalThis);
const { requestDevice } = GPUAdapter.prototype;

/** @param {unknown[]} args */
GPUAdapter.prototype.requestDevice = async function (...args) {
  const device = await requestDevice.apply(this, args);
  devices.push(device);
  return device;
};

addEventListener("message", (event) => {
  if (event.data !== "lose") return;
  // The package's worker must not see this one.
  event.stopImmediatePropagation();
  for (const device of devices.splice(0)) device.destroy();
});
