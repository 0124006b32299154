/** Tells everyone on the channel `kernels` which kernels this worker's devices compile. */

const channel = new BroadcastChannel("kernels");
const { createComputePipeline } = GPUDevice.prototype;
GPUDevice.prototype.createComputePipeline = function (descriptor) {
  channel.postMessage(descriptor.label);
  return createComputePipeline.call(this, descriptor);
};
