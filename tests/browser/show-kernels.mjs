/** Tells everyone on the channel that the worker's address names which kernels its devices compile. */

const channel = new BroadcastChannel(location.search);
const { createComputePipeline } = GPUDevice.prototype;
GPUDevice.prototype.createComputePipeline = function (descriptor) {
  channel.postMessage(descriptor.label);
  return createComputePipeline.call(this, descriptor);
};
