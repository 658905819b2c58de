//! Attention on the CPU.
//!
//! A task processes a block of queries of one head, key block by key block, and holds only the scores of a
//! few queries against one key block (FlashAttention). Milakov and Gimelshein, "Online normalizer calculation
//! for softmax", 2018; Dao et al., "FlashAttention", 2022.

mod panels;
mod products;
mod task;
mod unit;

use super::scratch::with_scratch;
use super::simd::InstructionSet;
use super::target::Target;
use super::threads::for_each_task;
use panels::{Panels, query_block};
use task::Task;

/// The type to which activations are rounded before products between activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats.
    Full,
    /// bf16, if the CPU has a matrix unit or fast dot products for it, as PyTorch does in networks with bf16
    /// weights. Sums are 32-bit.
    Bf16,
}

/// A strided view of `[batch, heads, rows, columns]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) steps: [usize; 4],
}

impl<'a> View<'a> {
    /// The values from a row of a head on.
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

/// The inputs of attention. The features of a query, key or value are contiguous.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention<'a> {
    pub(crate) q: View<'a>,
    /// The keys and values, one stream after the other.
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

    /// The stream of the key at `index` of all, and its row there.
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

/// Attention, as `[batch, queries, heads, value size]`, in which heads are concatenated.
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
        // No network has heads without features; without keys there is nothing to sum.
        return vec![0.0; length];
    }
    let mut result = Vec::with_capacity(length);
    let target = Target::uninitialized(&mut result, length, heads * value_size);
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

/// Floats of scratch of a thread, for heads of the given features.
pub(crate) fn scratch(size: usize, value_size: usize) -> usize {
    Panels::floats(size, value_size)
}
