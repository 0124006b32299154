//! A device of the browser, in a page or a worker, by web-sys.

#[cfg(not(web_sys_unstable_apis))]
compile_error!(
    "web-sys has WebGPU only with RUSTFLAGS=\"--cfg=web_sys_unstable_apis\", as .cargo/config.toml says"
);

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use js_sys::{Array, JsNullable, Object, Promise, Reflect, Uint32Array};
use tigret_shaders::{Binding, BindingKind, Requirement, Shader};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{
    Gpu, GpuBindGroup, GpuBindGroupDescriptor, GpuBindGroupEntry, GpuBindGroupLayout,
    GpuBindGroupLayoutDescriptor, GpuBindGroupLayoutEntry, GpuBuffer, GpuBufferBinding,
    GpuBufferBindingLayout, GpuBufferBindingType, GpuBufferDescriptor, GpuComputePipeline,
    GpuComputePipelineDescriptor, GpuDevice, GpuDeviceDescriptor, GpuErrorFilter,
    GpuPipelineLayoutDescriptor, GpuPowerPreference, GpuProgrammableStage, GpuQueue,
    GpuRequestAdapterOptions, GpuShaderModuleDescriptor, gpu_buffer_usage as usage, gpu_map_mode,
    gpu_shader_stage,
};

use super::{Bounds, Extras, Failure, Info, Launch, PARAMS_BYTES, Role, source};
use crate::error::InferError;
use crate::gpu::GpuOptions;

/// An open device.
pub(in super::super) struct Device {
    device: GpuDevice,
    queue: GpuQueue,
    pub(in super::super) info: Info,
    pub(in super::super) bounds: Bounds,
    pub(in super::super) failure: Failure,
    /// Who waits for the device, to be woken when it is lost.
    waiting: Rc<Cell<Option<Waker>>>,
}

/// Memory of a device.
pub(in super::super) struct Buffer {
    buffer: GpuBuffer,
    bytes: u64,
}

/// A compiled kernel.
pub(in super::super) struct Kernel {
    pub(in super::super) shader: &'static Shader,
    layout: GpuBindGroupLayout,
    pipeline: GpuComputePipeline,
}

/// Buffers of a launch.
pub(in super::super) struct Group(GpuBindGroup);

impl Buffer {
    /// Its size.
    pub(in super::super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // JavaScript's garbage collector does not see its size, and would free it late.
        self.buffer.destroy();
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.device.destroy();
    }
}

