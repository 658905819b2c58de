//! One network's tensors in one file or several, known by their headers and read by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytemuck::Zeroable;
use candle_core::{DType, Device, Tensor, WithDType};
use half::{bf16, f16};
use serde::Deserialize;

use crate::host_buffers::{Elements, HostBuffers};
use crate::lora::{Adapters, Merge};
use crate::similar_name::similar;
use crate::source::Source;
use crate::{ElementType, Error, ModelFolder, Result, TensorHeader, header, torch};

/// Values that are converted at a time where a file's type is not the one that a tensor is held in.
const CONVERTED_AT_A_TIME: usize = 1 << 20;

/// Values of so many bytes that are converted at a time.
const fn converted_at_a_time(element_bytes: usize) -> usize {
    match element_bytes {
        8 => CONVERTED_AT_A_TIME / 2,
        _ => CONVERTED_AT_A_TIME,
    }
}

/// Bytes that reading `count` elements of so many bytes into 32-bit numbers takes beside these.
pub(crate) fn converting_takes(count: usize, element_bytes: usize) -> usize {
    match element_bytes {
        4 => 0,
        _ => count.min(converted_at_a_time(element_bytes)) * element_bytes,
    }
}

/// The type in which elements are held where no other is asked for: the file's own, and 32 bits for numbers of 64, which
/// nothing is computed with. None for those that are no weights.
pub(crate) fn default_type(element_type: ElementType) -> Option<DType> {
    match element_type {
        ElementType::F32 | ElementType::F64 => Some(DType::F32),
        ElementType::F16 => Some(DType::F16),
        ElementType::Bf16 => Some(DType::BF16),
        _ => None,
    }
}

/// A network's tensors: names, types, shapes and where their bytes are. No weight is held.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    place: PathBuf,
    tensors: BTreeMap<String, Stored>,
    /// What is added to tensors while they are read.
    adapters: Option<Arc<Adapters>>,
}

#[derive(Debug, Clone)]
struct Stored {
    header: TensorHeader,
    source: Arc<Source>,
    /// What the file calls it, where that is not the name that it is asked for by.
    saved_as: Option<String>,
}

/// What an index says: which file of the component's folder holds each tensor.
#[derive(Deserialize)]
pub(crate) struct ShardIndex {
    pub(crate) weight_map: BTreeMap<String, String>,
}

/// The tensors of a file, whose format is known by how it begins.
fn headers(source: &Source) -> Result<BTreeMap<String, TensorHeader>> {
    if torch::wrote(source)? {
        torch::read(source)
    } else {
        header::read(source)
    }
}

impl Checkpoint {
    /// Opens the file at `path`: safetensors, or what PyTorch writes (`.pth`, `.ckpt`, `.bin`), of which nothing is run.
    ///
    /// # Errors
    /// It is missing, is neither, is damaged, or a pickle in it refers to anything but tensors
    /// ([`Error::ForbiddenGlobal`]).
    pub fn open_file(path: impl Into<PathBuf>) -> Result<Self> {
        Self::open(Arc::new(Source::open(path.into())?))
    }

    pub(crate) fn open(source: Arc<Source>) -> Result<Self> {
        let tensors = headers(&source)?
            .into_iter()
            .map(|(name, header)| {
                (
                    name,
                    Stored {
                        header,
                        source: source.clone(),
                        saved_as: None,
                    },
                )
            })
            .collect();
        Ok(Self {
            place: source.path().to_owned(),
            tensors,
            adapters: None,
        })
    }

    /// Opens the shards that `index` lists: `weight_map` says for every tensor which file holds it.
    pub(crate) fn open_shards(folder: &ModelFolder, component: &str, index: &str) -> Result<Self> {
        let index: ShardIndex = folder.json(index)?;
        let mut shards = BTreeMap::new();
        let mut tensors = BTreeMap::new();
        for (tensor, shard) in index.weight_map {
            if !shards.contains_key(&shard) {
                let source = folder.source(&format!("{component}/{shard}"))?;
                let headers = headers(&source)?;
                shards.insert(shard.clone(), (source, headers));
            }
            let (source, headers) = &shards[&shard];
            let Some(header) = headers.get(&tensor) else {
                return Err(Error::MissingFromShard {
                    file: source.path().to_owned(),
                    tensor,
                });
            };
            tensors.insert(
                tensor,
                Stored {
                    header: header.clone(),
                    source: source.clone(),
                    saved_as: None,
                },
            );
        }
        Ok(Self {
            place: folder.root().join(component),
            tensors,
            adapters: None,
        })
    }

