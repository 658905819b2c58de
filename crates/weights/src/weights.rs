//! A scope of names inside a checkpoint, from which networks read their tensors.

use std::any::TypeId;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use sd_ops::Capabilities;

use crate::block_cache::BlockKey;
use crate::buffers::Buffers;
use crate::device::unshared_buffers;
use crate::inspection::Inspection;
use crate::stored::{HeldRows, default_type};
use crate::{Adapters, Checkpoint, Naming, ProjectionWeight, Residency, Result, WeightOptions};

/// The tensors of a checkpoint whose names begin with a prefix, and the options for holding them.
#[derive(Debug, Clone)]
pub struct Weights {
    checkpoint: Arc<Checkpoint>,
    options: Arc<WeightOptions>,
    reading: Reading,
    prefix: String,
    /// The name in the cache of blocks.
    cached_as: Option<Arc<str>>,
}

/// How a requested tensor is provided.
#[derive(Debug, Clone)]
enum Reading {
    /// Reads it into memory of its own.
    Alone,
    /// Reads it into these buffers.
    Into(Arc<dyn Buffers>),
    /// Checks its header and returns zeros.
    Inspected(Arc<Inspection>),
}

/// A table, such as token embeddings, of which single rows are read. Its header was checked when this was
/// created.
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
            cached_as: None,
        }
    }

    /// The same tensors with the LoRA updates of `adapters`, which are added while tensors are read.
    /// [`Weights::shape`] and [`Weights::bytes`] do not change.
    pub fn with_adapters(&self, adapters: Arc<Adapters>) -> Self {
        Self {
            checkpoint: Arc::new(self.checkpoint.with_updates(adapters)),
            ..self.clone()
        }
    }

    /// The same tensors, whose blocks are cached under `name` where the options have a
    /// [cache](WeightOptions::block_cache). The name must differ wherever the blocks do: by the files and the
    /// configuration of the network, its LoRA updates, the device and the data type.
    pub fn cached_as(&self, name: &str) -> Self {
        Self {
            cached_as: Some(name.into()),
            ..self.clone()
        }
    }

    /// The key of block `index` of a list of `B` in the cache of blocks, if these weights have a name there.
    pub(crate) fn block_key<B: 'static>(&self, index: usize) -> Option<BlockKey> {
        Some(BlockKey {
            weights: self.cached_as.clone()?,
            kind: TypeId::of::<B>(),
            scope: self.prefix.clone(),
            index,
        })
    }

    /// The same tensors with another residency.
    pub fn with_residency(&self, residency: Residency) -> Self {
        Self {
            options: Arc::new(self.options.with_residency(residency)),
            ..self.clone()
        }
    }

    /// The same tensors for a network that runs once.
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

    /// The same tensors for `inspection`, which checks their headers and reads none.
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

    /// The tensors of the whole checkpoint under the names of diffusers, where `naming` has another name for
    /// the same values. Where two get the same name, the one whose original name sorts later has it.
    pub fn in_diffusers_naming(&self, naming: Naming) -> Self {
        let translation = naming.translation(self.checkpoint.tensors().map(|(name, _)| name));
        Self {
            checkpoint: Arc::new(self.checkpoint.renamed(|name| translation.renamed(name))),
            ..self.clone()
        }
    }

    /// The names of the tensors in this scope.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.checkpoint.tensors_below(&self.prefix).map(|(name, _)| name);
        names.filter_map(|name| name.strip_prefix(self.prefix.as_str()))
    }

    /// The options for holding the tensors.
    pub fn options(&self) -> &WeightOptions {
        &self.options
    }

    /// The checkpoint of the tensors.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Whether there is a tensor `name` in this scope.
    pub fn contains(&self, name: &str) -> bool {
        self.checkpoint.header(&self.full_name(name)).is_some()
    }

    /// The stored shape of the tensor `name`, if there is one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.checkpoint
            .header(&self.full_name(name))
            .map(|header| header.shape.as_slice())
    }

    /// The bytes of all tensors in this scope, as stored.
    pub fn bytes(&self) -> u64 {
        self.checkpoint
            .tensors_below(&self.prefix)
            .map(|(_, header)| header.bytes)
            .sum()
    }

    /// The name, the shape and the held bytes of each tensor in this scope. Quantised matrices count as the
    /// weights of projections.
    pub fn held(&self) -> impl Iterator<Item = (&str, &[usize], u64)> {
        let held_type = self.options.held_type();
        let tensors = self.checkpoint.tensors_below(&self.prefix);
        tensors.filter_map(move |(full_name, header)| {
            let name = full_name.strip_prefix(self.prefix.as_str())?;
            if let Some(held) = self.held_rows(full_name) {
                return Some((name, header.shape.as_slice(), held.bytes() as u64));
            }
            let count: usize = header.shape.iter().product();
            let held_type = held_type.or_else(|| default_type(header.element_type));
            let bytes = held_type.map_or(header.bytes, |held| (count * held.size_in_bytes()) as u64);
            Some((name, header.shape.as_slice(), bytes))
        })
    }

    /// The bytes of the largest quantised weight of a projection as its device decodes it, for the time of a product,
    /// of those with `wanted` names. 0 where products decode what they multiply, or nothing is held quantised.
    pub fn decoded_bytes(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        let decodes = Capabilities::of(&self.options.device).decodes_whole_weights;
        if !decodes || !self.options.keeps_quantized() {
            return 0;
        }
        let values = self
            .checkpoint
            .largest_held_rows(|name| name.strip_prefix(self.prefix.as_str()).is_some_and(&wanted));
        (values * self.options.activation_type().size_in_bytes()) as u64
    }

    /// The type in which most of the weights of the file are held; None if it is not one that they are computed
    /// in as they are.
    pub fn main_held_type(&self) -> Option<DType> {
        let held_type = self.options.held_type();
        held_type.or_else(|| default_type(self.checkpoint.main_type()?))
    }

    /// Reads the tensor `name`, which must have the shape `wanted` but for dimensions of a single element, onto
    /// the device. While
    /// [`Blocks::new`](crate::Blocks::new) checks a network, it returns zeros instead.
    ///
    /// # Errors
    /// The tensor is missing, has another shape or an unsupported type, cannot be read, or the device is out
    /// of memory.
    pub fn tensor(&self, name: &str, wanted: &[usize]) -> Result<Tensor> {
        let full_name = self.full_name(name);
        let held_type = self.options.held_type();
        if let Reading::Inspected(inspection) = &self.reading {
            return inspection.tensor(&self.checkpoint, &full_name, wanted, held_type);
        }
        self.checkpoint.check(&full_name, wanted)?;
        let tensor = match &self.reading {
            Reading::Into(buffers) => buffers.read(&self.checkpoint, &full_name, held_type),
            Reading::Alone | Reading::Inspected(_) => {
                unshared_buffers(&self.options.device).read(&self.checkpoint, &full_name, held_type)
            }
        }?;
        // A view of the same values.
        Ok(tensor.reshape(wanted)?)
    }

    /// Reads the weight `name` of a projection, `[outputs, inputs]`, onto the device, as [`Weights::tensor`] does.
    /// It stays quantised if the [options](WeightOptions) allow that, the file stores a matrix of whole blocks, and
    /// no LoRA updates it.
    ///
    /// # Errors
    /// As [`Weights::tensor`].
    pub fn projection(&self, name: &str, outputs: usize, inputs: usize) -> Result<ProjectionWeight> {
        let wanted = [outputs, inputs];
        let full_name = self.full_name(name);
        let Some(held) = self
            .held_rows(&full_name)
            .filter(|_| self.shape(name) == Some(&wanted))
        else {
            return self.tensor(name, &wanted).map(ProjectionWeight::Values);
        };
        let rows = match &self.reading {
            Reading::Inspected(inspection) => inspection.rows(&full_name, held),
            Reading::Into(buffers) => buffers.read_held_rows(&self.checkpoint, &full_name),
            Reading::Alone => {
                unshared_buffers(&self.options.device).read_held_rows(&self.checkpoint, &full_name)
            }
        }?;
        Ok(ProjectionWeight::Quantized {
            rows,
            quantization: held.quantization,
        })
    }

    /// The form in which [`Weights::projection`] holds the tensor, if not as values.
    fn held_rows(&self, full_name: &str) -> Option<HeldRows> {
        let keeps = self.options.keeps_quantized();
        keeps.then(|| self.checkpoint.held_rows(full_name)).flatten()
    }

    /// The table `name`, which must have the shape `wanted`. No row is read yet.
    ///
    /// # Errors
    /// The table is missing, or has another shape or an unsupported type.
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

    /// Refuses files that were modified since they were opened.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        self.checkpoint.check_unchanged()
    }

    /// Drops the tensors of these whole names from the page cache.
    pub(crate) fn forget(&self, names: &[String]) {
        self.checkpoint.forget(names);
    }
}

impl Table {
    /// Reads rows onto the device. A row is a run of the last dimension, counted over all other dimensions.
    /// Row `rows[i]` of the table becomes row `i` of the result, `[rows, width]`.
    ///
    /// # Errors
    /// A row is outside of the table, the file cannot be read, or the device is out of memory.
    pub fn rows(&self, rows: &[usize]) -> Result<Tensor> {
        let options = self.weights.options();
        let tensor = self.weights.checkpoint.read_rows(&self.name, rows)?;
        let held_type = options.held_type().unwrap_or(tensor.dtype());
        Ok(tensor.to_dtype(held_type)?.to_device(&options.device)?)
    }
}
