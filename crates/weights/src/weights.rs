//! A scope of names inside a checkpoint, and how the tensors read from it are held.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Device, Tensor};

use crate::buffers::Buffers;
use crate::inspection::Inspection;
use crate::stored::default_type;
use crate::{Adapters, Checkpoint, HostMemory, Result};

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

/// Requests that networks free resident blocks during a forward pass. A freed block is streamed from then on. Clones
/// share their state.
#[derive(Clone, Default)]
pub struct MemoryPressure(Arc<PressureState>);

#[derive(Default)]
struct PressureState {
    requested: AtomicU64,
    released: AtomicU64,
    /// Reports how many bytes the machine is short of.
    shortfall: Option<Box<dyn Fn() -> u64 + Send + Sync>>,
}

impl MemoryPressure {
    /// Polls `shortfall`, the bytes that the machine is short of, between every two blocks.
    pub fn watching(shortfall: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(PressureState {
            shortfall: Some(Box::new(shortfall)),
            ..PressureState::default()
        }))
    }

    /// Requests that `bytes` be freed. They are freed between two blocks.
    pub fn request(&self, bytes: u64) {
        self.0.requested.fetch_max(bytes, Ordering::Relaxed);
    }

    /// Bytes that were freed since the last call.
    pub fn take_released(&self) -> u64 {
        self.0.released.swap(0, Ordering::Relaxed)
    }

    /// Bytes that are to be freed: those requested or those that the machine is short of, whichever is more. The caller
    /// takes over the request.
    pub(crate) fn take_requested(&self) -> u64 {
        let requested = match self.0.requested.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.0.requested.swap(0, Ordering::Relaxed),
        };
        let shortfall = self.0.shortfall.as_ref().map_or(0, |shortfall| shortfall());
        requested.max(shortfall)
    }

    /// Counts `bytes` as freed.
    pub(crate) fn add_released(&self, bytes: u64) {
        self.0.released.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for MemoryPressure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MemoryPressure")
            .field("requested", &self.0.requested)
            .field("released", &self.0.released)
            .finish_non_exhaustive()
    }
}

/// How the tensors of a network are stored in memory after they are read.
#[derive(Debug, Clone)]
pub struct WeightOptions {
    /// The device that computes with them.
    pub device: Device,
    /// The type that they are held in.
    pub weight_type: WeightType,
    /// Which blocks stay.
    pub residency: Residency,
    /// What becomes of the system's copies of the others.
    pub page_cache: PageCache,
    /// Requests to free resident blocks.
    pub memory_pressure: MemoryPressure,
    /// Where the other blocks are kept beside a device with memory of its own.
    pub host_memory: HostMemory,
}

