//! A scope of names inside a checkpoint, and how the tensors read from it are held.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Device, Tensor};

use crate::buffers::Buffers;
use crate::{Adapters, Checkpoint, Error, HostMemory, Result};

/// In which type weights are held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightType {
    /// In the type of the file: what is stored in sixteen bits stays so.
    AsStored,
    /// In 32 bits.
    F32,
    /// In the sixteen bits of `bfloat16`.
    Bf16,
}

/// How many of a list of blocks stay in memory after their turn. It never changes a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Residency {
    /// Every block is read on its first turn and kept.
    Resident,
    /// Every block is read for its turn, ahead of it, and dropped after it.
    Streamed,
    /// This many blocks, spread evenly over the list, are kept; the others are streamed between them.
    Partly(usize),
}

impl Residency {
    /// Streamed blocks that are in memory at a time: one that is computed with and one that is being read.
    pub const WINDOW: usize = 2;

    /// Whether block `index` of a list of `length` is kept.
    pub fn keeps(self, index: usize, length: usize) -> bool {
        match self {
            Self::Resident => true,
            Self::Streamed => false,
            Self::Partly(kept) => (index + 1) * kept / length.max(1) > index * kept / length.max(1),
        }
    }

    /// How many blocks of a list of `length` are kept.
    pub fn kept_of(self, length: usize) -> usize {
        match self {
            Self::Resident => length,
            Self::Streamed => 0,
            Self::Partly(kept) => kept.min(length),
        }
    }
}

/// What becomes of the copies of streamed weights that the system keeps of its own accord.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PageCache {
    /// They stay until the network is dropped, so that the next pass finds them: where there is memory to spare.
    #[default]
    Keep,
    /// They go as soon as they were read: where they would push out what other programs use.
    Release,
}

/// A way to have networks, while they work, give up blocks that they keep and stream them from then on. Its clones
/// are one.
#[derive(Clone, Default)]
pub struct Relief(Arc<ReliefState>);

#[derive(Default)]
struct ReliefState {
    wanted: AtomicU64,
    given: AtomicU64,
    /// Bytes that are missing, as somebody sees it who watches the machine.
    shortfall: Option<Box<dyn Fn() -> u64 + Send + Sync>>,
}

impl Relief {
    /// One that asks `shortfall` between every two blocks how many bytes are missing.
    pub fn watching(shortfall: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(ReliefState {
            shortfall: Some(Box::new(shortfall)),
            ..ReliefState::default()
        }))
    }

    /// Asks for `bytes`. They are given up between two blocks.
    pub fn ask(&self, bytes: u64) {
        self.0.wanted.fetch_max(bytes, Ordering::Relaxed);
    }

    /// Bytes that were given up since this was last asked.
    pub fn take_given(&self) -> u64 {
        self.0.given.swap(0, Ordering::Relaxed)
    }

    /// Bytes that are asked for, or missing; asking makes them this caller's to give.
    pub(crate) fn take_wanted(&self) -> u64 {
        let asked = match self.0.wanted.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.0.wanted.swap(0, Ordering::Relaxed),
        };
        let missing = self.0.shortfall.as_ref().map_or(0, |shortfall| shortfall());
        asked.max(missing)
    }

    pub(crate) fn give(&self, bytes: u64) {
        self.0.given.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for Relief {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Relief")
            .field("wanted", &self.0.wanted)
            .field("given", &self.0.given)
            .finish_non_exhaustive()
    }
}

/// How a network's tensors are held once they are read.
#[derive(Debug, Clone)]
pub struct Holding {
    /// The device that computes with them.
    pub device: Device,
    /// The type that they are held in.
    pub weight_type: WeightType,
    /// Which blocks stay.
    pub residency: Residency,
    /// What becomes of the system's copies of the others.
    pub page_cache: PageCache,
    /// Who may ask for kept blocks back.
    pub relief: Relief,
    /// Where the other blocks are kept beside a device with memory of its own.
    pub host_memory: HostMemory,
}

