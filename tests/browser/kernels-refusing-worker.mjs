/** The package's worker on a GPU whose driver takes no kernel with subgroups. */

const device = globalThis.GPUDevice.prototype;
const create = device.createComputePipelineAsync;
device.createComputePipelineAsync = async function (descriptor) {
  const pipeline = await create.call(this, descriptor);
  if (descriptor.label?.endsWith("_subgroups")) throw new Error(`no ${descriptor.label} here`);
  return pipeline;
};

import "/package/dist/worker.js";
