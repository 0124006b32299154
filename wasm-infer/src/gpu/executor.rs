//! Runs plans on wgpu: the only module that knows it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_channel::oneshot;
use tigret_shaders::{BindingKind, Requirement, Shader, shader};
use wgpu::{
    BindGroup, BindGroupDescriptor, BindGroupEntry, BindGroupLayout, BindGroupLayoutDescriptor,
    BindGroupLayoutEntry, BindingResource, BindingType, Buffer, BufferBinding, BufferBindingType,
    BufferDescriptor, BufferSize, BufferUsages, ComputePass, ComputePassDescriptor,
    ComputePassTimestampWrites, ComputePipeline, ComputePipelineDescriptor, Device,
    DeviceDescriptor, DeviceType, Features, Instance, InstanceDescriptor, Limits, MapMode,
    PipelineLayoutDescriptor, PowerPreference, QuerySet, QuerySetDescriptor, QueryType, Queue,
    RequestAdapterOptions, ShaderModuleDescriptor, ShaderSource, ShaderStages,
    WgslLanguageFeatures,
};

use super::plan::{BufferId, Constant, Dispatch, PARAMS};
use crate::error::InferError;

/// Bytes between the parameters of two dispatches: the largest alignment that WebGPU allows.
const PARAMS_STRIDE: usize = 256;

/// What the last call launched.
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

/// What a device has beyond plain WGSL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extras {
    /// [`Requirement::Halves`].
    pub(super) halves: bool,
    /// [`Requirement::PackedProducts`].
    pub(super) packed_products: bool,
    /// [`Requirement::Subgroups`].
    pub(super) subgroups: bool,
}

struct Kernel {
    shader: &'static Shader,
    layout: BindGroupLayout,
    pipeline: ComputePipeline,
}

