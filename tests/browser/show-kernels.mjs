/** Tells everyone on the channel that the worker's address names which kernels its devices compile. */

const channel = new BroadcastChannel(location.search);
const { createComputePipelineAsync } = GPUDevice.prototype;
GPUDevice.prototype.createComputePipelineAsync = function (descriptor) {
  channel.postMessage(descriptor.label);
  return createComputePipelineAsync.call(this, descriptor);
};
