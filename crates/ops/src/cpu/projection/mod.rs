//! Linear projections on the processor.
//!
//! A task multiplies a band of rows by a panel of the weight. It goes through their sums a stretch at a time: the panel's
//! stretch is laid out anew, widened where it must be, in the second cache; then a few rows at a time, which stay in the
//! first, are multiplied by all of it. Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008.
//!
//! Each sum is taken by stretches that depend on its length alone, and in these one product after the other. So a result
//! depends on its own row and column and on nothing else, and widening changes no bit of it.
//!
//! Rows are multiplied by quantised weights as whole numbers, to which they are rounded first.

mod blocks;
mod cut;
mod end;
mod nibbles;
pub(super) mod pack;
mod rounded;
mod task;
#[cfg(test)]
mod tests;
mod tile;

use super::kernel::Values;
use super::scratch::with_scratch;
use super::simd::InstructionSet;
use super::target::Target;
use super::threads::for_each_task;
pub(crate) use blocks::Blocks;
pub use blocks::Quantization;
use cut::Cut;
pub(crate) use end::End;
use rounded::Rounded;
use task::{Product, Room, Task};

/// A projection's weight, as it lies in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Weight<'a> {
    Values(Values<'a>),
    Blocks(Blocks<'a>),
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

/// Floats that a thread keeps while it computes one.
pub(crate) const SCRATCH: usize = Room::LENGTH;

/// What `end` makes of `x * weight^T + bias`, row after row. `x` holds `rows` rows of `inputs` values.
pub(crate) fn project(
    set: InstructionSet,
    x: &[f32],
    rows: usize,
    projection: Projection<'_>,
    end: End<'_>,
) -> Vec<f32> {
    let width = projection.outputs / end.products();
    assert_eq!(
        x.len(),
        rows * projection.inputs,
        "rows of another width. This is a bug."
    );
    let mut results = Vec::with_capacity(rows * width);
    let target = Target::of_room(&mut results, rows * width, width);
    let rounded;
    let product = match projection.weight {
        Weight::Values(weight) => Product::Values(x, weight),
        Weight::Blocks(weight) => {
            rounded = Rounded::new(set, x);
            Product::Blocks(&rounded, weight)
        }
    };
    let cut = Cut::new(rows, width, end.products(), projection.inputs);
    for_each_task(cut.tasks(), |index| {
        let (rows, columns) = cut.task(index);
        with_scratch(Room::LENGTH, |scratch| {
            set.run(Task {
                product,
                projection,
                end,
                rows,
                columns,
                target,
                room: Room::new(scratch),
            });
        });
    });
    // SAFETY: every result belongs to a task, which has written it.
    unsafe { results.set_len(rows * width) };
    results
}
