//! Tensors beside a quantised one, such as its scales, of which ranges are read while it is decoded.

use std::sync::Arc;

use half::{bf16, f16};

use crate::source::Source;
use crate::{ElementType, Result, TensorHeader};

/// A tensor beside a quantised one.
#[derive(Debug, Clone)]
pub(crate) struct Sidecar {
    pub(crate) header: TensorHeader,
    pub(crate) source: Arc<Source>,
}

impl Sidecar {
    /// The number of elements.
    pub(crate) fn count(&self) -> usize {
        self.header.shape.iter().product()
    }

    /// Whether [`Sidecar::floats`] reads the elements.
    pub(crate) fn has_floats(&self) -> bool {
        use ElementType as E;
        matches!(self.header.element_type, E::F64 | E::F32 | E::F16 | E::Bf16)
    }

    /// The bytes of `count` elements from `first` on, as far as there are any.
    pub(super) fn bytes(&self, first: usize, count: usize) -> Result<Vec<u8>> {
        let size = self.header.element_type.block().bytes;
        let first = (first as u64).saturating_mul(size).min(self.header.bytes);
        let count = (count as u64).saturating_mul(size).min(self.header.bytes - first);
        let mut bytes = vec![0; count as usize];
        self.source.read_at(self.header.offset + first, &mut bytes)?;
        Ok(bytes)
    }

    /// `count` elements from `first` on, as far as there are any, as 32-bit floats.
    pub(super) fn floats(&self, first: usize, count: usize) -> Result<Vec<f32>> {
        let bytes = self.bytes(first, count)?;
        Ok(match self.header.element_type {
            ElementType::F64 => numbers(&bytes, |bytes| f64::from_le_bytes(bytes) as f32),
            ElementType::F16 => numbers(&bytes, |bytes| f16::from_le_bytes(bytes).to_f32()),
            ElementType::Bf16 => numbers(&bytes, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            _ => numbers(&bytes, f32::from_le_bytes),
        })
    }

    /// The first element as a 32-bit float.
    pub(super) fn float(&self) -> Result<f32> {
        Ok(self.floats(0, 1)?.first().copied().unwrap_or(0.0))
    }
}

fn numbers<const BYTES: usize>(bytes: &[u8], number: impl Fn([u8; BYTES]) -> f32) -> Vec<f32> {
    let (numbers, _) = bytes.as_chunks::<BYTES>();
    numbers.iter().map(|&bytes| number(bytes)).collect()
}
