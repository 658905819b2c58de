//! A scope of names inside a checkpoint, and how the tensors read from it are held.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::{Checkpoint, Error, Result};

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

/// Whether the blocks of a network stay in memory after their turn. It never changes a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Residency {
    /// Every block is read on its first turn and kept.
    Resident,
    /// Every block is read for its turn and dropped after it.
    Streamed,
}

/// How a network's tensors are held once they are read.
#[derive(Debug, Clone)]
pub struct Holding {
    /// The device that computes with them.
    pub device: Device,
    /// The type that they are held in.
    pub weight_type: WeightType,
    /// Whether they stay.
    pub residency: Residency,
}

impl Holding {
    /// The type in which a network computes between its weights: 32 bits on a processor, which multiplies
    /// weights of any type into them, and the weights' own type elsewhere.
    pub fn activation_type(&self) -> DType {
        match (&self.device, self.weight_type) {
            (Device::Cpu, _) | (_, WeightType::F32) => DType::F32,
            (_, WeightType::AsStored | WeightType::Bf16) => DType::BF16,
        }
    }
}

/// The tensors of a checkpoint whose names begin with a prefix.
#[derive(Debug, Clone)]
pub struct Weights {
    checkpoint: Arc<Checkpoint>,
    holding: Arc<Holding>,
    prefix: String,
}

impl Weights {
    /// All tensors of `checkpoint`.
    pub fn new(checkpoint: Checkpoint, holding: Holding) -> Self {
        Self {
            checkpoint: Arc::new(checkpoint),
            holding: Arc::new(holding),
            prefix: String::new(),
        }
    }

    /// The tensors below `name`: `weights.scope("norm1").tensor("weight", …)` reads `norm1.weight`.
    pub fn scope(&self, name: impl std::fmt::Display) -> Self {
        Self {
            checkpoint: self.checkpoint.clone(),
            holding: self.holding.clone(),
            prefix: format!("{}{name}.", self.prefix),
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

    /// Reads the tensor `name`, which must have the shape `wanted`, onto the device.
    ///
    /// # Errors
    /// It is missing, has another shape, cannot be read, or the device has no room.
    pub fn tensor(&self, name: &str, wanted: &[usize]) -> Result<Tensor> {
        let full_name = self.full_name(name);
        self.check_shape(&full_name, wanted)?;
        self.hold(self.checkpoint.read(&full_name)?)
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
        self.hold(self.checkpoint.read_rows(&full_name, rows)?)
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

    fn hold(&self, tensor: Tensor) -> Result<Tensor> {
        let held_type = match (self.holding.weight_type, &self.holding.device) {
            (WeightType::AsStored, Device::Cpu) => tensor.dtype(),
            (WeightType::AsStored | WeightType::Bf16, _) => DType::BF16,
            (WeightType::F32, _) => DType::F32,
        };
        Ok(tensor.to_dtype(held_type)?.to_device(&self.holding.device)?)
    }
}