impl Device {
    /// Opens the best adapter with all that kernels can make use of and `wishes` do not exclude.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] without WebGPU or an adapter, or where it opens no device.
    pub(in super::super) async fn open(wishes: GpuOptions) -> Result<Self, InferError> {
        let gpu =
            browser_gpu().ok_or_else(|| InferError::NoGpu("this browser has no WebGPU".into()))?;
        let options = GpuRequestAdapterOptions::new();
        options.set_power_preference(GpuPowerPreference::HighPerformance);
        let adapter = gpu.request_adapter_with_options(&options).await.map_err(no_gpu)?;
        let adapter = adapter
            .into_option()
            .ok_or_else(|| InferError::NoGpu("the browser has no adapter for WebGPU".into()))?;
        let (halves, subgroups) = ("shader-f16", "subgroups");
        let available = adapter.features();
        let wanted = [(halves, wishes.halves), (subgroups, wishes.subgroups)]
            .into_iter()
            .filter(|(feature, wish)| *wish != Some(false) && available.has(feature))
            .map(|(feature, _)| feature.into());
        let descriptor = GpuDeviceDescriptor::new();
        descriptor.set_required_features(&wanted.collect::<Vec<_>>());
        let limits = adapter.limits();
        let (binding, size) = (limits.max_storage_buffer_binding_size(), limits.max_buffer_size());
        let required = Object::new();
        for (name, limit) in [("maxStorageBufferBindingSize", binding), ("maxBufferSize", size)] {
            // Setting a property of a fresh object cannot fail.
            let _ = Reflect::set(&required, &name.into(), &limit.into());
        }
        descriptor.set_required_limits(required.unchecked_ref());
        let device = adapter.request_device_with_descriptor(&descriptor).await.map_err(no_gpu)?;
        let failure = Failure::default();
        let waiting = Rc::new(Cell::<Option<Waker>>::default());
        let (slot, waiter, lost) = (failure.clone(), Rc::clone(&waiting), device.lost());
        spawn_local(async move {
            if let Ok(info) = lost.await {
                slot.record(format!("the device was lost: {}", info.message()));
            }
            if let Some(waker) = waiter.take() {
                waker.wake();
            }
        });
        keep_errors(&device);
        let (granted, of_adapter) = (device.features(), adapter.info());
        // The property has moved from the adapter to its `info`; some browsers have neither.
        let before = Reflect::get(&adapter, &"isFallbackAdapter".into()).ok();
        let swiftshader = of_adapter.architecture() == "swiftshader";
        let is_fallback = of_adapter.is_fallback_adapter()
            || before.is_some_and(|value| value.is_truthy())
            || swiftshader;
        let language = gpu.wgsl_language_features();
        // Firefox does not tell whose the adapter is.
        let may_be_of = |system: &str| of_adapter.vendor().is_empty() && is_on(system);
        let info = Info {
            software: is_fallback,
            // A page is not told the backend, but this vendor's is Metal.
            unpacks: of_adapter.vendor() == "apple" || may_be_of("Mac OS X"),
            extras: Extras {
                halves: granted.has(halves),
                packed_products: language.has("packed_4x8_integer_dot_product"),
                subgroups: granted.has(subgroups),
            },
            limit: binding.min(size) as u64,
        };
        // Firefox on Linux has Mesa's, and does not say so; nor, if it hides what it runs on, that this
        // is no GPU.
        let mesa = (is_fallback && !swiftshader) || may_be_of("Linux");
        let bounds = if mesa { Bounds::MESA_SOFTWARE } else { Bounds::HARDWARE };
        Ok(Self { queue: device.queue(), info, bounds, failure, waiting, device })
    }

    /// Makes a buffer of zeros.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] where the browser refuses it.
    pub(in super::super) fn buffer(
        &self,
        name: &str,
        bytes: u64,
        role: Role,
    ) -> Result<Buffer, InferError> {
        let usage = usage::COPY_DST
            | match role {
                Role::Storage => usage::STORAGE | usage::COPY_SRC,
                Role::Params => usage::UNIFORM,
                Role::ReadBack => usage::MAP_READ,
            };
        let descriptor = GpuBufferDescriptor::new_with_f64(bytes as f64, usage);
        descriptor.set_label(name);
        let buffer = self.device.create_buffer(&descriptor).map_err(no_gpu)?;
        Ok(Buffer { buffer, bytes })
    }

    /// Puts words at the start of a buffer, before the next submit.
    pub(in super::super) fn write(&self, buffer: &Buffer, words: &[u32]) {
        let bytes = bytemuck::cast_slice(words);
        let outcome = self.queue.write_buffer_with_f64_and_u8_slice(&buffer.buffer, 0.0, bytes);
        self.note(outcome);
    }

    /// Keeps an exception of a call that has no other way to fail.
    fn note(&self, outcome: Result<(), JsValue>) {
        if let Err(error) = outcome {
            self.failure.record(message(&error));
        }
    }