    /// The same tensors, to which `adapters` are added while they are read.
    pub(crate) fn with_adapters(&self, adapters: Arc<Adapters>) -> Self {
        Self {
            adapters: Some(adapters),
            ..self.clone()
        }
    }

    /// The same tensors under the names that `rename` gives; what it gives none keeps its own.
    pub(crate) fn renamed(&self, rename: impl Fn(&str) -> Option<String>) -> Self {
        let tensors = self.tensors.iter().map(|(name, stored)| match rename(name) {
            Some(new) => {
                let saved_as = stored.saved_as.clone().or_else(|| Some(name.clone()));
                (
                    new,
                    Stored {
                        saved_as,
                        ..stored.clone()
                    },
                )
            }
            None => (name.clone(), stored.clone()),
        });
        Self {
            tensors: tensors.collect(),
            ..self.clone()
        }
    }

    /// The file, or the folder of the shards.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Every tensor's name and header, in the order of the names.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorHeader)> {
        self.tensors
            .iter()
            .map(|(name, stored)| (name.as_str(), &stored.header))
    }

    /// What the header says of the tensor `name`, if there is one.
    pub fn header(&self, name: &str) -> Option<&TensorHeader> {
        self.tensors.get(name).map(|stored| &stored.header)
    }

    /// Whether there is a tensor `name`, of the shape `wanted`, that can be computed with.
    ///
    /// # Errors
    /// There is none, it has another shape, or it is stored in another type.
    pub(crate) fn check(&self, name: &str, wanted: &[usize]) -> Result<()> {
        let stored = self.stored(name)?;
        stored.float_type(name)?;
        let found = &stored.header.shape;
        if found != wanted {
            return Err(Error::WrongShape {
                file: stored.source.path().to_owned(),
                tensor: stored.saved_as(name),
                wanted: wanted.to_vec(),
                found: found.clone(),
            });
        }
        Ok(())
    }

    /// Bytes of all tensors as they are stored.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(|stored| stored.header.bytes).sum()
    }

    /// The type in which most of the bytes are stored, or `None` for a file without tensors.
    pub fn main_type(&self) -> Option<ElementType> {
        let mut bytes: Vec<(ElementType, u64)> = Vec::new();
        for Stored { header, .. } in self.tensors.values() {
            match bytes
                .iter_mut()
                .find(|(element_type, _)| *element_type == header.element_type)
            {
                Some((_, sum)) => *sum += header.bytes,
                None => bytes.push((header.element_type, header.bytes)),
            }
        }
        bytes
            .into_iter()
            .max_by_key(|&(_, sum)| sum)
            .map(|(element_type, _)| element_type)
    }

    /// The name of the first tensor that holds a value that is not finite. It reads every weight, a few
    /// megabytes at a time: for saying what is wrong after something has gone wrong.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn first_non_finite(&self) -> Result<Option<(PathBuf, String)>> {
        for (name, stored) in &self.tensors {
            let is_finite = match stored.header.element_type {
                ElementType::F64 => stored.all(|value: f64| (value as f32).is_finite())?,
                ElementType::F32 => stored.all(|value: f32| value.is_finite())?,
                ElementType::F16 => stored.all(|value: f16| value.is_finite())?,
                ElementType::Bf16 => stored.all(|value: bf16| value.is_finite())?,
                _ => true,
            };
            if !is_finite {
                return Ok(Some((stored.source.path().to_owned(), name.clone())));
            }
        }
        Ok(None)
    }

    /// The tensor `name` as `held_type`, or in the file's own type, in host memory: in one of `buffers`, which
    /// is lent for as long as the tensor is used, or in memory of its own.
    pub(crate) fn read(
        &self,
        name: &str,
        held_type: Option<DType>,
        buffers: Option<&HostBuffers>,
    ) -> Result<Tensor> {
        let stored = self.stored(name)?;
        let stored_type = stored.float_type(name)?;
        let held_type = held_type.unwrap_or_else(|| default_held(stored_type));
        let count = stored.header.shape.iter().product();
        let elements = match buffers {
            Some(buffers) => buffers.take(held_type, count),
            None => Elements::zeros(held_type, count),
        };
        let mut elements = elements.ok_or_else(|| stored.unsupported(name, stored.header.element_type))?;
        let merge = self.merge(name)?;
        let part = stored.part(0, stored_type, merge.as_ref());
        match &mut elements {
            Elements::F32(values) => part.fill(values, |value| value)?,
            Elements::F16(values) => part.fill(values, f16::from_f32)?,
            Elements::Bf16(values) => part.fill(values, bf16::from_f32)?,
        }
        let tensor = elements.into_tensor(&stored.header.shape)?;
        if let Some(buffers) = buffers {
            buffers.lend(&tensor);
        }
        Ok(tensor)
    }

    /// The tensor `name`, to be read in parts.
    #[cfg(feature = "cuda")]
    pub(crate) fn in_parts(&self, name: &str, held_type: Option<DType>) -> Result<Parts<'_>> {
        let stored = self.stored(name)?;
        let stored_type = stored.float_type(name)?;
        Ok(Parts {
            stored,
            stored_type,
            held_type: held_type.unwrap_or_else(|| default_held(stored_type)),
            merge: self.merge(name)?,
        })
    }

    /// What is added to the tensor `name` while it is read.
    fn merge(&self, name: &str) -> Result<Option<Merge>> {
        match &self.adapters {
            Some(adapters) => adapters.merge(name),
            None => Ok(None),
        }
    }

    /// Fills `values` with those of the tensor `name`, which has as many.
    pub(crate) fn read_floats(&self, name: &str, values: &mut [f32]) -> Result<()> {
        let stored = self.stored(name)?;
        stored.fill(values, 0, stored.float_type(name)?, |value| value)
    }

    /// Refuses the tensor `name` if its elements are no floats that can be computed with.
    pub(crate) fn check_floats(&self, name: &str) -> Result<()> {
        self.stored(name)?.float_type(name).map(drop)
    }

    /// Whether every value of the tensor `name` is finite. It is read a stretch at a time.
    pub(crate) fn is_finite(&self, name: &str) -> Result<bool> {
        let stored = self.stored(name)?;
        let stored_type = stored.float_type(name)?;
        let count: usize = stored.header.shape.iter().product();
        let mut values = vec![0.0_f32; count.min(CONVERTED_AT_A_TIME)];
        let mut first = 0;
        while first < count {
            let values = &mut values[..CONVERTED_AT_A_TIME.min(count - first)];
            stored.fill(values, first, stored_type, |value| value)?;
            if !values.iter().all(|value| value.is_finite()) {
                return Ok(false);
            }
            first += values.len();
        }
        Ok(true)
    }

    /// The first value of the tensor `name`, of whatever type.
    pub(crate) fn read_number(&self, name: &str) -> Result<f32> {
        let stored = self.stored(name)?;
        match stored.header.element_type {
            ElementType::I64 => stored.first(|bytes| i64::from_le_bytes(bytes) as f32),
            ElementType::I32 => stored.first(|bytes| i32::from_le_bytes(bytes) as f32),
            _ => {
                let mut value = [0.0];
                self.read_floats(name, &mut value)?;
                Ok(value[0])
            }
        }
    }

    /// Refuses files that were written to since they were opened.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        self.sources().try_for_each(|source| source.check_unchanged())?;
        self.adapters
            .as_ref()
            .map_or(Ok(()), |adapters| adapters.check_unchanged())
    }

    /// Tells the system that the bytes of the tensors whose names begin with `prefix` need not be kept at hand.
    pub(crate) fn forget(&self, prefix: &str) {
        for (name, stored) in &self.tensors {
            if name.starts_with(prefix) {
                stored.source.forget(stored.header.offset, stored.header.bytes);
            }
        }
    }

    /// The files, each once.
    fn sources(&self) -> impl Iterator<Item = &Source> {
        let mut seen = Vec::new();
        self.tensors.values().filter_map(move |stored| {
            let address = Arc::as_ptr(&stored.source);
            (!seen.contains(&address)).then(|| {
                seen.push(address);
                &*stored.source
            })
        })
    }

    /// The given rows (runs of the last dimension) of the tensor `name`, in the order given.
    pub(crate) fn read_rows(&self, name: &str, rows: &[usize]) -> Result<Tensor> {
        let stored = self.stored(name)?;
        let stored_type = stored.float_type(name)?;
        let merge = self.merge(name)?;
        let part = |first| stored.part(first, stored_type, merge.as_ref());
        match stored_type {
            // What was changed is wider than what is stored.
            _ if merge.is_some() => {
                stored.rows(name, rows, |first, to| part(first).fill(to, |value: f32| value))
            }
            DType::F16 => stored.rows(name, rows, |first, to| part(first).fill(to, f16::from_f32)),
            DType::BF16 => stored.rows(name, rows, |first, to| part(first).fill(to, bf16::from_f32)),
            _ => stored.rows(name, rows, |first, to| part(first).fill(to, |value: f32| value)),
        }
    }

    fn stored(&self, name: &str) -> Result<&Stored> {
        self.tensors.get(name).ok_or_else(|| Error::MissingTensor {
            file: self.place.clone(),
            tensor: name.to_owned(),
            similar: similar(name, self.tensors.keys()).map(str::to_owned),
        })
    }
}

