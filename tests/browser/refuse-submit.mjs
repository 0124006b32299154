/**
 * After the message "refuse", makes the next submit of this worker one that WebGPU refuses; after
 * "drop" one of which nothing is done and nothing said, as where Metal gives a command buffer up.
 */

let fault = "";
const { submit } = GPUQueue.prototype;
GPUQueue.prototype.submit = function (buffers) {
  const all = [...buffers];
  // The same commands twice are an error, and none of them runs.
  const faulty = fault === "drop" ? [] : [...all, ...all];
  submit.call(this, fault === "" ? all : faulty);
  fault = "";
};

addEventListener("message", (event) => {
  if (event.data !== "refuse" && event.data !== "drop") return;
  // The package's worker must not see this one.
  event.stopImmediatePropagation();
  fault = event.data;
});
