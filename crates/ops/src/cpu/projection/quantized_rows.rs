//! A quantised weight as products take it.

use crate::Quantization;

/// A quantised weight, row after row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QuantizedRows<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) row_bytes: usize,
    /// Values of a row.
    pub(crate) inputs: usize,
    pub(crate) quantization: Quantization,
}