impl WeightOptions {
    /// Options with the system's page cache kept, no memory pressure, and no host memory beside the device.
    pub fn new(device: Device, weight_type: WeightType, residency: Residency) -> Self {
        Self {
            device,
            weight_type,
            residency,
            page_cache: PageCache::default(),
            memory_pressure: MemoryPressure::default(),
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
    options: Arc<WeightOptions>,
    reading: Reading,
    prefix: String,
}

/// What is done with a tensor that is asked for.
#[derive(Debug, Clone)]
enum Reading {
    /// It is read into memory of its own.
    Alone,
    /// It is read into these.
    Into(Arc<dyn Buffers>),
    /// It is looked up by its header, and not read.
    Inspected(Arc<Inspection>),
}

/// A table of which rows are read, never the whole. That it is there and has its shape is known from its header when this is
/// made.
#[derive(Debug, Clone)]
pub struct Table {
    weights: Weights,
    name: String,
}

impl Weights {
    /// All tensors of `checkpoint`.
    pub fn new(checkpoint: Checkpoint, options: WeightOptions) -> Self {
        Self {
            checkpoint: Arc::new(checkpoint),
            options: Arc::new(options),
            reading: Reading::Alone,
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
            options: Arc::new(self.options.with_residency(residency)),
            ..self.clone()
        }
    }

    /// The same tensors, of which each is needed once.
    pub fn for_one_pass(&self) -> Self {
        Self {
            options: Arc::new(self.options.for_one_pass()),
            ..self.clone()
        }
    }

    /// The same tensors, read into `buffers`.
    pub(crate) fn with_buffers(&self, buffers: &Arc<dyn Buffers>) -> Self {
        Self {
            reading: Reading::Into(buffers.clone()),
            ..self.clone()
        }
    }

    /// The same tensors, of which none is read: each that is asked for is looked up for `inspection`.
    pub(crate) fn inspected(&self, inspection: &Arc<Inspection>) -> Self {
        Self {
            reading: Reading::Inspected(inspection.clone()),
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

    /// The tensors of the whole checkpoint under other names: those that `rename` gives. A tensor that it gives none keeps
    /// its own; where two get the same, it is that of the one whose own comes later in the order of the names.
    pub fn renamed(&self, rename: impl Fn(&str) -> Option<String>) -> Self {
        Self {
            checkpoint: Arc::new(self.checkpoint.renamed(rename)),
            ..self.clone()
        }
    }

    /// The names of the tensors in this scope.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.checkpoint.tensors().map(|(name, _)| name);
        names.filter_map(|name| name.strip_prefix(self.prefix.as_str()))
    }

    /// How the tensors are held.
    pub fn options(&self) -> &WeightOptions {
        &self.options
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
        let held_type = self.options.held_type();
        self.checkpoint.tensors().filter_map(move |(name, header)| {
            let name = name.strip_prefix(self.prefix.as_str())?;
            let count: usize = header.shape.iter().product();
            let held_type = held_type.or_else(|| default_type(header.element_type));
            let size = held_type.map_or(header.element_type.size(), |held| held.size_in_bytes() as u64);
            Some((name, header.shape.as_slice(), count as u64 * size))
        })
    }

    /// Reads the tensor `name`, which must have the shape `wanted`, onto the device. What builds a block of a list is called
    /// once before anything is read, and gets zeros.
    ///
    /// # Errors
    /// It is missing, has another shape or a type that cannot be computed with, cannot be read, or the device has no room.
    pub fn tensor(&self, name: &str, wanted: &[usize]) -> Result<Tensor> {
        let full_name = self.full_name(name);
        let held_type = self.options.held_type();
        if let Reading::Inspected(inspection) = &self.reading {
            return inspection.tensor(&self.checkpoint, &full_name, wanted, held_type);
        }
        self.checkpoint.check(&full_name, wanted)?;
        match &self.reading {
            Reading::Into(buffers) => buffers.read(&self.checkpoint, &full_name, held_type),
            Reading::Alone | Reading::Inspected(_) => {
                let tensor = self.checkpoint.read(&full_name, held_type, None)?;
                Ok(tensor.to_device(&self.options.device)?)
            }
        }
    }

    /// The table `name`, which must have the shape `wanted`. Nothing of it is read.
    ///
    /// # Errors
    /// It is missing, or has another shape or a type that cannot be computed with.
    pub fn table(&self, name: &str, wanted: &[usize]) -> Result<Table> {
        let name = self.full_name(name);
        self.checkpoint.check(&name, wanted)?;
        Ok(Table {
            weights: self.clone(),
            name,
        })
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
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

impl Table {
    /// Reads some rows onto the device. A row is a run of the last dimension, counted over all the others: `rows[i]` of the
    /// table becomes row `i` of the result, `[rows, width]`. Only these rows are read.
    ///
    /// # Errors
    /// A row lies outside of the table, the file cannot be read, or the device has no room.
    pub fn rows(&self, rows: &[usize]) -> Result<Tensor> {
        let options = self.weights.options();
        let tensor = self.weights.checkpoint.read_rows(&self.name, rows)?;
        let held_type = options.held_type().unwrap_or(tensor.dtype());
        Ok(tensor.to_dtype(held_type)?.to_device(&options.device)?)
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
