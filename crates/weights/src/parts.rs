//! One tensor of a file, read into memory of a device's streaming as bytes, whole or in parts.

use candle_core::DType;
use half::{bf16, f16};

use crate::stored::Stored;
use crate::weight_update::WeightUpdate;
use crate::{Checkpoint, Result};

impl Checkpoint {
    /// The tensor `name`, which is read as `held_type`, or in the type of the file.
    pub(crate) fn in_parts(&self, name: &str, held_type: Option<DType>) -> Result<Parts<'_>> {
        let stored = self.stored(name)?;
        let default_type = stored.default_type(name)?;
        Ok(Parts {
            stored,
            held_type: held_type.unwrap_or(default_type),
            update: self.update(name)?,
        })
    }
}

/// A tensor that is read in parts, as bytes of the held type.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    stored: &'a Stored,
    held_type: DType,
    update: Option<WeightUpdate>,
}

impl Parts<'_> {
    pub(crate) fn shape(&self) -> &[usize] {
        &self.stored.header.shape
    }

    pub(crate) fn held_type(&self) -> DType {
        self.held_type
    }

    /// Fills `bytes`, which must be aligned for the held type, with the bytes of the held tensor from
    /// `offset` on.
    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let first = offset / self.held_type.size_in_bytes();
        let part = self.stored.part(first, self.update.as_ref());
        match self.held_type {
            DType::F16 => part.fill(bytemuck::cast_slice_mut(bytes), f16::from_f32),
            DType::BF16 => part.fill(bytemuck::cast_slice_mut(bytes), bf16::from_f32),
            _ => part.fill(bytemuck::cast_slice_mut(bytes), |value: f32| value),
        }
    }
}
