//! One tensor of a file, read into memory of a device's streaming as bytes, whole or in parts.

use candle_core::DType;
use half::{bf16, f16};

use crate::stored::{HeldRows, Stored};
use crate::weight_update::WeightUpdate;
use crate::{Checkpoint, Result};

impl Checkpoint {
    /// The tensor `name`, which is read as `held_type`, or in the type of the file.
    pub(crate) fn in_parts(&self, name: &str, held_type: Option<DType>) -> Result<Parts<'_>> {
        let stored = self.stored(name)?;
        let default_type = stored.default_type(name)?;
        Ok(Parts {
            stored,
            form: Form::Values {
                held_type: held_type.unwrap_or(default_type),
                update: self.update(name)?,
            },
        })
    }

    /// The rows of the tensor `name`, which stay quantised, as [`Checkpoint::held_rows`] says.
    pub(crate) fn rows_in_parts(&self, name: &str) -> Result<Parts<'_>> {
        let stored = self.stored(name)?;
        let unsupported = || stored.unsupported(name, stored.header.element_type);
        Ok(Parts {
            stored,
            form: Form::Rows(self.held_rows(name).ok_or_else(unsupported)?),
        })
    }
}

/// A tensor that is read in parts, as bytes of the held type.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    stored: &'a Stored,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Values {
        held_type: DType,
        update: Option<WeightUpdate>,
    },
    Rows(HeldRows),
}

impl Parts<'_> {
    /// The shape of the held tensor.
    pub(crate) fn shape(&self) -> Vec<usize> {
        match self.form {
            Form::Values { .. } => self.stored.header.shape.clone(),
            Form::Rows(held) => vec![held.rows, held.row_bytes],
        }
    }

    pub(crate) fn held_type(&self) -> DType {
        match self.form {
            Form::Values { held_type, .. } => held_type,
            Form::Rows(_) => DType::U8,
        }
    }

    /// The bytes that can be read at a time into `room` bytes: parts begin at multiples of them.
    #[cfg_attr(
        not(feature = "cuda"),
        expect(dead_code, reason = "other devices read tensors whole")
    )]
    pub(crate) fn step(&self, room: usize) -> usize {
        match self.form {
            Form::Values { .. } => room,
            Form::Rows(HeldRows { row_bytes, .. }) => (room / row_bytes.max(1)).max(1) * row_bytes,
        }
    }

    /// Fills `bytes`, which must be aligned for the held type, with the bytes of the held tensor from
    /// `offset` on. Both ends of quantised rows are ends of rows.
    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let (held_type, update) = match &self.form {
            Form::Values { held_type, update } => (*held_type, update.as_ref()),
            Form::Rows(held) => {
                let row = offset / held.row_bytes.max(1);
                return self.stored.fill_rows(row, bytes);
            }
        };
        let part = self.stored.part(offset / held_type.size_in_bytes(), update);
        match held_type {
            DType::F16 => part.fill(bytemuck::cast_slice_mut(bytes), f16::from_f32),
            DType::BF16 => part.fill(bytemuck::cast_slice_mut(bytes), bf16::from_f32),
            _ => part.fill(bytemuck::cast_slice_mut(bytes), |value: f32| value),
        }
    }
}
