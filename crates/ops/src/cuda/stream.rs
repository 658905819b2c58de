//! The streams of tokens that one attention reads: each has tensors of its own.

use candle_core::Tensor;

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