    /// Compiles kernels, all at the same time.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`] where the browser refuses one.
    pub(in super::super) async fn kernels(
        &self,
        shaders: &[&'static Shader],
    ) -> Result<Vec<Kernel>, InferError> {
        let layouts: Vec<_> =
            shaders.iter().map(|shader| self.layout(shader)).collect::<Result<_, _>>()?;
        let begun: Array = shaders
            .iter()
            .zip(&layouts)
            .map(|(shader, layout)| {
                let layouts = [JsNullable::wrap(layout.clone())];
                let pipeline_layout =
                    self.device.create_pipeline_layout(&GpuPipelineLayoutDescriptor::new(&layouts));
                let directives = match shader.requires {
                    Some(Requirement::Halves) => "enable f16;\n",
                    Some(Requirement::Subgroups) => "enable subgroups;\n",
                    Some(Requirement::PackedProducts) | None => "",
                };
                let descriptor = GpuShaderModuleDescriptor::new(&source(shader, directives));
                descriptor.set_label(shader.name);
                let module = self.device.create_shader_module(&descriptor);
                let stage = GpuProgrammableStage::new(&module);
                stage.set_entry_point("main");
                let descriptor = GpuComputePipelineDescriptor::new(&pipeline_layout, &stage);
                descriptor.set_label(shader.name);
                JsValue::from(self.device.create_compute_pipeline_async(&descriptor))
            })
            .collect();
        // All in one: a refusal that nothing awaits yet would be unhandled, and end the worker.
        let pipelines = Array::from(&self.errors_and(&Promise::all(&begun)).await?);
        let parts = shaders.iter().zip(layouts).zip(pipelines.iter());
        Ok(parts
            .map(|((shader, layout), pipeline)| Kernel {
                shader,
                layout,
                pipeline: pipeline.unchecked_into(),
            })
            .collect())
    }

    fn layout(&self, shader: &Shader) -> Result<GpuBindGroupLayout, InferError> {
        let entry = |binding: &Binding| {
            let buffer = GpuBufferBindingLayout::new();
            match binding.kind {
                BindingKind::Uniform => buffer.set_has_dynamic_offset(true),
                BindingKind::Read => buffer.set_type(GpuBufferBindingType::ReadOnlyStorage),
                BindingKind::ReadWrite => buffer.set_type(GpuBufferBindingType::Storage),
            }
            let entry =
                GpuBindGroupLayoutEntry::new(binding.index.into(), gpu_shader_stage::COMPUTE);
            entry.set_buffer(&buffer);
            entry
        };
        let entries: Vec<_> = shader.bindings.iter().map(entry).collect();
        let descriptor = GpuBindGroupLayoutDescriptor::new(&entries);
        self.device.create_bind_group_layout(&descriptor).map_err(no_gpu)
    }

    /// Binds parameters and, in the order of the kernel's bindings, storage buffers.
    pub(in super::super) fn group<'a>(
        &self,
        kernel: &Kernel,
        params: &'a Buffer,
        mut storage: impl Iterator<Item = &'a Buffer>,
    ) -> Group {
        let entries: Vec<GpuBindGroupEntry> = kernel
            .shader
            .bindings
            .iter()
            .filter_map(|binding| {
                let resource = match binding.kind {
                    BindingKind::Uniform => {
                        let resource = GpuBufferBinding::new(&params.buffer);
                        resource.set_size(PARAMS_BYTES as u32);
                        resource
                    }
                    BindingKind::Read | BindingKind::ReadWrite => {
                        GpuBufferBinding::new(&storage.next()?.buffer)
                    }
                };
                Some(GpuBindGroupEntry::new_with_gpu_buffer_binding(
                    binding.index.into(),
                    &resource,
                ))
            })
            .collect();
        let descriptor = GpuBindGroupDescriptor::new(&entries, &kernel.layout);
        Group(self.device.create_bind_group(&descriptor))
    }

