/** Breaks the GPU of this worker: after "hang" no call ends, after "full" the browser makes no buffer. */

addEventListener("message", (event) => {
  if (event.data !== "hang" && event.data !== "full") return;
  // The package's worker must not see this one.
  event.stopImmediatePropagation();
  if (event.data === "hang") {
    GPUBuffer.prototype.mapAsync = () => new Promise(() => {});
  } else {
    GPUDevice.prototype.createBuffer = () => {
      throw new RangeError("no room for a buffer");
    };
  }
});
