//! What a task of attention holds while it runs, in the order in which it is read. Where products are of pairs of bf16, what is
//! summed over has half as many elements as is said here, of two features or of two keys.

use std::ops::RangeInclusive;

use crate::cpu::buffers::{cut_in_lines, in_lines};
use crate::cpu::simd::MOST_LANES;

/// Queries that a task takes, at the least and at the most: enough that copying keys and values is little beside what is done with
/// them.
const QUERY_BLOCK: RangeInclusive<usize> = 192..=384;
/// Features of queries, and of values, that a task takes, where it does not take the least queries: they stay in the second cache.
const QUERY_FEATURES: usize = 1 << 15;
/// Keys that queries are taken past at a time: with their values, and the scores of a group of queries, they fit the caches.
pub(super) const KEY_BLOCK: usize = 128;
/// The most vectors of queries in a group, which goes through a block of keys at once.
const MOST_VECTORS: usize = 3;
/// The most queries in a group.
const WIDEST: usize = MOST_VECTORS * MOST_LANES;

/// How many sums products hold in registers: so many rows of keys, or of features of values, by the queries of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub(super) rows: usize,
    /// Vectors of queries.
    pub(super) vectors: usize,
}

impl Tile {
    /// Beside them lie what rows are multiplied by, and one of their values.
    pub(super) const OF_32_REGISTERS: Self = Self {
        rows: 8,
        vectors: MOST_VECTORS,
    };
    /// All 16 would be 4 by 3, of which compilers keep one in memory.
    pub(super) const OF_16_REGISTERS: Self = Self { rows: 6, vectors: 2 };
}

/// So many keys, or features of values, with those that whole tiles have beyond them.
pub(super) fn padded(count: usize) -> usize {
    let many = count.next_multiple_of(Tile::OF_32_REGISTERS.rows);
    many.max(count.next_multiple_of(Tile::OF_16_REGISTERS.rows))
}

/// Panels inside of a thread's scratch. A group of queries has its own part of those that are "by group".
#[derive(Debug)]
pub(super) struct Panels<'a> {
    /// Queries, by group: `[features, queries]`, scaled.
    pub(super) queries: &'a mut [f32],
    /// Sums of weighted values, by group: `[features, queries]`.
    pub(super) sums: &'a mut [f32],
    /// Keys of a block: `[keys, features]`.
    pub(super) keys: &'a mut [f32],
    /// Values of a block, by as many features as products have rows: `[features / rows, keys, rows]`.
    pub(super) values: &'a mut [f32],
    /// Scores of a group: `[keys, queries]`.
    pub(super) scores: &'a mut [f32],
    /// The bias of a group: `[keys, queries]`.
    pub(super) bias: &'a mut [f32],
    /// The greatest score of each query so far.
    pub(super) greatest: &'a mut [f32],
    /// The sum of each query's weights so far, relative to that of the greatest score.
    pub(super) weights: &'a mut [f32],
}

/// Queries that a task takes, of so many features and with so many of values: whole groups.
pub(super) fn query_block(size: usize, value_size: usize) -> usize {
    let most = QUERY_FEATURES / (size + value_size).max(1);
    most.clamp(*QUERY_BLOCK.start(), *QUERY_BLOCK.end()) / WIDEST * WIDEST
}

/// How long each panel is.
fn lengths(size: usize, value_size: usize) -> [usize; 8] {
    let queries = query_block(size, value_size);
    let value_size = padded(value_size);
    [
        queries * size,
        queries * value_size,
        padded(KEY_BLOCK) * size,
        KEY_BLOCK * value_size,
        padded(KEY_BLOCK) * WIDEST,
        KEY_BLOCK * WIDEST,
        queries,
        queries,
    ]
}

impl<'a> Panels<'a> {
    /// Floats that they take together.
    pub(super) fn floats(size: usize, value_size: usize) -> usize {
        in_lines(lengths(size, value_size))
    }

    /// Panels inside of `scratch`, of which there are [`floats`](Self::floats).
    pub(super) fn of(scratch: &'a mut [f32], size: usize, value_size: usize) -> Self {
        let [queries, sums, keys, values, scores, bias, greatest, weights] =
            cut_in_lines(scratch, lengths(size, value_size));
        Self {
            queries,
            sums,
            keys,
            values,
            scores,
            bias,
            greatest,
            weights,
        }
    }
}
