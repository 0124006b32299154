//! A device of Vulkan, Metal or Direct3D, by wgpu.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use futures_channel::oneshot;
use tigret_shaders::{BindingKind, Requirement, Shader};
use wgpu::{
    Backend, BindGroup, BindGroupDescriptor, BindGroupEntry, BindGroupLayout,
    BindGroupLayoutDescriptor, BindGroupLayoutEntry, BindingResource, BindingType, BufferBinding,
    BufferBindingType, BufferDescriptor, BufferSize, BufferUsages, ComputePass,
    ComputePassDescriptor, ComputePipeline, ComputePipelineDescriptor, DeviceDescriptor,
    DeviceType, Features, Instance, InstanceDescriptor, Limits, MapMode,
    PipelineCompilationOptions, PipelineLayoutDescriptor, PollType, PowerPreference, Queue,
    RequestAdapterOptions, ShaderModuleDescriptor, ShaderSource, ShaderStages,
    WgslLanguageFeatures,
};

use super::{Bounds, Extras, Failure, Info, Launch, PARAMS_BYTES, Role, source};
use crate::error::InferError;
use crate::gpu::GpuOptions;

/// The door to the drivers, one for the process: NVIDIA's fail where several threads make their own
/// (gfx-rs/wgpu#5930).
static INSTANCE: OnceLock<Instance> = OnceLock::new();

/// What a device has been asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Kernel launches.
    pub dispatches: usize,
    /// Compute passes.
    pub passes: usize,
    /// Submits to the queue.
    pub submits: usize,
    /// Buffers read back.
    pub read_backs: usize,
}

/// An open device.
pub(in super::super) struct Device {
    device: wgpu::Device,
    queue: Queue,
    /// Whether workgroup memory is zeroed before a kernel. No kernel reads what it has not written,
    /// zeroing costs time, and some drivers for Vulkan do it without a barrier afterwards. But where
    /// it is not zeroed, Metal's compiler may take a load for one of what nobody wrote, and drop it
    /// although a branch wrote it before the barrier.
    zeroes: bool,
    /// The adapter's.
    pub(in super::super) name: String,
    pub(in super::super) info: Info,
    pub(in super::super) bounds: Bounds,
    pub(in super::super) failure: Failure,
    /// So far; of benchmarks only what they read back.
    pub(in super::super) counts: Counts,
}

/// Memory of a device.
pub(in super::super) struct Buffer(wgpu::Buffer);

/// A compiled kernel.
pub(in super::super) struct Kernel {
    pub(in super::super) shader: &'static Shader,
    layout: BindGroupLayout,
    pipeline: ComputePipeline,
}

/// Buffers of a launch.
pub(in super::super) struct Group(BindGroup);

impl Buffer {
    /// Its size.
    pub(in super::super) fn bytes(&self) -> u64 {
        self.0.size()
    }
}

