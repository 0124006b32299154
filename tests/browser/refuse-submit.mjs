/** After the message "refuse", makes the next submit of this worker one that WebGPU refuses. */

let refuse = false;
const { submit } = GPUQueue.prototype;
GPUQueue.prototype.submit = function (buffers) {
  const all = [...buffers];
  // The same commands twice are an error, and none of them runs.
  submit.call(this, refuse ? [...all, ...all] : all);
  refuse = false;
};

addEventListener("message", (event) => {
  if (event.data !== "refuse") return;
  // The package's worker must not see this one.
  event.stopImmediatePropagation();
  refuse = true;
});
