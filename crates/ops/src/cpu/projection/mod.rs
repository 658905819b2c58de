//! Linear projections on the CPU: a blocked GEMM with a fused epilogue.
//!
//! A task multiplies a band of rows by a panel of the weight, in stretches of the inner dimension. It packs a
//! stretch of the panel into the L2 cache, widened if necessary; then it multiplies a few rows at a time,
//! which stay in the L1 cache, by all of it. Goto and van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication", 2008.
//!
//! Where the CPU has a matrix unit, it multiplies tiles of pairs of bf16 ([`unit`](mod@unit)), from
//! the same panels.
//!
//! The stretches depend on the inner dimension alone, and within a stretch products are summed in order. So a
//! result depends on its own row and column only, and widening a weight changes no bit of it.
//!
//! A quantised weight is decoded to 32-bit floats while it is packed ([`lanes`], [`quantized`]), or beside few rows while
//! it is multiplied ([`few_rows`]), and rounded to bf16 where products of bf16
//! are the fastest of the CPU. So a product has the bits of the product with the decoded weight, as floats of
//! 32 bits or of bf16.

mod epilogue;
mod few_rows;
mod lanes;
pub(super) mod pack;
mod partition;
mod quantized;
mod quantized_rows;
mod task;
#[cfg(test)]
mod tests;
mod tile;
mod unit;

use super::kernel::Values;
use super::scratch::with_scratch;
use super::simd::InstructionSet;
use super::target::Target;
use super::threads::for_each_task;
pub(crate) use epilogue::Epilogue;
use partition::{Limits, Partition};
pub(crate) use quantized_rows::QuantizedRows;
use task::{Task, Workspace};

/// A projection's weight in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Weight<'a> {
    Values(Values<'a>),
    Quantized(QuantizedRows<'a>),
}

impl Weight<'_> {
    /// Whether it is multiplied as pairs of bf16, where the CPU has products of these.
    fn is_narrow(self) -> bool {
        matches!(self, Self::Values(Values::Bf16(_)) | Self::Quantized(_))
    }
}

impl<'a> From<Values<'a>> for Weight<'a> {
    fn from(values: Values<'a>) -> Self {
        Self::Values(values)
    }
}

/// A projection's weight, `[outputs, inputs]`, and bias.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Projection<'a> {
    pub(crate) weight: Weight<'a>,
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
}

/// Floats of scratch of a thread.
pub(crate) fn scratch() -> usize {
    let vectors = Workspace::length(Limits::VECTORS);
    match InstructionSet::best().has_tiles() {
        true => vectors.max(Workspace::length(Limits::TILES)),
        false => vectors,
    }
}

/// `x * weight^T + bias` with an `epilogue`, row after row. `x` holds `rows` rows of `inputs` values.
pub(crate) fn project(
    set: InstructionSet,
    x: &[f32],
    rows: usize,
    projection: Projection<'_>,
    epilogue: Epilogue<'_>,
) -> Vec<f32> {
    let width = projection.outputs / epilogue.products();
    assert_eq!(
        x.len(),
        rows * projection.inputs,
        "rows of another width. This is a bug."
    );
    let mut results = Vec::with_capacity(rows * width);
    let target = Target::uninitialized(&mut results, rows * width, width);
    let limits = match set.has_tiles() && projection.weight.is_narrow() {
        true => Limits::TILES,
        false => Limits::VECTORS,
    };
    let partition = Partition::new(
        limits,
        rayon::current_num_threads(),
        (rows, width),
        epilogue.products(),
        projection.inputs,
    );
    for_each_task(partition.tasks(), |index| {
        let (rows, columns) = partition.task(index);
        with_scratch(Workspace::length(limits), |scratch| {
            set.run(Task {
                set,
                x,
                projection,
                epilogue,
                rows,
                columns,
                target,
                workspace: Workspace::new(scratch, limits),
            });
        });
    });
    // SAFETY: every result belongs to a task, which has written it.
    unsafe { results.set_len(rows * width) };
    results
}