impl Holding {
    /// A holding that nobody asks to give anything up.
    pub fn new(device: Device, weight_type: WeightType, residency: Residency) -> Self {
        Self {
            device,
            weight_type,
            residency,
            page_cache: PageCache::default(),
            relief: Relief::default(),
            host_memory: HostMemory::default(),
        }
    }

    /// The same, of which `residency` says what stays.
    pub fn with_residency(&self, residency: Residency) -> Self {
        Self {
            residency,
            ..self.clone()
        }
    }

    /// The same for weights of which each is needed once: nothing stays, on the device or beside it, nor with the
    /// system.
    pub fn for_one_pass(&self) -> Self {
        Self {
            residency: Residency::Streamed,
            page_cache: PageCache::Release,
            host_memory: HostMemory::default(),
            ..self.clone()
        }
    }

    /// The type in which a network computes between its weights: 32 bits on a processor, which multiplies
    /// weights of any type into them, and the weights' own type elsewhere.
    pub fn activation_type(&self) -> DType {
        match (&self.device, self.weight_type) {
            (Device::Cpu, _) | (_, WeightType::F32) => DType::F32,
            (_, WeightType::AsStored | WeightType::Bf16) => DType::BF16,
        }
    }

    /// The type that tensors are held in, where it is not the file's.
    fn held_type(&self) -> Option<DType> {
        match (self.weight_type, &self.device) {
            (WeightType::AsStored, Device::Cpu) => None,
            (WeightType::AsStored | WeightType::Bf16, _) => Some(DType::BF16),
            (WeightType::F32, _) => Some(DType::F32),
        }
    }
}

/// The tensors of a checkpoint whose names begin with a prefix.
#[derive(Debug, Clone)]
pub struct Weights {
    checkpoint: Arc<Checkpoint>,
    holding: Arc<Holding>,
    buffers: Option<Arc<dyn Buffers>>,
    prefix: String,
}

impl Weights {
    /// All tensors of `checkpoint`.
    pub fn new(checkpoint: Checkpoint, holding: Holding) -> Self {
        Self {
            checkpoint: Arc::new(checkpoint),
            holding: Arc::new(holding),
            buffers: None,
            prefix: String::new(),
        }
    }

    /// The same tensors, to which `adapters` are added while they are read. What [`Weights::shape`] and
    /// [`Weights::bytes`] say stays as it is.
    pub fn with_adapters(&self, adapters: Arc<Adapters>) -> Self {
        Self {
            checkpoint: Arc::new(self.checkpoint.with_adapters(adapters)),
            ..self.clone()
        }
    }

    /// The same tensors, of which `residency` says what stays of a list of blocks.
    pub fn with_residency(&self, residency: Residency) -> Self {
        Self {
            holding: Arc::new(self.holding.with_residency(residency)),
            ..self.clone()
        }
    }

    /// The same tensors, of which each is needed once.
    pub fn for_one_pass(&self) -> Self {
        Self {
            holding: Arc::new(self.holding.for_one_pass()),
            ..self.clone()
        }
    }

    /// The same tensors, read into `buffers`.
    pub(crate) fn with_buffers(&self, buffers: &Arc<dyn Buffers>) -> Self {
        Self {
            buffers: Some(buffers.clone()),
            ..self.clone()
        }
    }

    /// The tensors below `name`: `weights.scope("norm1").tensor("weight", …)` reads `norm1.weight`.
    pub fn scope(&self, name: impl std::fmt::Display) -> Self {
        Self {
            prefix: format!("{}{name}.", self.prefix),
            ..self.clone()
        }
    }

    /// How the tensors are held.
    pub fn holding(&self) -> &Holding {
        &self.holding
    }

    /// The checkpoint that the tensors come from.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Whether there is a tensor `name` in this scope.
    pub fn contains(&self, name: &str) -> bool {
        self.checkpoint.header(&self.full_name(name)).is_some()
    }

