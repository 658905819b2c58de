//! Attention on the processor.
//!
//! A task takes a block of the queries of one head past blocks of keys, and holds only the scores of a few queries against
//! a block of keys. Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao and others,
//! "FlashAttention", 2022.

mod panels;
mod products;
mod task;

use super::scratch::with_scratch;
use super::simd::InstructionSet;
use super::target::Target;
use super::threads::for_each_task;
use panels::{Panels, query_block};
use task::Task;

/// What activations are rounded to before they are multiplied by each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Nothing: they stay 32-bit floats.
    Full,
    /// bf16, where the processor multiplies pairs of these, as PyTorch has it in networks whose weights are bf16. Sums are
    /// taken in 32 bits.
    Bf16,
}

/// The values of a tensor of `[batch, heads, rows, columns]`, with the steps from one to the next in each
/// direction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) steps: [usize; 4],
}

impl<'a> View<'a> {
    /// The values from one row of one head on.
    fn row(&self, batch: usize, head: usize, row: usize) -> &'a [f32] {
        let [by_batch, by_head, by_row, _] = self.steps;
        &self.values[batch * by_batch + head * by_head + row * by_row..]
    }
}

/// Keys with their values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys<'a> {
    pub(crate) k: View<'a>,
    pub(crate) v: View<'a>,
    pub(crate) count: usize,
}

/// What attention is between. The features of a query, a key and a value lie side by side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention<'a> {
    pub(crate) q: View<'a>,
    /// What is attended to, one after the other.
    pub(crate) keys: &'a [Keys<'a>],
    pub(crate) bias: Option<View<'a>>,
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    pub(crate) queries: usize,
    /// Features of a query and of a key.
    pub(crate) size: usize,
    /// Features of a value.
    pub(crate) value_size: usize,
    pub(crate) scale: f32,
    pub(crate) precision: Precision,
}

impl Attention<'_> {
    fn key_count(&self) -> usize {
        self.keys.iter().map(|keys| keys.count).sum()
    }

    /// The keys that the key `index` of all is among, and which of them it is.
    fn place_of_key(&self, index: usize) -> (&Keys<'_>, usize) {
        let mut row = index;
        for keys in self.keys {
            if row < keys.count {
                return (keys, row);
            }
            row -= keys.count;
        }
        panic!("there is no such key. This is a bug.");
    }
}

/// The result, as `[batch, queries, heads, value size]`: the order in which the heads are joined.
pub(crate) fn attention(set: InstructionSet, settings: &Attention<'_>) -> Vec<f32> {
    let Attention {
        batch,
        heads,
        queries,
        size,
        value_size,
        ..
    } = *settings;
    let length = batch * queries * heads * value_size;
    if length == 0 || settings.key_count() == 0 || size == 0 {
        // Without features all scores are equal, but no network is so; without keys there is nothing to sum.
        return vec![0.0; length];
    }
    let mut result = Vec::with_capacity(length);
    let target = Target::of_room(&mut result, length, heads * value_size);
    let block = query_block(size, value_size);
    let blocks = queries.div_ceil(block);
    for_each_task(batch * heads * blocks, |task| {
        let (pair, first) = (task / blocks, task % blocks * block);
        let (batch, head) = (pair / heads, pair % heads);
        with_scratch(Panels::floats(size, value_size), |scratch| {
            set.run(Task {
                settings,
                batch,
                head,
                first,
                queries: block.min(queries - first),
                target: target.at(((batch * queries + first) * heads + head) * value_size),
                panels: Panels::of(scratch, size, value_size),
            });
        });
    });
    // SAFETY: every query of every head belongs to a task, which has written its values.
    unsafe { result.set_len(length) };
    result
}

/// Floats that a thread takes for heads of so many features.
pub(crate) fn scratch(size: usize, value_size: usize) -> usize {
    Panels::floats(size, value_size)
}