/// A device with compiled kernels and the buffers of a plan.
pub(super) struct Executor {
    device: Device,
    queue: Queue,
    adapter: String,
    software: bool,
    extras: Extras,
    kernels: HashMap<&'static str, Kernel>,
    buffers: Vec<Buffer>,
    constants: usize,
    params: Buffer,
    read_back: Buffer,
    /// By kernel and buffers; emptied when scratch buffers are made anew.
    groups: HashMap<(&'static str, Vec<BufferId>), BindGroup>,
    /// Why the device can no longer be used.
    failure: Arc<Mutex<Option<String>>>,
    counts: Counts,
}

impl Executor {
    /// Opens the best adapter and uploads the constants. `subgroups` says that the device will have
    /// subgroups without being asked for them here: wgpu does not know them in a page.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] without an adapter, or where a constant exceeds its limits.
    pub(super) async fn new(constants: &[Constant], subgroups: bool) -> Result<Self, InferError> {
        let no_gpu = |e: &dyn std::fmt::Display| InferError::NoGpu(e.to_string());
        let instance = Instance::new(InstanceDescriptor::new_without_display_handle());
        let options = RequestAdapterOptions {
            power_preference: PowerPreference::HighPerformance,
            ..RequestAdapterOptions::default()
        };
        let adapter = instance.request_adapter(&options).await.map_err(|e| no_gpu(&e))?;
        let packed = WgslLanguageFeatures::Packed4x8IntegerDotProduct;
        let packed_products = instance.wgsl_language_features().contains(packed);
        let available = adapter.limits();
        let wanted = if cfg!(target_arch = "wasm32") {
            Features::SHADER_F16
        } else {
            // Timestamps are for profiles, which a page does not make.
            Features::SHADER_F16 | Features::SUBGROUP | Features::TIMESTAMP_QUERY
        };
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
        let failure = Arc::new(Mutex::new(None));
        let record = |failure: &Arc<Mutex<Option<String>>>, what: String| {
            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(what);
        };
        let slot = Arc::clone(&failure);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            record(&slot, error.to_string());
        }));
        let slot = Arc::clone(&failure);
        device.set_device_lost_callback(move |reason, message| {
            record(&slot, format!("{reason:?}: {message}"));
        });
        let extras = Extras {
            halves: device.features().contains(Features::SHADER_F16),
            packed_products,
            subgroups: subgroups || device.features().contains(Features::SUBGROUP),
        };
        let info = adapter.get_info();
        let name = info.name;
        let params = buffer(&device, "params", PARAMS_STRIDE as u64, BufferUsages::UNIFORM);
        let read_back = read_back_buffer(&device, 4);
        let mut executor = Self {
            device,
            queue,
            adapter: if name.is_empty() { "WebGPU".into() } else { name },
            software: info.device_type == DeviceType::Cpu,
            extras,
            kernels: HashMap::new(),
            buffers: Vec::new(),
            constants: constants.len(),
            params,
            read_back,
            groups: HashMap::new(),
            failure,
            counts: Counts::default(),
        };
        for constant in constants {
            let bytes = constant.words.len() as u64 * 4;
            executor.add(&constant.name, bytes)?;
            executor.upload(BufferId(executor.buffers.len() - 1), &constant.words);
        }
        Ok(executor)
    }

    /// The adapter's name.
    pub(super) fn adapter(&self) -> &str {
        &self.adapter
    }

    /// Whether the adapter is a processor in disguise.
    pub(super) fn is_software(&self) -> bool {
        self.software
    }

    /// What the device has beyond plain WGSL.
    pub(super) fn extras(&self) -> Extras {
        self.extras
    }

    /// Compiles the kernels of these dispatches that have not been compiled yet.
    pub(super) fn compile(&mut self, dispatches: &[Dispatch]) {
        for name in dispatches.iter().map(|dispatch| dispatch.shader) {
            if let Some(shader) = shader(name).filter(|_| !self.kernels.contains_key(name)) {
                self.kernels.insert(name, kernel(&self.device, shader));
            }
        }
    }

    /// What the last call launched.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Makes the scratch buffers anew.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] where one exceeds the adapter's limits.
    pub(super) fn set_scratch(&mut self, scratch: &[(String, u64)]) -> Result<(), InferError> {
        self.groups.clear();
        self.buffers.truncate(self.constants);
        scratch.iter().try_for_each(|(name, bytes)| self.add(name, *bytes))
    }

    /// Puts other words in the place of a constant, in a new buffer if they need one.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] where they exceed the adapter's limits; the old ones stay then.
    pub(super) fn replace(&mut self, id: BufferId, words: &[u32]) -> Result<(), InferError> {
        let bytes = words.len() as u64 * 4;
        if self.buffers[id.0].size() < bytes {
            // Room for as many again, so that adding items one by one does not copy all each time.
            let bytes = (bytes * 2).min(self.limit()).max(bytes);
            self.buffers[id.0] = self.storage("codes", bytes)?;
            self.groups.clear();
        }
        self.upload(id, words);
        Ok(())
    }

    /// Most bytes of a storage buffer.
    pub(super) fn limit(&self) -> u64 {
        let limits = self.device.limits();
        limits.max_storage_buffer_binding_size.min(limits.max_buffer_size)
    }

    fn add(&mut self, name: &str, bytes: u64) -> Result<(), InferError> {
        let buffer = self.storage(name, bytes)?;
        self.buffers.push(buffer);
        Ok(())
    }

    fn storage(&self, name: &str, bytes: u64) -> Result<Buffer, InferError> {
        let limit = self.limit();
        if bytes > limit {
            return Err(InferError::NoGpu(format!(
                "the buffer {name} needs {bytes} bytes, this adapter binds at most {limit}"
            )));
        }
        Ok(buffer(&self.device, name, bytes, BufferUsages::STORAGE))
    }

    /// Puts words at the start of a buffer, before the next call.
    pub(super) fn upload(&self, id: BufferId, words: &[u32]) {
        self.queue.write_buffer(&self.buffers[id.0], 0, bytemuck::cast_slice(words));
    }

    /// Runs dispatches in one pass and one submit, and reads `words` words of `result` back.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`].
    pub(super) async fn run(
        &mut self,
        dispatches: &[Dispatch],
        result: BufferId,
        words: usize,
    ) -> Result<Vec<u32>, InferError> {
        self.check()?;
        let bytes = words as u64 * 4;
        self.get_ready(dispatches, bytes);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&ComputePassDescriptor::default());
            let mut current = "";
            for (index, dispatch) in dispatches.iter().enumerate() {
                if current != dispatch.shader {
                    pass.set_pipeline(&self.kernels[dispatch.shader].pipeline);
                    current = dispatch.shader;
                }
                self.launch(&mut pass, index, dispatch);
            }
        }
        encoder.copy_buffer_to_buffer(&self.buffers[result.0], 0, &self.read_back, 0, bytes);
        self.queue.submit([encoder.finish()]);
        self.counts = Counts { dispatches: dispatches.len(), passes: 1, submits: 1, read_backs: 1 };
        self.fetch(bytes).await
    }

    /// Runs each dispatch in a pass of its own and returns the nanoseconds that each took.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] where the adapter has no timestamps, [`InferError::DeviceLost`].
    pub(super) async fn profile(
        &mut self,
        dispatches: &[Dispatch],
    ) -> Result<Vec<f64>, InferError> {
        self.check()?;
        if !self.device.features().contains(Features::TIMESTAMP_QUERY) {
            return Err(InferError::NoGpu("this adapter has no timestamps".into()));
        }
        let count = 2 * dispatches.len() as u32;
        let bytes = u64::from(count) * 8;
        self.get_ready(dispatches, bytes);
        let queries = self.device.create_query_set(&QuerySetDescriptor {
            label: Some("profile"),
            ty: QueryType::Timestamp,
            count,
        });
        let resolved = buffer(&self.device, "profile", bytes, BufferUsages::QUERY_RESOLVE);
        let mut encoder = self.device.create_command_encoder(&Default::default());
        for (index, dispatch) in dispatches.iter().enumerate() {
            let mut pass = encoder.begin_compute_pass(&timed_pass(&queries, index as u32));
            pass.set_pipeline(&self.kernels[dispatch.shader].pipeline);
            self.launch(&mut pass, index, dispatch);
        }
        encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &self.read_back, 0, bytes);
        self.queue.submit([encoder.finish()]);
        let period = f64::from(self.queue.get_timestamp_period());
        let words = self.fetch(bytes).await?;
        let ticks = words.chunks_exact(2).map(|w| u64::from(w[0]) | u64::from(w[1]) << 32);
        let ticks: Vec<u64> = ticks.collect();
        let spent = |pair: &[u64]| pair[1].saturating_sub(pair[0]) as f64 * period;
        Ok(ticks.chunks_exact(2).map(spent).collect())
    }

    /// Uploads parameters, makes bind groups and room for `bytes` to be read back.
    fn get_ready(&mut self, dispatches: &[Dispatch], bytes: u64) {
        let mut params = vec![0u32; dispatches.len() * PARAMS_STRIDE / 4];
        for (slot, dispatch) in params.chunks_exact_mut(PARAMS_STRIDE / 4).zip(dispatches) {
            slot[..PARAMS].copy_from_slice(&dispatch.params);
        }
        let params_bytes = params.len() as u64 * 4;
        if self.params.size() < params_bytes {
            self.params = buffer(&self.device, "params", params_bytes, BufferUsages::UNIFORM);
            self.groups.clear();
        }
        if self.read_back.size() < bytes {
            self.read_back = read_back_buffer(&self.device, bytes);
        }
        self.queue.write_buffer(&self.params, 0, bytemuck::cast_slice(&params));
        self.compile(dispatches);
        for dispatch in dispatches {
            self.make_group(dispatch);
        }
    }

    fn launch(&self, pass: &mut ComputePass<'_>, index: usize, dispatch: &Dispatch) {
        let group = &self.groups[&(dispatch.shader, dispatch.buffers.clone())];
        pass.set_bind_group(0, group, &[(index * PARAMS_STRIDE) as u32]);
        pass.dispatch_workgroups(dispatch.groups[0], dispatch.groups[1], 1);
    }

    /// Waits for the read-back buffer and takes its words.
    async fn fetch(&self, bytes: u64) -> Result<Vec<u32>, InferError> {
        let (sender, receiver) = oneshot::channel();
        self.read_back.map_async(MapMode::Read, 0..bytes, move |outcome| {
            // The receiver is gone only if the call was dropped.
            let _ = sender.send(outcome);
        });
        #[cfg(not(target_arch = "wasm32"))]
        self.device
            .poll(wgpu::PollType::wait_indefinitely())
            .map_err(|e| InferError::DeviceLost(e.to_string()))?;
        let lost = |e: &dyn std::fmt::Display| InferError::DeviceLost(e.to_string());
        match receiver.await {
            Ok(outcome) => outcome.map_err(|e| self.check().err().unwrap_or(lost(&e)))?,
            Err(e) => return Err(lost(&e)),
        }
        let words = {
            let view = self.read_back.get_mapped_range(0..bytes).map_err(|e| lost(&e))?;
            bytemuck::pod_collect_to_vec(&view)
        };
        self.read_back.unmap();
        self.check()?;
        Ok(words)
    }

    /// Bytes of a buffer.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn bytes(&self, id: BufferId) -> u64 {
        self.buffers[id.0].size()
    }

    /// Copies `bytes` on the device `times` times in one submit, and waits for it.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`].
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) async fn copy(&mut self, bytes: u64, times: usize) -> Result<(), InferError> {
        let [from, to] =
            ["from", "to"].map(|name| buffer(&self.device, name, bytes, BufferUsages::empty()));
        let mut encoder = self.device.create_command_encoder(&Default::default());
        for _ in 0..times {
            encoder.copy_buffer_to_buffer(&from, 0, &to, 0, bytes);
        }
        encoder.copy_buffer_to_buffer(&to, 0, &self.read_back, 0, 4);
        self.queue.submit([encoder.finish()]);
        self.fetch(4).await.map(drop)
    }

    /// Copies a buffer to the host, in a submit of its own: for tests that look at logits.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`].
    pub(super) async fn read(
        &mut self,
        id: BufferId,
        words: usize,
    ) -> Result<Vec<u32>, InferError> {
        let counts = self.counts;
        let outcome = self.run(&[], id, words).await;
        self.counts = counts;
        outcome
    }

    fn check(&self) -> Result<(), InferError> {
        match &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(what) => Err(InferError::DeviceLost(what.clone())),
            None => Ok(()),
        }
    }

    fn make_group(&mut self, dispatch: &Dispatch) {
        let key = (dispatch.shader, dispatch.buffers.clone());
        if self.groups.contains_key(&key) {
            return;
        }
        let kernel = &self.kernels[dispatch.shader];
        let mut storage = dispatch.buffers.iter().map(|id| &self.buffers[id.0]);
        let entries: Vec<BindGroupEntry<'_>> = kernel
            .shader
            .bindings
            .iter()
            .filter_map(|binding| {
                let resource = match binding.kind {
                    BindingKind::Uniform => BindingResource::Buffer(BufferBinding {
                        buffer: &self.params,
                        offset: 0,
                        size: BufferSize::new(PARAMS as u64 * 4),
                    }),
                    BindingKind::Read | BindingKind::ReadWrite => {
                        storage.next()?.as_entire_binding()
                    }
                };
                Some(BindGroupEntry { binding: binding.index, resource })
            })
            .collect();
        let group = self.device.create_bind_group(&BindGroupDescriptor {
            label: Some(dispatch.shader),
            layout: &kernel.layout,
            entries: &entries,
        });
        self.groups.insert(key, group);
    }
}

