//! What a task of attention holds while it runs, in the order in which it is read. Where products are of pairs of bf16, what is
//! summed over has half as many elements as is said here, of two features or of two keys.

use super::QUERY_BLOCK;
use crate::cpu::buffers::{cut_in_lines, in_lines};

/// Keys that queries are taken past at a time: with their values, and the scores of a group of queries, they fit the caches.
pub(super) const KEY_BLOCK: usize = 128;
/// Vectors of queries in a group, which goes through a block of keys at once.
pub(super) const GROUP: usize = 3;
/// The most rows that products are made of at a time. Keys and the features of values are padded to a multiple of as many.
pub(super) const MOST_ROWS: usize = 8;
/// The most queries in a group.
const WIDEST: usize = GROUP * 16;

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

/// How long each panel is.
fn lengths(size: usize, value_size: usize) -> [usize; 8] {
    let padded = value_size.next_multiple_of(MOST_ROWS);
    [
        QUERY_BLOCK * size,
        QUERY_BLOCK * padded,
        KEY_BLOCK * size,
        KEY_BLOCK * padded,
        KEY_BLOCK * WIDEST,
        KEY_BLOCK * WIDEST,
        QUERY_BLOCK,
        QUERY_BLOCK,
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