    /// Launches in one pass and one submit, then copies the first `bytes` of `result`.
    pub(in super::super) fn submit(
        &self,
        launches: &[Launch<'_>],
        result: &Buffer,
        read_back: &Buffer,
        bytes: u64,
    ) {
        let encoder = self.device.create_command_encoder();
        let pass = encoder.begin_compute_pass();
        let mut current: Option<&Kernel> = None;
        for launch in launches {
            if !current.is_some_and(|kernel| std::ptr::eq(kernel, launch.kernel)) {
                pass.set_pipeline(&launch.kernel.pipeline);
                current = Some(launch.kernel);
            }
            let outcome = pass
                .set_bind_group_with_u32_slice_and_u32_and_dynamic_offsets_data_length(
                    0,
                    Some(&launch.group.0),
                    &[launch.params_at],
                    0,
                    1,
                );
            self.note(outcome);
            let [x, y] = launch.workgroups;
            pass.dispatch_workgroups_with_workgroup_count_y(x, y);
        }
        pass.end();
        let (from, to) = (&result.buffer, &read_back.buffer);
        let outcome = encoder.copy_buffer_to_buffer_with_f64_and_f64_and_f64(
            from,
            0.0,
            to,
            0.0,
            bytes as f64,
        );
        self.note(outcome);
        self.queue.submit(&[encoder.finish()]);
    }

    /// Waits until the browser has accepted all calls so far.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`] where one of them failed.
    pub(in super::super) async fn settle(&self) -> Result<(), InferError> {
        self.errors_and(&JsValue::UNDEFINED).await.map(drop)
    }

    /// The value of `promise`, unless something went wrong since the last check or the device is
    /// lost.
    async fn errors_and(&self, promise: &JsValue) -> Result<JsValue, InferError> {
        // Memory first: a buffer that got none makes whatever uses it invalid.
        let memory = self.device.pop_error_scope();
        let internal = self.device.pop_error_scope();
        let validation = self.device.pop_error_scope();
        keep_errors(&self.device);
        let all = Array::of4(&memory, &internal, &validation, promise);
        let mut all = JsFuture::from(Promise::all(&all));
        let outcome = poll_fn(|context| {
            // A lost device may leave promises as they are.
            self.waiting.set(Some(context.waker().clone()));
            match self.failure.get() {
                Some(_) => Poll::Ready(Err(JsValue::UNDEFINED)),
                None => Pin::new(&mut all).poll(context),
            }
        });
        let mut brought = JsValue::UNDEFINED;
        match outcome.await {
            Err(error) => self.failure.record(message(&error)),
            Ok(outcomes) => {
                let outcomes = Array::from(&outcomes);
                brought = outcomes.pop();
                for error in outcomes.iter().filter(JsValue::is_object) {
                    self.failure.record(message(&error));
                }
            }
        }
        self.failure.check()?;
        Ok(brought)
    }

    /// Waits for the first `bytes` of the read-back buffer.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`].
    pub(in super::super) async fn fetch(
        &self,
        read_back: &Buffer,
        bytes: u64,
    ) -> Result<Vec<u32>, InferError> {
        let (buffer, bytes) = (&read_back.buffer, bytes as f64);
        let mapped = buffer.map_async_with_f64_and_f64(gpu_map_mode::READ, 0.0, bytes);
        self.errors_and(&mapped).await?;
        let mapped = buffer.get_mapped_range_with_f64_and_f64(0.0, bytes).map_err(device_lost)?;
        let words = Uint32Array::new(&mapped).to_vec();
        buffer.unmap();
        Ok(words)
    }
}

/// Has the browser keep the first error of each kind until it is asked for.
fn keep_errors(device: &GpuDevice) {
    for kind in [GpuErrorFilter::Validation, GpuErrorFilter::Internal, GpuErrorFilter::OutOfMemory]
    {
        device.push_error_scope(kind);
    }
}

/// `navigator.gpu`.
fn browser_gpu() -> Option<Gpu> {
    let gpu = of_navigator("gpu")?;
    (!gpu.is_undefined() && !gpu.is_null()).then(|| gpu.unchecked_into())
}

/// Whether `navigator.userAgent` names a system.
fn is_on(system: &str) -> bool {
    let agent = of_navigator("userAgent").and_then(|text| text.as_string()).unwrap_or_default();
    // `contains` has an algorithm for long texts, a kilobyte of the module.
    agent.as_bytes().windows(system.len()).any(|part| part == system.as_bytes())
}

/// A property of the navigator, of a window or of a worker.
fn of_navigator(name: &str) -> Option<JsValue> {
    let navigator = Reflect::get(&js_sys::global(), &"navigator".into()).ok()?;
    Reflect::get(&navigator, &name.into()).ok()
}

fn no_gpu(error: JsValue) -> InferError {
    InferError::NoGpu(message(&error))
}

fn device_lost(error: JsValue) -> InferError {
    InferError::DeviceLost(message(&error))
}

/// What an exception says.
fn message(error: &JsValue) -> String {
    let message = Reflect::get(error, &"message".into()).ok();
    message.and_then(|text| text.as_string()).unwrap_or_else(|| format!("{error:?}"))
}
