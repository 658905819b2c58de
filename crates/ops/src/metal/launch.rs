//! Compiling kernels and queueing them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Error, MetalDevice, bail};
use candle_metal_kernels::metal::{ComputeCommandEncoder, ComputePipeline, ConstantValues, Library, Value};
use objc2_metal::MTLSize;

use crate::Result;

/// A file of kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Convolution,
    Copy,
    Decode,
    Elementwise,
    Norm,
}

impl Source {
    /// The text, with the functions that all of them use.
    fn text(self) -> String {
        let own = match self {
            Self::Convolution => include_str!("kernels/convolution.metal"),
            Self::Copy => include_str!("kernels/copy.metal"),
            Self::Decode => {
                concat!(
                    include_str!("../gpu/quantization.h"),
                    include_str!("kernels/decode.metal")
                )
            }
            Self::Elementwise => include_str!("kernels/elementwise.metal"),
            Self::Norm => include_str!("kernels/norm.metal"),
        };
        [include_str!("kernels/functions.metal"), own].concat()
    }
}

/// A kernel and the values of its function constants, by index.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kernel {
    pub(super) source: Source,
    pub(super) name: &'static str,
    pub(super) held_type: DType,
    /// Whether parts of the kernel are there.
    pub(super) flags: Vec<bool>,
    /// Numbers, whose indices follow those of the flags.
    pub(super) numbers: Vec<u16>,
}

/// What was compiled for each device, by its id in the registry.
static COMPILED: Mutex<Option<Compiled>> = Mutex::new(None);

#[derive(Default)]
struct Compiled {
    libraries: HashMap<(u64, Source), Library>,
    pipelines: HashMap<(u64, Kernel), ComputePipeline>,
}

impl Kernel {
    /// # Errors
    /// It does not compile for the device.
    fn pipeline(&self, device: &MetalDevice) -> Result<ComputePipeline> {
        let id = device.device().registry_id();
        let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
        let compiled = compiled.get_or_insert_default();
        let key = (id, self.clone());
        if let Some(pipeline) = compiled.pipelines.get(&key) {
            return Ok(pipeline.clone());
        }
        let library = match compiled.libraries.get(&(id, self.source)) {
            Some(library) => library.clone(),
            None => {
                let library = device
                    .device()
                    .new_library_with_source(&self.source.text(), None)
                    .map_err(Error::wrap)?;
                compiled.libraries.insert((id, self.source), library.clone());
                library
            }
        };
        let flags = self.flags.iter().map(|&flag| Value::Bool(flag));
        let numbers = self.numbers.iter().map(|&number| Value::U16(number));
        let constants = ConstantValues::new(flags.chain(numbers).enumerate().collect());
        let name = format!("{}_{}", self.name, suffix(self.held_type)?);
        let function = library
            .get_function(&name, Some(&constants))
            .map_err(Error::wrap)?;
        let pipeline = device
            .device()
            .new_compute_pipeline_state_with_function(&function)
            .map_err(Error::wrap)?;
        compiled.pipelines.insert(key, pipeline.clone());
        Ok(pipeline)
    }

    /// Queues the kernel on `groups` groups of `threads` threads each. `bind` sets its arguments.
    ///
    /// # Errors
    /// It does not compile, or the device fails.
    pub(super) fn launch(
        &self,
        device: &MetalDevice,
        groups: [usize; 3],
        threads: [usize; 3],
        bind: impl FnOnce(&ComputeCommandEncoder),
    ) -> Result<()> {
        if groups.contains(&0) {
            return Ok(());
        }
        let pipeline = self.pipeline(device)?;
        let commands = device.command_encoder()?;
        let encoder: &ComputeCommandEncoder = commands.as_ref();
        encoder.set_compute_pipeline_state(&pipeline);
        bind(encoder);
        encoder.dispatch_thread_groups(size(groups), size(threads));
        Ok(())
    }
}

fn size([width, height, depth]: [usize; 3]) -> MTLSize {
    MTLSize { width, height, depth }
}

/// How the names of kernels for a type end.
fn suffix(held_type: DType) -> Result<&'static str> {
    match held_type {
        DType::F32 => Ok("f32"),
        DType::F16 => Ok("f16"),
        DType::BF16 => Ok("bf16"),
        other => bail!("operations on an Apple GPU take floats of 16 or 32 bits, not {other:?}"),
    }
}

/// `count` as kernels take it.
///
/// # Errors
/// It is too large.
pub(super) fn count(count: usize) -> Result<u32> {
    u32::try_from(count).map_err(Error::wrap)
}