/// The type that a tensor stored as `stored_type` is held in where no other is asked for.
fn default_held(stored_type: DType) -> DType {
    match stored_type {
        DType::F64 => DType::F32,
        other => other,
    }
}

/// A tensor that is read in parts, each part as bytes of the type that it is held in.
#[cfg(feature = "cuda")]
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    stored: &'a Stored,
    stored_type: DType,
    held_type: DType,
    merge: Option<Merge>,
}

#[cfg(feature = "cuda")]
impl Parts<'_> {
    pub(crate) fn shape(&self) -> &[usize] {
        &self.stored.header.shape
    }

    pub(crate) fn held_type(&self) -> DType {
        self.held_type
    }

    /// Fills `bytes`, which must be aligned for the held type, with what stands from byte `offset` of the held tensor on.
    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let first = offset / self.held_type.size_in_bytes();
        let part = self.stored.part(first, self.stored_type, self.merge.as_ref());
        match self.held_type {
            DType::F16 => part.fill(bytemuck::cast_slice_mut(bytes), f16::from_f32),
            DType::BF16 => part.fill(bytemuck::cast_slice_mut(bytes), bf16::from_f32),
            _ => part.fill(bytemuck::cast_slice_mut(bytes), |value: f32| value),
        }
    }
}

/// The elements of a tensor from one on, and what is added to them.
struct Part<'a> {
    stored: &'a Stored,
    first: usize,
    stored_type: DType,
    merge: Option<&'a Merge>,
}

