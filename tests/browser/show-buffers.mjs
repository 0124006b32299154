/** Tells everyone on the channel that the worker's address names how many bytes of buffers it holds. */

const channel = new BroadcastChannel(`${location.search}-bytes`);
let bytes = 0;
const { createBuffer } = GPUDevice.prototype;
GPUDevice.prototype.createBuffer = function (descriptor) {
  const buffer = createBuffer.call(this, descriptor);
  bytes += buffer.size;
  channel.postMessage(bytes);
  return buffer;
};
const { destroy } = GPUBuffer.prototype;
GPUBuffer.prototype.destroy = function () {
  bytes -= this.size;
  channel.postMessage(bytes);
  return destroy.call(this);
};