impl Device {
    /// Opens the best adapter with all that kernels can make use of and `wishes` do not exclude.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] without an adapter, or where it opens no device.
    pub(in super::super) async fn open(wishes: GpuOptions) -> Result<Self, InferError> {
        let no_gpu = |e: &dyn std::fmt::Display| InferError::NoGpu(e.to_string());
        let instance = INSTANCE
            .get_or_init(|| Instance::new(InstanceDescriptor::new_without_display_handle()));
        let options = RequestAdapterOptions {
            power_preference: PowerPreference::HighPerformance,
            ..RequestAdapterOptions::default()
        };
        let adapter = instance.request_adapter(&options).await.map_err(|e| no_gpu(&e))?;
        let packed = WgslLanguageFeatures::Packed4x8IntegerDotProduct;
        let packed_products = instance.wgsl_language_features().contains(packed);
        let available = adapter.limits();
        let mut wanted = Features::empty();
        wanted.set(Features::TIMESTAMP_QUERY, cfg!(feature = "testing"));
        wanted.set(Features::SHADER_F16, wishes.halves != Some(false));
        wanted.set(Features::SUBGROUP, wishes.subgroups != Some(false));
        let limits = Limits {
            max_storage_buffer_binding_size: available.max_storage_buffer_binding_size,
            max_buffer_size: available.max_buffer_size,
            ..Limits::default()
        };
        let (device, queue) = adapter
            .request_device(&DeviceDescriptor {
                label: Some("tigret"),
                required_limits: limits,
                required_features: adapter.features() & wanted,
                ..DeviceDescriptor::default()
            })
            .await
            .map_err(|e| no_gpu(&e))?;
        let failure = Failure::default();
        let slot = failure.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            slot.record(error.to_string());
        }));
        let slot = failure.clone();
        device.set_device_lost_callback(move |reason, message| {
            slot.record(format!("{reason:?}: {message}"));
        });
        let (features, limits, of_adapter) =
            (device.features(), device.limits(), adapter.get_info());
        let metal = of_adapter.backend == Backend::Metal;
        let info = Info {
            software: of_adapter.device_type == DeviceType::Cpu,
            unpacks: metal,
            extras: Extras {
                halves: features.contains(Features::SHADER_F16),
                packed_products,
                subgroups: features.contains(Features::SUBGROUP),
            },
            // Of whole words, as a binding has to be: Direct3D 12 gives an odd one.
            limit: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) & !3,
        };
        let bounds = if info.software { Bounds::MESA_SOFTWARE } else { Bounds::HARDWARE };
        let counts = Counts::default();
        let (zeroes, mut name) = (metal, of_adapter.name);
        if name.is_empty() {
            name = "unnamed GPU".into();
        }
        Ok(Self { device, queue, zeroes, name, info, bounds, failure, counts })
    }

    /// Makes a buffer of zeros.
    ///
    /// # Errors
    /// None here: what the device refuses is kept in `failure`.
    pub(in super::super) fn buffer(
        &self,
        name: &str,
        bytes: u64,
        role: Role,
    ) -> Result<Buffer, InferError> {
        let usage = match role {
            Role::Storage => BufferUsages::STORAGE | BufferUsages::COPY_SRC,
            Role::Params => BufferUsages::UNIFORM,
            Role::ReadBack => BufferUsages::MAP_READ,
        };
        Ok(self.buffer_of(name, bytes, usage | BufferUsages::COPY_DST))
    }

    fn buffer_of(&self, name: &str, bytes: u64, usage: BufferUsages) -> Buffer {
        let label = Some(name);
        Buffer(self.device.create_buffer(&BufferDescriptor {
            label,
            size: bytes,
            usage,
            mapped_at_creation: false,
        }))
    }

    /// Puts words at the start of a buffer, before the next submit.
    pub(in super::super) fn write(&self, buffer: &Buffer, words: &[u32]) {
        self.queue.write_buffer(&buffer.0, 0, bytemuck::cast_slice(words));
    }

    /// Compiles kernels.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`] where the device refuses one.
    pub(in super::super) async fn kernels(
        &self,
        shaders: &[&'static Shader],
    ) -> Result<Vec<Kernel>, InferError> {
        let kernels = shaders.iter().map(|shader| self.kernel(shader)).collect();
        self.settle().await?;
        Ok(kernels)
    }

    fn kernel(&self, shader: &'static Shader) -> Kernel {
        let entry = |binding: &tigret_shaders::Binding| {
            let (ty, has_dynamic_offset) = match binding.kind {
                BindingKind::Uniform => (BufferBindingType::Uniform, true),
                BindingKind::Read => (BufferBindingType::Storage { read_only: true }, false),
                BindingKind::ReadWrite => (BufferBindingType::Storage { read_only: false }, false),
            };
            BindGroupLayoutEntry {
                binding: binding.index.into(),
                visibility: ShaderStages::COMPUTE,
                ty: BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
                count: None,
            }
        };
        let label = Some(shader.name);
        let device = &self.device;
        let entries: Vec<BindGroupLayoutEntry> = shader.bindings.iter().map(entry).collect();
        let layout = device
            .create_bind_group_layout(&BindGroupLayoutDescriptor { label, entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        // The only directive that naga knows.
        let directives = match shader.requires {
            Some(Requirement::Halves) => "enable f16;\n",
            Some(Requirement::Subgroups | Requirement::PackedProducts) | None => "",
        };
        let module = device.create_shader_module(ShaderModuleDescriptor {
            label,
            source: ShaderSource::Wgsl(source(shader, directives).into()),
        });
        let pipeline = device.create_compute_pipeline(&ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: PipelineCompilationOptions {
                zero_initialize_workgroup_memory: self.zeroes,
                ..PipelineCompilationOptions::default()
            },
            cache: None,
        });
        Kernel { shader, layout, pipeline }
    }

    /// Binds parameters and, in the order of the kernel's bindings, storage buffers.
    pub(in super::super) fn group<'a>(
        &self,
        kernel: &Kernel,
        params: &'a Buffer,
        mut storage: impl Iterator<Item = &'a Buffer>,
    ) -> Group {
        let entries: Vec<BindGroupEntry<'_>> = kernel
            .shader
            .bindings
            .iter()
            .filter_map(|binding| {
                let resource = match binding.kind {
                    BindingKind::Uniform => BindingResource::Buffer(BufferBinding {
                        buffer: &params.0,
                        offset: 0,
                        size: BufferSize::new(PARAMS_BYTES),
                    }),
                    BindingKind::Read | BindingKind::ReadWrite => {
                        storage.next()?.0.as_entire_binding()
                    }
                };
                Some(BindGroupEntry { binding: binding.index.into(), resource })
            })
            .collect();
        Group(self.device.create_bind_group(&BindGroupDescriptor {
            label: Some(kernel.shader.name),
            layout: &kernel.layout,
            entries: &entries,
        }))
    }

    /// Launches in one pass and one submit, then copies the first `bytes` of `result`.
    pub(in super::super) fn submit(
        &mut self,
        launches: &[Launch<'_>],
        result: &Buffer,
        read_back: &Buffer,
        bytes: u64,
    ) {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
            self.counts.passes += 1;
            let mut current: Option<&Kernel> = None;
            for launch in launches {
                if !current.is_some_and(|kernel| std::ptr::eq(kernel, launch.kernel)) {
                    pass.set_pipeline(&launch.kernel.pipeline);
                    current = Some(launch.kernel);
                }
                add(&mut pass, launch);
                self.counts.dispatches += 1;
            }
        }
        encoder.copy_buffer_to_buffer(&result.0, 0, &read_back.0, 0, bytes);
        self.queue.submit([encoder.finish()]);
        self.counts.submits += 1;
    }

    /// Checks that all calls so far were accepted.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`] where one of them failed.
    pub(in super::super) async fn settle(&self) -> Result<(), InferError> {
        // wgpu reports what it refuses before it returns.
        self.failure.check()
    }

    /// Waits for the first `bytes` of the read-back buffer.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`].
    pub(in super::super) async fn fetch(
        &mut self,
        read_back: &Buffer,
        bytes: u64,
    ) -> Result<Vec<u32>, InferError> {
        let lost = |e: &dyn std::fmt::Display| {
            InferError::DeviceLost(self.failure.get().unwrap_or_else(|| e.to_string()))
        };
        let (sender, receiver) = oneshot::channel();
        read_back.0.map_async(MapMode::Read, 0..bytes, move |outcome| {
            // The receiver is gone only if the call was dropped.
            let _ = sender.send(outcome);
        });
        // wgpu panics where a device is lost in this wait, and says why.
        let waited = catch_unwind(AssertUnwindSafe(|| {
            self.device.poll(PollType::wait_indefinitely()).map_err(|e| lost(&e))
        }));
        waited.unwrap_or_else(|panic| match panic.downcast_ref::<String>() {
            Some(said) => Err(lost(said)),
            None => Err(lost(&"the device was lost")),
        })?;
        receiver.await.map_err(|e| lost(&e))?.map_err(|e| lost(&e))?;
        let words = {
            let view = read_back.0.get_mapped_range(0..bytes).map_err(|e| lost(&e))?;
            bytemuck::pod_collect_to_vec(&view)
        };
        read_back.0.unmap();
        self.counts.read_backs += 1;
        Ok(words)
    }
}