impl Part<'_> {
    /// Reads as many elements as there are `values`, rounded once by `narrow` where they are not stored so.
    fn fill<T: bytemuck::Pod + WithDType>(&self, values: &mut [T], narrow: impl Fn(f32) -> T) -> Result<()> {
        let Self {
            stored, stored_type, ..
        } = *self;
        match self.merge {
            None => stored.fill(values, self.first, stored_type, narrow),
            Some(merge) => merge.fill(values, self.first, narrow, |wide, first| {
                stored.fill(wide, first, stored_type, |value: f32| value)
            }),
        }
    }
}

impl Stored {
    fn part<'a>(&'a self, first: usize, stored_type: DType, merge: Option<&'a Merge>) -> Part<'a> {
        Part {
            stored: self,
            first,
            stored_type,
            merge,
        }
    }

    fn first<const BYTES: usize>(&self, number: impl Fn([u8; BYTES]) -> f32) -> Result<f32> {
        let mut bytes = [0; BYTES];
        self.source.read_at(self.header.offset, &mut bytes)?;
        Ok(number(bytes))
    }

    /// Whether `is` holds for every element.
    fn all<T: bytemuck::Pod>(&self, is: impl Fn(T) -> bool) -> Result<bool> {
        let count = self.header.bytes as usize / size_of::<T>();
        let at_a_time = converted_at_a_time(size_of::<T>());
        let mut elements = vec![T::zeroed(); count.min(at_a_time)];
        for first in (0..count).step_by(at_a_time) {
            let elements = &mut elements[..at_a_time.min(count - first)];
            let offset = self.header.offset + (first * size_of::<T>()) as u64;
            self.source.read_at(offset, bytemuck::cast_slice_mut(elements))?;
            if !elements.iter().all(|&element| is(element)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The type of the elements, which must be floats.
    fn float_type(&self, name: &str) -> Result<DType> {
        match self.header.element_type {
            ElementType::F64 => Ok(DType::F64),
            ElementType::F32 => Ok(DType::F32),
            ElementType::F16 => Ok(DType::F16),
            ElementType::Bf16 => Ok(DType::BF16),
            found => Err(self.unsupported(name, found)),
        }
    }

    /// Reads the elements from `first` on into `values`: in place where the types agree, else through `narrow`.
    fn fill<T: bytemuck::Pod + WithDType>(
        &self,
        values: &mut [T],
        first: usize,
        stored_type: DType,
        narrow: impl Fn(f32) -> T,
    ) -> Result<()> {
        let offset = self.header.offset + (first * stored_type.size_in_bytes()) as u64;
        if T::DTYPE == stored_type {
            return self.source.read_at(offset, bytemuck::cast_slice_mut(values));
        }
        match stored_type {
            DType::F16 => self.convert::<f16, T>(values, offset, |value| narrow(value.to_f32())),
            DType::BF16 => self.convert::<bf16, T>(values, offset, |value| narrow(value.to_f32())),
            DType::F64 => self.convert::<f64, T>(values, offset, |value| narrow(value as f32)),
            _ => self.convert::<f32, T>(values, offset, narrow),
        }
    }

    fn convert<S: bytemuck::Pod, T>(
        &self,
        values: &mut [T],
        mut offset: u64,
        convert: impl Fn(S) -> T,
    ) -> Result<()> {
        let at_a_time = converted_at_a_time(size_of::<S>());
        let mut read = vec![S::zeroed(); values.len().min(at_a_time)];
        for values in values.chunks_mut(at_a_time) {
            let read = &mut read[..values.len()];
            self.source.read_at(offset, bytemuck::cast_slice_mut(read))?;
            offset += size_of_val(read) as u64;
            for (value, &read) in values.iter_mut().zip(read.iter()) {
                *value = convert(read);
            }
        }
        Ok(())
    }

    fn rows<T: bytemuck::Pod + Zeroable + WithDType>(
        &self,
        name: &str,
        rows: &[usize],
        read: impl Fn(usize, &mut [T]) -> Result<()>,
    ) -> Result<Tensor> {
        let (&width, leading) = self.header.shape.split_last().unwrap_or((&1, &[]));
        let available: usize = leading.iter().product();
        let mut elements = vec![T::zeroed(); width * rows.len()];
        for (&row, target) in rows.iter().zip(elements.chunks_exact_mut(width.max(1))) {
            if row >= available {
                return Err(Error::RowOutOfRange {
                    file: self.source.path().to_owned(),
                    tensor: name.to_owned(),
                    row,
                    rows: available,
                });
            }
            read(row * width, target)?;
        }
        Ok(Tensor::from_vec(elements, (rows.len(), width), &Device::Cpu)?)
    }

    /// What the file calls the tensor `name`.
    fn saved_as(&self, name: &str) -> String {
        self.saved_as.as_deref().unwrap_or(name).to_owned()
    }

    fn unsupported(&self, name: &str, found: ElementType) -> Error {
        Error::UnsupportedType {
            file: self.source.path().to_owned(),
            tensor: self.saved_as(name),
            found,
        }
    }
}