    /// The shape that the file gives the tensor `name`, if there is one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.checkpoint
            .header(&self.full_name(name))
            .map(|header| header.shape.as_slice())
    }

    /// Bytes, as stored, of every tensor in this scope.
    pub fn bytes(&self) -> u64 {
        self.checkpoint
            .tensors()
            .filter(|(name, _)| name.starts_with(&self.prefix))
            .map(|(_, header)| header.bytes)
            .sum()
    }

    /// The tensors of this scope: each one's name in it, its shape, and the bytes that it is held in.
    pub fn held(&self) -> impl Iterator<Item = (&str, &[usize], u64)> {
        let held_type = self.holding.held_type();
        self.checkpoint.tensors().filter_map(move |(name, header)| {
            let name = name.strip_prefix(self.prefix.as_str())?;
            let count: usize = header.shape.iter().product();
            let size = held_type.map_or(header.element_type.size(), |held| held.size_in_bytes() as u64);
            Some((name, header.shape.as_slice(), count as u64 * size))
        })
    }

    /// Reads the tensor `name`, which must have the shape `wanted`, onto the device.
    ///
    /// # Errors
    /// It is missing, has another shape, cannot be read, or the device has no room.
    pub fn tensor(&self, name: &str, wanted: &[usize]) -> Result<Tensor> {
        let full_name = self.full_name(name);
        self.check_shape(&full_name, wanted)?;
        let held_type = self.holding.held_type();
        match &self.buffers {
            Some(buffers) => buffers.read(&self.checkpoint, &full_name, held_type),
            None => {
                let tensor = self.checkpoint.read(&full_name, held_type, None)?;
                Ok(tensor.to_device(&self.holding.device)?)
            }
        }
    }

    /// Reads some rows of the table `name`, which must have the shape `wanted`. A row is a run of the last
    /// dimension, counted over all the others: `rows[i]` of the table becomes row `i` of the result,
    /// `[rows, width]`. Only these rows are read.
    ///
    /// # Errors
    /// As [`Weights::tensor`], and when a row lies outside the table.
    pub fn rows(&self, name: &str, wanted: &[usize], rows: &[usize]) -> Result<Tensor> {
        let full_name = self.full_name(name);
        self.check_shape(&full_name, wanted)?;
        let tensor = self.checkpoint.read_rows(&full_name, rows)?;
        let held_type = self.holding.held_type().unwrap_or(tensor.dtype());
        Ok(tensor.to_dtype(held_type)?.to_device(&self.holding.device)?)
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn check_shape(&self, full_name: &str, wanted: &[usize]) -> Result<()> {
        match self.checkpoint.header(full_name) {
            Some(header) if header.shape == wanted => Ok(()),
            Some(header) => Err(Error::WrongShape {
                file: self.checkpoint.file_of(full_name),
                tensor: full_name.to_owned(),
                wanted: wanted.to_vec(),
                found: header.shape.clone(),
            }),
            None => Err(Error::MissingTensor {
                file: self.checkpoint.place().to_owned(),
                tensor: full_name.to_owned(),
            }),
        }
    }

    /// Refuses files that were written to since they were opened.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        self.checkpoint.check_unchanged()
    }

    /// Tells the system that the bytes of this scope need not be kept at hand.
    pub(crate) fn forget(&self) {
        self.checkpoint.forget(&self.prefix);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_blocks_are_spread_evenly() {
        let kept = |residency: Residency, length: usize| -> Vec<usize> {
            (0..length)
                .filter(|&index| residency.keeps(index, length))
                .collect()
        };
        assert_eq!(kept(Residency::Resident, 4), [0, 1, 2, 3]);
        assert!(kept(Residency::Streamed, 4).is_empty());
        assert_eq!(kept(Residency::Partly(2), 6), [2, 5]);
        for length in [1, 5, 38] {
            for count in 0..=length {
                assert_eq!(kept(Residency::Partly(count), length).len(), count);
            }
        }
    }
}