fn add(pass: &mut ComputePass<'_>, launch: &Launch<'_>) {
    pass.set_bind_group(0, &launch.group.0, &[launch.params_at]);
    pass.dispatch_workgroups(launch.workgroups[0], launch.workgroups[1], 1);
}

/// What only benchmarks ask for.
#[cfg(feature = "testing")]
impl Device {
    /// Launches each in a pass of its own and returns the nanoseconds that each took.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] where the adapter has no timestamps, [`InferError::DeviceLost`].
    pub(in super::super) async fn profile(
        &mut self,
        launches: &[Launch<'_>],
    ) -> Result<Vec<f64>, InferError> {
        if !self.device.features().contains(Features::TIMESTAMP_QUERY) {
            return Err(InferError::NoGpu("this adapter has no timestamps".into()));
        }
        let count = 2 * launches.len() as u32;
        let bytes = u64::from(count) * 8;
        let queries = self.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("profile"),
            ty: wgpu::QueryType::Timestamp,
            count,
        });
        let usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
        let resolved = self.buffer_of("profile", bytes, usage);
        let read_back = self.buffer("read-back", bytes, Role::ReadBack)?;
        let mut encoder = self.device.create_command_encoder(&Default::default());
        for (index, launch) in launches.iter().enumerate() {
            let mut pass = encoder.begin_compute_pass(&timed_pass(&queries, index as u32));
            pass.set_pipeline(&launch.kernel.pipeline);
            add(&mut pass, launch);
        }
        encoder.resolve_query_set(&queries, 0..count, &resolved.0, 0);
        encoder.copy_buffer_to_buffer(&resolved.0, 0, &read_back.0, 0, bytes);
        self.queue.submit([encoder.finish()]);
        let period = f64::from(self.queue.get_timestamp_period());
        let words = self.fetch(&read_back, bytes).await?;
        let ticks = words.chunks_exact(2).map(|w| u64::from(w[0]) | u64::from(w[1]) << 32);
        let ticks: Vec<u64> = ticks.collect();
        let spent = |pair: &[u64]| pair[1].saturating_sub(pair[0]) as f64 * period;
        Ok(ticks.chunks_exact(2).map(spent).collect())
    }

    /// Copies `bytes` on the device so many times in one submit and waits for it, for each of `times` in
    /// turn, and returns the seconds that each took.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`].
    pub(in super::super) async fn time_copies(
        &mut self,
        bytes: u64,
        times: &[usize],
    ) -> Result<Vec<f64>, InferError> {
        let usage = BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let [from, to] = ["from", "to"].map(|name| self.buffer_of(name, bytes, usage));
        let read_back = self.buffer("read-back", 4, Role::ReadBack)?;
        let mut seconds = Vec::new();
        for &times in times {
            let begin = std::time::Instant::now();
            let mut encoder = self.device.create_command_encoder(&Default::default());
            for _ in 0..times {
                encoder.copy_buffer_to_buffer(&from.0, 0, &to.0, 0, bytes);
            }
            encoder.copy_buffer_to_buffer(&to.0, 0, &read_back.0, 0, 4);
            self.queue.submit([encoder.finish()]);
            self.fetch(&read_back, 4).await?;
            seconds.push(begin.elapsed().as_secs_f64());
        }
        Ok(seconds)
    }
}

/// A pass that notes its beginning and its end.
#[cfg(feature = "testing")]
fn timed_pass(queries: &wgpu::QuerySet, index: u32) -> ComputePassDescriptor<'_> {
    ComputePassDescriptor {
        label: None,
        timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
            query_set: queries,
            beginning_of_pass_write_index: Some(2 * index),
            end_of_pass_write_index: Some(2 * index + 1),
        }),
    }
}

#[cfg(test)]
mod tests {
    use pollster::block_on;

    use super::*;
    use crate::testing::on_gpu;

    #[test]
    fn waiting_for_a_device_that_is_lost_is_an_error() {
        let Some(mut device) = on_gpu(block_on(Device::open(GpuOptions::default()))) else {
            return;
        };
        let read_back = device.buffer("read-back", 16, Role::ReadBack).unwrap();
        assert_eq!(block_on(device.fetch(&read_back, 16)).unwrap(), [0; 4]);
        device.device.destroy();
        let outcome = block_on(device.fetch(&read_back, 16));
        assert!(matches!(outcome, Err(InferError::DeviceLost(_))), "{outcome:?}");
    }
}
