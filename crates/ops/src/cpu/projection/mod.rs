//! Linear projections on the CPU: a blocked GEMM with a fused epilogue.
//!
//! A task multiplies a band of rows by a panel of the weight, in stretches of the inner dimension. It packs a
//! stretch of the panel into the L2 cache, widened if necessary; then it multiplies a few rows at a time,
//! which stay in the L1 cache, by all of it. Goto and van de Geijn, "Anatomy of High-Performance Matrix
//! Multiplication", 2008.
//!
//! The stretches depend on the inner dimension alone, and within a stretch products are summed in order. So a
//! result depends on its own row and column only, and widening a weight changes no bit of it.
//!
//! A quantised weight is decoded to 32-bit floats while it is packed, and rounded to bf16 where products of bf16
//! are the fastest of the CPU. So a product has the bits of the product with the decoded weight, as floats of
//! 32 bits or of bf16.

mod epilogue;
mod lanes;
pub(super) mod pack;
mod partition;
mod quantized;
mod quantized_rows;
mod task;
#[cfg(test)]
mod tests;
mod tile;

use super::kernel::Values;
use super::scratch::with_scratch;
use super::simd::InstructionSet;
use super::target::Target;
use super::threads::for_each_task;
pub(crate) use epilogue::Epilogue;
use partition::Partition;
pub(crate) use quantized_rows::QuantizedRows;
use task::{Task, Workspace};

/// A projection's weight in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Weight<'a> {
    Values(Values<'a>),
    Quantized(QuantizedRows<'a>),
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
pub(crate) const SCRATCH: usize = Workspace::LENGTH;

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
    let partition = Partition::new(rows, width, epilogue.products(), projection.inputs);
    for_each_task(partition.tasks(), |index| {
        let (rows, columns) = partition.task(index);
        with_scratch(Workspace::LENGTH, |scratch| {
            set.run(Task {
                set,
                x,
                projection,
                epilogue,
                rows,
                columns,
                target,
                workspace: Workspace::new(scratch),
            });
        });
    });
    // SAFETY: every result belongs to a task, which has written it.
    unsafe { results.set_len(rows * width) };
    results
}
