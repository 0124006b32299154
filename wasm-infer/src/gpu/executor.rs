//! Runs plans on a device: owns the buffers and the compiled kernels.

use tigret_shaders::Shader;

use super::GpuOptions;
#[cfg(not(target_arch = "wasm32"))]
use super::device::Counts;
use super::device::{Bounds, Buffer, Device, Group, Info, Kernel, Launch, PARAMS_STRIDE, Role};
use super::params::PARAMS;
use super::plan::{BufferId, Constant, Dispatch};
use crate::error::InferError;

/// A kernel that has been launched or will be.
struct Compiled {
    kernel: Kernel,
    /// With their buffers; emptied when a buffer is replaced.
    groups: Vec<(Vec<BufferId>, Group)>,
}

/// Where a dispatch's kernel is among those compiled, and its group among the kernel's.
type Place = (usize, usize);

/// A device with compiled kernels and the buffers of a plan.
pub(super) struct Executor {
    kernels: Vec<Compiled>,
    buffers: Vec<Buffer>,
    constants: usize,
    params: Buffer,
    read_back: Buffer,
    // The last field: it outlives the buffers.
    device: Device,
}

impl Executor {
    /// Opens the best adapter, without what `wishes` exclude, and uploads the constants.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] without an adapter, or where a constant exceeds its limits.
    pub(super) async fn new(
        constants: &[Constant],
        wishes: GpuOptions,
    ) -> Result<Self, InferError> {
        let device = Device::open(wishes).await?;
        let params = device.buffer("params", PARAMS_STRIDE as u64, Role::Params)?;
        let read_back = device.buffer("read-back", 4, Role::ReadBack)?;
        let mut executor = Self {
            kernels: Vec::new(),
            buffers: Vec::new(),
            constants: constants.len(),
            params,
            read_back,
            device,
        };
        for constant in constants {
            let buffer = executor.storage(&constant.name, constant.words.len() as u64 * 4)?;
            executor.device.write(&buffer, &constant.words);
            executor.buffers.push(buffer);
        }
        Ok(executor)
    }

    /// The adapter's name.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn adapter(&self) -> &str {
        &self.device.name
    }

    /// What there is to know of the device.
    pub(super) fn info(&self) -> &Info {
        &self.device.info
    }

    /// Compiles the kernels of these dispatches that have not been compiled yet, and tells where each
    /// one's is.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`] for one that the device refuses: it has failed, and may do better
    /// with kernels that ask for less.
    pub(super) async fn compile(
        &mut self,
        dispatches: &[Dispatch],
    ) -> Result<Vec<usize>, InferError> {
        let mut shaders: Vec<&'static Shader> =
            self.kernels.iter().map(|compiled| compiled.kernel.shader).collect();
        let compiled = shaders.len();
        let place = |Dispatch { shader, .. }: &Dispatch| {
            place_or_push(&mut shaders, |other| other.name == shader.name, || shader)
        };
        let places = dispatches.iter().map(place).collect();
        // In a page, compiling nothing would still wait for the browser.
        if shaders.len() > compiled {
            let kernels = self.device.kernels(&shaders[compiled..]).await?;
            let compiled = |kernel| Compiled { kernel, groups: Vec::new() };
            self.kernels.extend(kernels.into_iter().map(compiled));
        }
        Ok(places)
    }

    /// Drops all groups of buffers, one of which has been replaced.
    fn forget_groups(&mut self) {
        self.kernels.iter_mut().for_each(|compiled| compiled.groups.clear());
    }

    /// What the device has been asked for so far.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn counts(&self) -> Counts {
        self.device.counts
    }

    /// Whether the device can hold each of these buffers.
    pub(super) fn holds(&self, buffers: &[(String, u64)]) -> bool {
        buffers.iter().all(|(_, bytes)| *bytes <= self.limit())
    }

    /// Replaces the scratch buffers whose size has changed.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] where one exceeds the adapter's limits or cannot be had; the old ones stay
    /// then.
    pub(super) fn set_scratch(&mut self, scratch: &[(String, u64)]) -> Result<(), InferError> {
        let remedy = "use the CPU engine or fewer beams";
        scratch.iter().try_for_each(|(name, bytes)| self.check_size(name, *bytes, remedy))?;
        // All are made before one is replaced, since each may be the one that cannot be had.
        let mut made = Vec::new();
        for (index, (name, bytes)) in (self.constants..).zip(scratch) {
            if self.buffers.get(index).is_none_or(|old| old.bytes() != *bytes) {
                made.push((index, self.device.buffer(name, *bytes, Role::Storage)?));
            }
        }
        if !made.is_empty() {
            self.forget_groups();
        }
        self.buffers.truncate(self.constants + scratch.len());
        for (index, buffer) in made {
            match self.buffers.get_mut(index) {
                Some(old) => *old = buffer,
                None => self.buffers.push(buffer),
            }
        }
        Ok(())
    }

    /// Replaces the words of a constant, in a larger buffer if they need one.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] where they exceed the adapter's limits; the old ones stay then.
    pub(super) fn replace(&mut self, id: BufferId, words: &[u32]) -> Result<(), InferError> {
        let bytes = words.len() as u64 * 4;
        if self.buffers[id.0].bytes() < bytes {
            // Twice the room, so that adding items one by one does not make a new buffer each time.
            let bytes = (bytes * 2).min(self.limit()).max(bytes);
            self.buffers[id.0] = self.storage("codes", bytes)?;
            self.forget_groups();
        }
        self.upload(id, words);
        Ok(())
    }

    /// Most bytes of a storage buffer.
    pub(super) fn limit(&self) -> u64 {
        self.device.info.limit
    }

    /// How far a kernel may loop.
    pub(super) fn bounds(&self) -> Bounds {
        self.device.bounds
    }

    fn check_size(&self, name: &str, bytes: u64, remedy: &str) -> Result<(), InferError> {
        let limit = self.limit();
        if bytes > limit {
            return Err(InferError::NoGpu(format!(
                "the buffer {name} needs {bytes} bytes, this adapter binds at most {limit}; {remedy}"
            )));
        }
        Ok(())
    }

    fn storage(&self, name: &str, bytes: u64) -> Result<Buffer, InferError> {
        self.check_size(name, bytes, "use the CPU engine")?;
        self.device.buffer(name, bytes, Role::Storage)
    }

    /// Puts words at the start of a buffer, before the next call.
    pub(super) fn upload(&self, id: BufferId, words: &[u32]) {
        self.device.write(&self.buffers[id.0], words);
    }

    /// Runs dispatches in one pass and one submit, and reads `words` words of `result` back.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`], also for a kernel that the device refuses.
    pub(super) async fn run(
        &mut self,
        dispatches: &[Dispatch],
        result: BufferId,
        words: usize,
    ) -> Result<Vec<u32>, InferError> {
        self.check()?;
        let bytes = words as u64 * 4;
        if self.read_back.bytes() < bytes {
            self.read_back = self.device.buffer("read-back", bytes, Role::ReadBack)?;
        }
        let places = self.get_ready(dispatches).await?;
        let launches = launches(&self.kernels, dispatches, &places);
        self.device.submit(&launches, &self.buffers[result.0], &self.read_back, bytes);
        let words = self.device.fetch(&self.read_back, bytes).await?;
        self.check()?;
        Ok(words)
    }

    /// Compiles what is missing, uploads parameters and binds buffers.
    async fn get_ready(&mut self, dispatches: &[Dispatch]) -> Result<Vec<Place>, InferError> {
        let kernels = self.compile(dispatches).await?;
        let mut params = vec![0u32; dispatches.len() * PARAMS_STRIDE / 4];
        for (slot, dispatch) in params.chunks_exact_mut(PARAMS_STRIDE / 4).zip(dispatches) {
            slot[..PARAMS].copy_from_slice(&dispatch.params);
        }
        let params_bytes = params.len() as u64 * 4;
        if self.params.bytes() < params_bytes {
            self.params = self.device.buffer("params", params_bytes, Role::Params)?;
            self.forget_groups();
        }
        self.device.write(&self.params, &params);
        let place = |(Dispatch { buffers, .. }, at): (&Dispatch, usize)| {
            let Compiled { kernel, groups } = &mut self.kernels[at];
            let make = || {
                let storage = buffers.iter().map(|id| &self.buffers[id.0]);
                (buffers.clone(), self.device.group(kernel, &self.params, storage))
            };
            (at, place_or_push(groups, |(other, _)| other == buffers, make))
        };
        Ok(dispatches.iter().zip(kernels).map(place).collect())
    }

    /// Waits until the device has accepted everything so far.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`] where it refused something, most often memory.
    pub(super) async fn settle(&self) -> Result<(), InferError> {
        self.device.settle().await
    }

    fn check(&self) -> Result<(), InferError> {
        self.device.failure.check()
    }
}

