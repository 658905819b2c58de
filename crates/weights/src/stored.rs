//! One tensor of a file, read in any data type, in parts or by rows, with LoRA updates added.

use std::sync::Arc;

use bytemuck::Zeroable;
use candle_core::{DType, Device, Tensor, WithDType};
use half::{bf16, f16};

use crate::low_rank_update::LowRankUpdate;
use crate::source::Source;
use crate::{ElementType, Error, Result, TensorHeader};

/// The number of values that are converted at a time, where the type of the file is not the held type.
const CONVERTED_AT_A_TIME: usize = 1 << 20;

/// The number of values of `element_bytes` each that are converted at a time.
const fn converted_at_a_time(element_bytes: usize) -> usize {
    match element_bytes {
        8 => CONVERTED_AT_A_TIME / 2,
        _ => CONVERTED_AT_A_TIME,
    }
}

/// The scratch bytes of reading `count` elements of `element_bytes` each as 32-bit floats.
pub(crate) fn converting_takes(count: usize, element_bytes: usize) -> usize {
    match element_bytes {
        4 => 0,
        _ => count.min(converted_at_a_time(element_bytes)) * element_bytes,
    }
}

/// The type in which elements are held by default: the type of the file, or 32-bit floats for 64-bit floats.
/// `None` for types that are not weights.
pub(crate) fn default_type(element_type: ElementType) -> Option<DType> {
    match element_type {
        ElementType::F32 | ElementType::F64 => Some(DType::F32),
        ElementType::F16 => Some(DType::F16),
        ElementType::Bf16 => Some(DType::BF16),
        _ => None,
    }
}

/// A tensor of a file: its header and the file.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) header: TensorHeader,
    pub(crate) source: Arc<Source>,
    /// The name in the file, where the tensor was renamed.
    pub(crate) saved_as: Option<String>,
}

/// The default type in which a tensor stored as `stored_type` is held.
pub(crate) fn default_held(stored_type: DType) -> DType {
    match stored_type {
        DType::F64 => DType::F32,
        other => other,
    }
}

/// The elements of a tensor from index `first` on, with the update that is added to them.
pub(crate) struct Part<'a> {
    stored: &'a Stored,
    first: usize,
    stored_type: DType,
    update: Option<&'a LowRankUpdate>,
}

impl Part<'_> {
    /// Fills `values` with elements. `narrow` rounds them once to the held type, where that is not the stored
    /// type.
    pub(crate) fn fill<T: bytemuck::Pod + WithDType>(
        &self,
        values: &mut [T],
        narrow: impl Fn(f32) -> T,
    ) -> Result<()> {
        let Self {
            stored, stored_type, ..
        } = *self;
        match self.update {
            None => stored.fill(values, self.first, stored_type, narrow),
            Some(update) => update.fill(values, self.first, narrow, |wide, first| {
                stored.fill(wide, first, stored_type, |value: f32| value)
            }),
        }
    }
}

impl Stored {
    pub(crate) fn part<'a>(
        &'a self,
        first: usize,
        stored_type: DType,
        update: Option<&'a LowRankUpdate>,
    ) -> Part<'a> {
        Part {
            stored: self,
            first,
            stored_type,
            update,
        }
    }

    pub(crate) fn first<const BYTES: usize>(&self, number: impl Fn([u8; BYTES]) -> f32) -> Result<f32> {
        let mut bytes = [0; BYTES];
        self.source.read_at(self.header.offset, &mut bytes)?;
        Ok(number(bytes))
    }

    /// Whether every element is finite as a 32-bit float. Integers are. The tensor is read a stretch at a
    /// time.
    pub(crate) fn is_finite(&self) -> Result<bool> {
        match self.header.element_type {
            ElementType::F64 => self.all(|value: f64| (value as f32).is_finite()),
            ElementType::F32 => self.all(|value: f32| value.is_finite()),
            ElementType::F16 => self.all(|value: f16| value.is_finite()),
            ElementType::Bf16 => self.all(|value: bf16| value.is_finite()),
            _ => Ok(true),
        }
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
    pub(crate) fn float_type(&self, name: &str) -> Result<DType> {
        match self.header.element_type {
            ElementType::F64 => Ok(DType::F64),
            ElementType::F32 => Ok(DType::F32),
            ElementType::F16 => Ok(DType::F16),
            ElementType::Bf16 => Ok(DType::BF16),
            found => Err(self.unsupported(name, found)),
        }
    }

    /// Reads the elements from `first` on into `values`, directly where the types agree, else through
    /// `narrow`.
    pub(crate) fn fill<T: bytemuck::Pod + WithDType>(
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

    pub(crate) fn rows<T: bytemuck::Pod + Zeroable + WithDType>(
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

    /// The name of the tensor `name` in the file.
    pub(crate) fn saved_as(&self, name: &str) -> String {
        self.saved_as.as_deref().unwrap_or(name).to_owned()
    }

    pub(crate) fn unsupported(&self, name: &str, found: ElementType) -> Error {
        Error::UnsupportedType {
            file: self.source.path().to_owned(),
            tensor: self.saved_as(name),
            found,
        }
    }
}
