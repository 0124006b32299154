/** The package's worker on a GPU that computes for ever from the message "hang" on. */

import "/package/dist/worker.js";

addEventListener("message", (event) => {
  if (event.data !== "hang") return;
  // The package's worker must not see this one.
  event.stopImmediatePropagation();
  GPUBuffer.prototype.mapAsync = () => new Promise(() => {});
});
