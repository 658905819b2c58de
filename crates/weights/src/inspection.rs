//! What headers tell of the tensors that a network will read, before any of them is read.
//!
//! A block is built once without its weights when its list is made ([`Blocks::new`](crate::Blocks::new)): every tensor that
//! it asks for is looked up by name, shape and type, and stands in for itself as zeros that take no memory. So what a
//! network reads is written down once, in what builds it, and nothing of it can be left out of the check.

use std::sync::Mutex;

use candle_core::{DType, Tensor};

use crate::buffer_pool::Elements;
use crate::lock::lock;
use crate::stored::default_type;
use crate::{Checkpoint, Error, Result};

/// The most values of a tensor that is not in the file as it should be and is stood in for all the same, so that what
/// comes after it is looked at too. A configuration can ask for any number.
const MAXIMUM_VALUES: usize = 1 << 28;

/// A list of blocks while it is looked at.
#[derive(Debug, Default)]
pub(crate) struct Inspection {
    findings: Mutex<Findings>,
    /// Zeros of each type that was asked for, as many as the largest tensor had. All tensors are views of them.
    zeros: Mutex<Vec<Tensor>>,
}

/// What does not fit.
#[derive(Debug, Default)]
struct Findings {
    first: Option<Error>,
    others: usize,
}

impl Inspection {
    /// Looks the tensor `name` up, which is wanted in the shape `wanted`, and stands in for it.
    pub(crate) fn tensor(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        wanted: &[usize],
        held_type: Option<DType>,
    ) -> Result<Tensor> {
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

    /// Counts what does not fit; the first is kept.
    pub(crate) fn add(&self, error: Error) {
        let mut findings = lock(&self.findings);
        match findings.first {
            Some(_) => findings.others += 1,
            None => findings.first = Some(error),
        }
    }

    /// What was found.
    ///
    /// # Errors
    /// Something does not fit: the first of it, with the number of the others.
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
                let elements =
                    Elements::zeros(held_type, values).unwrap_or_else(|| Elements::F32(vec![0.0; values]));
                let flat = elements.into_tensor(&[values])?;
                zeros.push(flat.clone());
                flat
            }
        };
        Ok(flat.narrow(0, 0, values)?.reshape(shape)?)
    }
}
