//! Loading kernels and queueing them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::sys::CUdevice_attribute_enum as Attribute;
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, DeviceRepr, LaunchConfig, PushKernelArg, sys,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::{CudaDevice, DType, Device, Error, bail};

use crate::Result;

/// A file of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Attention,
    /// Empty unless the build was for compute capability 9.0 too.
    AttentionHopper,
    Convolution,
    Copy,
    Decode,
    Elementwise,
    Norm,
}

/// Compiled kernels, aligned as the driver reads them.
#[repr(align(64))]
struct Aligned<T: ?Sized>(T);

impl Source {
    /// What the file was compiled to.
    fn image(self) -> &'static [u8] {
        macro_rules! compiled {
            ($name:literal) => {{
                static IMAGE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(
                    env!("OUT_DIR"),
                    "/",
                    $name,
                    ".fatbin"
                )));
                &IMAGE.0
            }};
        }
        match self {
            Self::Attention => compiled!("attention"),
            Self::AttentionHopper => compiled!("attention_hopper"),
            Self::Convolution => compiled!("convolution"),
            Self::Copy => compiled!("copy"),
            Self::Decode => compiled!("decode"),
            Self::Elementwise => compiled!("elementwise"),
            Self::Norm => compiled!("norm"),
        }
    }
}

/// What was loaded, by the number of the device.
static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

#[derive(Default)]
struct Loaded {
    modules: HashMap<(usize, Source), Arc<CudaModule>>,
    functions: HashMap<(usize, Source, String), Function>,
}

#[derive(Clone)]
struct Function {
    function: CudaFunction,
    /// The shared memory of a block that it may be launched with.
    shared_bytes: u32,
}

/// # Errors
/// The driver does not take the kernels.
fn function(
    context: &Arc<CudaContext>,
    source: Source,
    name: &str,
    shared_bytes: u32,
) -> Result<CudaFunction> {
    let device = context.ordinal();
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    let key = (device, source, name.to_owned());
    let mut found = match loaded.functions.get(&key) {
        Some(found) => found.clone(),
        None => {
            let module = match loaded.modules.get(&(device, source)) {
                Some(module) => module.clone(),
                None => {
                    let module = context
                        .load_module(Ptx::from_binary(source.image().to_vec()))
                        .w()?;
                    loaded.modules.insert((device, source), module.clone());
                    module
                }
            };
            Function {
                function: module.load_function(name).w()?,
                shared_bytes: STATIC_SHARED_BYTES,
            }
        }
    };
    if shared_bytes > found.shared_bytes {
        let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let bytes = i32::try_from(shared_bytes).map_err(Error::wrap)?;
        found.function.set_attribute(attribute, bytes).w()?;
        found.shared_bytes = shared_bytes;
    }
    loaded.functions.insert(key, found.clone());
    Ok(found.function)
}

/// The shared memory of a block that a kernel need not ask for.
const STATIC_SHARED_BYTES: u32 = 48 << 10;

/// The parameters of a kernel, as it has them: one structure of numbers and addresses.
#[repr(transparent)]
struct Parameters<P>(P);

// SAFETY: kernels take their parameters as one structure, which is copied when they are queued. Those of this module are
// `repr(C)` and hold numbers and addresses.
#[allow(unsafe_code)]
unsafe impl<P> DeviceRepr for Parameters<P> {}

/// A kernel, and how many threads run it.
pub(super) struct Kernel<'a> {
    pub(super) source: Source,
    pub(super) name: &'a str,
    /// Blocks of threads.
    pub(super) blocks: [usize; 3],
    /// Threads of a block.
    pub(super) threads: [u32; 3],
    /// Shared memory of a block beside what the kernel declares.
    pub(super) shared_bytes: u32,
}

