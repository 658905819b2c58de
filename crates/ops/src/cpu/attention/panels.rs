//! The scratch buffers of an attention task, in the order in which they are read. With pairs of bf16,
//! dimensions that are summed over have half as many elements, of two features or two keys.

use std::ops::RangeInclusive;

use crate::cpu::buffers::{aligned_length, split_aligned};
use crate::cpu::simd::MOST_LANES;
use crate::cpu::simd::tiles::SIDE;

/// The least and the most queries of a task: enough that copying keys and values is cheap in comparison.
const QUERY_BLOCK: RangeInclusive<usize> = 192..=384;
/// Features of queries and values of a task, unless it has the least queries: they stay in the L2 cache.
const QUERY_FEATURES: usize = 1 << 15;
/// Keys of a block: with their values and the scores of a group of queries they fit the caches.
pub(super) const KEY_BLOCK: usize = 128;
/// The most vectors of queries in a group, which is multiplied with a key block at once.
const MOST_VECTORS: usize = 3;
/// The most queries in a group.
const WIDEST: usize = MOST_VECTORS * MOST_LANES;

/// The tile of a microkernel in registers: rows of keys, or of value features, by the queries of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    pub(super) rows: usize,
    /// Vectors of queries.
    pub(super) vectors: usize,
}

impl Tile {
    /// Other registers hold the vectors of queries and a broadcast value.
    pub(super) const OF_32_REGISTERS: Self = Self {
        rows: 8,
        vectors: MOST_VECTORS,
    };
    /// 4 by 3 would use all 16, of which compilers spill one.
    pub(super) const OF_16_REGISTERS: Self = Self { rows: 6, vectors: 2 };
    /// Of a matrix unit.
    pub(super) const OF_UNIT: Self = Self {
        rows: SIDE,
        vectors: 2,
    };
}

/// `count` rounded up to whole tiles.
pub(super) fn padded(count: usize) -> usize {
    // Half of these rows are the rows of [`Tile::OF_32_REGISTERS`].
    let many = count.next_multiple_of(Tile::OF_UNIT.rows);
    many.max(count.next_multiple_of(Tile::OF_16_REGISTERS.rows))
}

/// Floats for the features of a query or key, as floats or as pairs in whole tiles.
pub(super) fn of_query(size: usize) -> usize {
    size.max(SIDE)
}

/// Buffers inside of a thread's scratch. Each group of queries has its own part of those marked "by group".
#[derive(Debug)]
pub(super) struct Panels<'a> {
    /// Queries, by group: `[features, queries]`, scaled.
    pub(super) queries: &'a mut [f32],
    /// Sums of weighted values, by group: `[features, queries]`.
    pub(super) sums: &'a mut [f32],
    /// Keys of a block: `[keys, features]`; on a matrix unit as tiles of 16 keys.
    pub(super) keys: &'a mut [f32],
    /// Values of a block, by as many features as products have rows: `[features / rows, keys, rows]`; on a matrix
    /// unit as tiles of 16 features.
    pub(super) values: &'a mut [f32],
    /// Scores of a group: `[keys, queries]`.
    pub(super) scores: &'a mut [f32],
    /// The bias of a group: `[keys, queries]`.
    pub(super) bias: &'a mut [f32],
    /// The maximum score of each query so far.
    pub(super) greatest: &'a mut [f32],
    /// The sum of each query's weights so far, relative to the maximum score.
    pub(super) weights: &'a mut [f32],
}

/// Queries of a task for the given features: whole groups.
pub(super) fn query_block(size: usize, value_size: usize) -> usize {
    let most = QUERY_FEATURES / (size + value_size).max(1);
    most.clamp(*QUERY_BLOCK.start(), *QUERY_BLOCK.end()) / WIDEST * WIDEST
}

/// The lengths of the buffers.
fn lengths(size: usize, value_size: usize) -> [usize; 8] {
    let queries = query_block(size, value_size);
    let value_size = padded(value_size);
    [
        queries * of_query(size),
        queries * value_size,
        padded(KEY_BLOCK) * of_query(size),
        KEY_BLOCK * value_size,
        padded(KEY_BLOCK) * WIDEST,
        KEY_BLOCK * WIDEST,
        queries,
        queries,
    ]
}

impl<'a> Panels<'a> {
    /// Floats of all buffers.
    pub(super) fn floats(size: usize, value_size: usize) -> usize {
        aligned_length(lengths(size, value_size))
    }

    /// Splits `scratch`, of [`floats`](Self::floats) floats.
    pub(super) fn of(scratch: &'a mut [f32], size: usize, value_size: usize) -> Self {
        let [queries, sums, keys, values, scores, bias, greatest, weights] =
            split_aligned(scratch, lengths(size, value_size));
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
