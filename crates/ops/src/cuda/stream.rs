//! The streams of tokens that one attention reads: each has tensors of its own.

use candle_core::Tensor;

use super::tensors::{Address, address};
use crate::Result;

/// One of the sections of an attention, `[batch, heads, tokens, head size]` each.
pub(super) struct Stream<'a> {
    pub(super) queries: &'a Tensor,
    pub(super) keys: &'a Tensor,
    pub(super) values: &'a Tensor,
    pub(super) result: &'a Tensor,
}

impl<'a> Stream<'a> {
    pub(super) fn of([queries, keys, values]: &'a [Tensor; 3], result: &'a Tensor) -> Self {
        Self {
            queries,
            keys,
            values,
            result,
        }
    }
}

/// A tensor of a stream as kernels have it: an address and the values between neighbours in batch, heads and rows.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Section {
    values: Address,
    batch: u64,
    head: u64,
    row: u64,
}

impl Section {
    pub(super) fn of(tensor: &Tensor) -> Result<Self> {
        let [batch, head, row] = [0, 1, 2].map(|index| tensor.stride()[index] as u64);
        Ok(Self {
            values: address(tensor)?,
            batch,
            head,
            row,
        })
    }
}
