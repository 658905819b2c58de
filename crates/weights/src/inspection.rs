//! Checks, from headers alone, the tensors that a network will read.
//!
//! [`Blocks::new`](crate::Blocks::new) builds each block once without weights. Every tensor that the block
//! reads is looked up by name, shape and type, and replaced by zeros that take no memory. So the check covers
//! exactly what the network reads, without a second list of tensors.

use std::sync::Mutex;

use candle_core::{DType, Tensor};

use crate::allocator::with_untouched_zeros;
use crate::buffer_pool::Elements;
use crate::lock::lock;
use crate::stored::{HeldRows, default_type};
use crate::{Checkpoint, Error, Result};

/// The maximum number of values of a wrong tensor that is replaced by zeros, so that the tensors after it are
/// checked too. A configuration can ask for any number.
const MAXIMUM_VALUES: usize = 1 << 28;

/// The check of a list of blocks.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    findings: Mutex<Findings>,
    /// The names of the tensors that the current block reads.
    read: Mutex<Vec<String>>,
    /// Zeros of each type, as many as the largest tensor has. All tensors are views of them.
    zeros: Mutex<Vec<Tensor>>,
}

/// The errors that were found.
#[derive(Debug, Default)]
struct Findings {
    first: Option<Error>,
    others: usize,
}

impl Inspection {
    /// Checks the tensor `name` against the shape `wanted` and returns zeros in its place.
    pub(crate) fn tensor(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        wanted: &[usize],
        held_type: Option<DType>,
    ) -> Result<Tensor> {
        lock(&self.read).push(name.to_owned());
        let values = wanted
            .iter()
            .try_fold(1_usize, |product, &size| product.checked_mul(size));
        if let Err(error) = checkpoint.check(name, wanted) {
            if values.is_none_or(|values| values > MAXIMUM_VALUES) {
                return Err(error);
            }
            self.add(error);
        }
        let stored = checkpoint
            .header(name)
            .and_then(|header| default_type(header.element_type));
        let held_type = held_type.or(stored).unwrap_or(DType::F32);
        self.zeros(held_type, values.unwrap_or(0), wanted)
    }

    /// Zeros in place of the quantised rows of the tensor `name`, whose shape was checked.
    pub(crate) fn rows(&self, name: &str, held: HeldRows) -> Result<Tensor> {
        lock(&self.read).push(name.to_owned());
        self.zeros(DType::U8, held.bytes(), &[held.rows, held.row_bytes])
    }

    /// Counts an error. The first one is kept.
    pub(crate) fn add(&self, error: Error) {
        let mut findings = lock(&self.findings);
        match findings.first {
            Some(_) => findings.others += 1,
            None => findings.first = Some(error),
        }
    }

    /// Ends a block, and returns the names of the tensors that it reads.
    pub(crate) fn end_block(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.read))
    }

    /// Ends the check.
    ///
    /// # Errors
    /// The first error that was found, with the number of the others.
    pub(crate) fn end(&self) -> Result<()> {
        let Findings { first, others } = std::mem::take(&mut *lock(&self.findings));
        match first {
            None => Ok(()),
            Some(first) if others == 0 => Err(first),
            Some(first) => Err(Error::Unfit {
                first: Box::new(first),
                others,
            }),
        }
    }

    fn zeros(&self, held_type: DType, values: usize, shape: &[usize]) -> Result<Tensor> {
        let mut zeros = lock(&self.zeros);
        zeros.retain(|zeros| zeros.dtype() != held_type || zeros.elem_count() >= values);
        let flat = match zeros.iter().find(|zeros| zeros.dtype() == held_type) {
            Some(flat) => flat.clone(),
            None => {
                let elements = with_untouched_zeros(|| {
                    Elements::zeros(held_type, values).unwrap_or_else(|| Elements::F32(vec![0.0; values]))
                });
                let flat = elements.into_tensor(&[values])?;
                zeros.push(flat.clone());
                flat
            }
        };
        Ok(flat.narrow(0, 0, values)?.reshape(shape)?)
    }
}