impl Kernel<'_> {
    /// Queues the kernel with its `parameters`.
    ///
    /// # Errors
    /// The driver does not take the kernel, or fails.
    ///
    /// # Safety
    /// `parameters` are the structure that the kernel declares, and all memory that it names is live on `device` until
    /// the kernel ends: memory is freed in the order of the stream.
    #[allow(unsafe_code)]
    pub(super) unsafe fn launch<P>(&self, device: &CudaDevice, parameters: P) -> Result<()> {
        if self.blocks.contains(&0) {
            return Ok(());
        }
        let stream = device.cuda_stream();
        let function = function(stream.context(), self.source, self.name, self.shared_bytes)?;
        let [width, height, depth] = self
            .blocks
            .map(|blocks| u32::try_from(blocks).map_err(Error::wrap));
        let parameters = Parameters(parameters);
        let mut launch = stream.launch_builder(&function);
        launch.arg(&parameters);
        let threads = LaunchConfig {
            grid_dim: (width?, height?, depth?),
            block_dim: self.threads.into(),
            shared_mem_bytes: self.shared_bytes,
        };
        // SAFETY: as the caller says.
        unsafe { launch.launch(threads) }.w()?;
        Ok(())
    }
}

/// How the names of kernels for a type end.
pub(super) fn suffix(held_type: DType) -> Result<&'static str> {
    match held_type {
        DType::F32 => Ok("f32"),
        DType::F16 => Ok("f16"),
        DType::BF16 => Ok("bf16"),
        other => bail!("operations on an NVIDIA GPU take floats of 16 or 32 bits, not {other:?}"),
    }
}

/// The values of a type that 16 bytes hold.
pub(super) fn lanes(held_type: DType) -> usize {
    16 / held_type.size_in_bytes()
}

/// `count` as kernels take it.
///
/// # Errors
/// It is too large.
pub(super) fn count(count: usize) -> Result<u32> {
    u32::try_from(count).map_err(Error::wrap)
}

/// What [`assume_capability`] has set.
static ASSUMED: OnceLock<(i32, i32)> = OnceLock::new();

/// Chooses kernels as on a GPU of this compute capability, if the GPU has a later one, for the rest of the process: for
/// tests of the kernels of other GPUs. It has no effect after the first operation.
pub fn assume_capability(major: i32, minor: i32) {
    // The first one counts.
    let _ = ASSUMED.set((major, minor));
}

/// Whether `device` runs the kernels for tensor cores: compute capability 8.0, as far as the driver says.
pub(crate) fn has_tensor_cores(device: &Device) -> bool {
    let limits = device.as_cuda_device().and_then(Limits::of);
    limits.is_ok_and(|limits| limits.has_tensor_cores)
}

/// What of a device kernels are chosen by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Whether it has the tensor cores that the kernels for 16 bits use: compute capability 8.0.
    pub(super) has_tensor_cores: bool,
    /// Whether it runs the kernels for Hopper, which run on compute capability 9.0 alone, and the build has them.
    pub(super) is_hopper: bool,
    /// The most shared memory of a block.
    pub(super) shared_bytes: usize,
    /// The multiprocessors, of which each runs at least one block at a time.
    pub(super) multiprocessors: usize,
}

impl Limits {
    /// # Errors
    /// The driver fails.
    pub(super) fn of(device: &CudaDevice) -> Result<Self> {
        static KNOWN: Mutex<Option<HashMap<usize, Limits>>> = Mutex::new(None);
        let stream = device.cuda_stream();
        let context = stream.context();
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        if let Some(limits) = known.get(&context.ordinal()) {
            return Ok(*limits);
        }
        let capability = context.compute_capability().w()?;
        let capability = capability.min(*ASSUMED.get().unwrap_or(&capability));
        let attribute = |attribute| usize::try_from(context.attribute(attribute).w()?).map_err(Error::wrap);
        let limits = Self {
            has_tensor_cores: capability >= (8, 0),
            is_hopper: capability == (9, 0) && !Source::AttentionHopper.image().is_empty(),
            shared_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        };
        known.insert(context.ordinal(), limits);
        Ok(limits)
    }
}