/// The place in a list of what `is` it, which is made and put at the end where there is none.
fn place_or_push<T>(
    list: &mut Vec<T>,
    is: impl FnMut(&T) -> bool,
    make: impl FnOnce() -> T,
) -> usize {
    let place = list.iter().position(is);
    place.unwrap_or_else(|| {
        list.push(make());
        list.len() - 1
    })
}

/// The launches that [`Executor::get_ready`] has prepared.
fn launches<'a>(
    kernels: &'a [Compiled],
    dispatches: &[Dispatch],
    places: &[Place],
) -> Vec<Launch<'a>> {
    let launch = |((dispatch, &(kernel, group)), index): ((&Dispatch, &Place), u32)| {
        let Compiled { kernel, groups } = &kernels[kernel];
        Launch {
            kernel,
            group: &groups[group].1,
            params_at: index * PARAMS_STRIDE as u32,
            workgroups: dispatch.groups,
        }
    };
    dispatches.iter().zip(places).zip(0..).map(launch).collect()
}

/// What only benchmarks ask for.
#[cfg(all(feature = "testing", not(target_arch = "wasm32")))]
impl Executor {
    /// Runs each dispatch in a pass of its own and returns the nanoseconds that each took.
    ///
    /// # Errors
    /// [`InferError::NoGpu`] where the adapter has no timestamps, [`InferError::DeviceLost`].
    pub(super) async fn profile(
        &mut self,
        dispatches: &[Dispatch],
    ) -> Result<Vec<f64>, InferError> {
        self.check()?;
        let places = self.get_ready(dispatches).await?;
        let launches = launches(&self.kernels, dispatches, &places);
        let times = self.device.profile(&launches).await?;
        self.check()?;
        Ok(times)
    }

    /// Bytes of a buffer.
    pub(super) fn bytes(&self, id: BufferId) -> u64 {
        self.buffers[id.0].bytes()
    }

    /// Copies `bytes` on the device so many times in one submit and waits for it, for each of `times` in
    /// turn, and returns the seconds that each took.
    ///
    /// # Errors
    /// [`InferError::DeviceLost`].
    pub(super) async fn time_copies(
        &mut self,
        bytes: u64,
        times: &[usize],
    ) -> Result<Vec<f64>, InferError> {
        let seconds = self.device.time_copies(bytes, times).await?;
        self.check()?;
        Ok(seconds)
    }
}