fn buffer(device: &Device, name: &str, bytes: u64, usage: BufferUsages) -> Buffer {
    device.create_buffer(&BufferDescriptor {
        label: Some(name),
        size: bytes,
        usage: usage | BufferUsages::COPY_DST | BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    })
}

/// A pass that notes its beginning and its end.
fn timed_pass(queries: &QuerySet, index: u32) -> ComputePassDescriptor<'_> {
    ComputePassDescriptor {
        label: None,
        timestamp_writes: Some(ComputePassTimestampWrites {
            query_set: queries,
            beginning_of_pass_write_index: Some(2 * index),
            end_of_pass_write_index: Some(2 * index + 1),
        }),
    }
}

fn read_back_buffer(device: &Device, bytes: u64) -> Buffer {
    device.create_buffer(&BufferDescriptor {
        label: Some("read-back"),
        size: bytes,
        usage: BufferUsages::MAP_READ | BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

fn kernel(device: &Device, shader: &'static Shader) -> Kernel {
    let entries: Vec<BindGroupLayoutEntry> = shader
        .bindings
        .iter()
        .map(|binding| {
            let (ty, dynamic) = match binding.kind {
                BindingKind::Uniform => (BufferBindingType::Uniform, true),
                BindingKind::Read => (BufferBindingType::Storage { read_only: true }, false),
                BindingKind::ReadWrite => (BufferBindingType::Storage { read_only: false }, false),
            };
            BindGroupLayoutEntry {
                binding: binding.index,
                visibility: ShaderStages::COMPUTE,
                ty: BindingType::Buffer { ty, has_dynamic_offset: dynamic, min_binding_size: None },
                count: None,
            }
        })
        .collect();
    let layout = device.create_bind_group_layout(&BindGroupLayoutDescriptor {
        label: Some(shader.name),
        entries: &entries,
    });
    let pipeline_layout = device.create_pipeline_layout(&PipelineLayoutDescriptor {
        label: Some(shader.name),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let enable = match shader.requires {
        Some(Requirement::Halves) => "enable f16;\n",
        // naga has no such directive, browsers demand it.
        Some(Requirement::Subgroups) if cfg!(target_arch = "wasm32") => "enable subgroups;\n",
        Some(Requirement::Subgroups | Requirement::PackedProducts) | None => "",
    };
    let module = device.create_shader_module(ShaderModuleDescriptor {
        label: Some(shader.name),
        source: ShaderSource::Wgsl((enable.to_owned() + &shader.source.concat()).into()),
    });
    let pipeline = device.create_compute_pipeline(&ComputePipelineDescriptor {
        label: Some(shader.name),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: Default::default(),
        cache: None,
    });
    Kernel { shader, layout, pipeline }
}
