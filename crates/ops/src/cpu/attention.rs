//! Attention on the processor.
//!
//! A task takes a block of queries past blocks of keys, and holds only the scores of one against the other.
//! Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao and others,
//! "FlashAttention", 2022.

use rayon::prelude::*;

use super::activation::exp;
use super::product::{Matrix, Target, multiply};
use super::scratch::with_scratch;
use super::vector::{LANES, greatest, total, vectorised};

/// Queries that a task takes.
const QUERY_BLOCK: usize = 64;
/// Keys whose scores a task holds at a time; with their values they fit the cache.
const KEY_BLOCK: usize = 512;
/// Scores that a task holds at a time.
pub(crate) const SCORES: usize = QUERY_BLOCK * KEY_BLOCK;
/// Keys are transposed in strips of this many features.
const STRIP: usize = 16;

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

    /// `rows` rows of one head.
    fn matrix(&self, batch: usize, head: usize, first: usize, rows: usize, columns: usize) -> Matrix<'a> {
        let [_, _, row_step, column_step] = self.steps;
        Matrix {
            values: self.row(batch, head, first),
            rows,
            columns,
            row_step,
            column_step,
        }
    }
}

/// What attention is between.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attention<'a> {
    pub(crate) q: View<'a>,
    pub(crate) k: View<'a>,
    pub(crate) v: View<'a>,
    pub(crate) bias: Option<View<'a>>,
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    /// Features of a query and of a key.
    pub(crate) size: usize,
    /// Features of a value.
    pub(crate) value_size: usize,
    pub(crate) scale: f32,
}

/// The result, as `[batch, queries, heads, value size]`: the order in which the heads are joined.
pub(crate) fn attention(settings: &Attention<'_>) -> Vec<f32> {
    let Attention {
        batch,
        heads,
        queries,
        keys,
        size,
        value_size,
        ..
    } = *settings;
    let mut result = vec![0.0; batch * queries * heads * value_size];
    if result.is_empty() || keys == 0 || size == 0 {
        // Without features all scores are equal, but no network is so; without keys there is nothing to sum.
        return result;
    }
    let transposed = transposed_keys(settings);
    let target = Target::new(&mut result, heads * value_size);
    let blocks = queries.div_ceil(QUERY_BLOCK);
    (0..batch * heads * blocks).into_par_iter().for_each(|task| {
        let (pair, first) = (task / blocks, task % blocks * QUERY_BLOCK);
        let (batch, head) = (pair / heads, pair % heads);
        let block = Block {
            batch,
            head,
            first,
            rows: QUERY_BLOCK.min(queries - first),
            keys: &transposed[pair * size * keys..(pair + 1) * size * keys],
            target: target.at(((batch * queries + first) * heads + head) * value_size),
        };
        block.attend(settings);
    });
    result
}

/// The keys as `[batch, heads, size, keys]`. The product with queries reads them so, and would otherwise
/// transpose them again for every block of queries.
fn transposed_keys(settings: &Attention<'_>) -> Vec<f32> {
    let Attention {
        k, heads, keys, size, ..
    } = *settings;
    let mut transposed = vec![0.0; settings.batch * heads * size * keys];
    transposed
        .par_chunks_mut(size * keys)
        .enumerate()
        .for_each(|(pair, to)| {
            to.par_chunks_mut(STRIP * keys)
                .enumerate()
                .for_each(|(strip, to)| {
                    for key in 0..keys {
                        let from = &k.row(pair / heads, pair % heads, key)[strip * STRIP..];
                        for (row, &value) in to.chunks_exact_mut(keys).zip(from) {
                            row[key] = value;
                        }
                    }
                });
        });
    transposed
}

/// A block of the queries of one head, with the keys of that head.
struct Block<'a> {
    batch: usize,
    head: usize,
    first: usize,
    rows: usize,
    keys: &'a [f32],
    target: Target,
}

impl Block<'_> {
    fn attend(&self, settings: &Attention<'_>) {
        let Attention {
            q,
            v,
            keys,
            size,
            value_size,
            scale,
            ..
        } = *settings;
        let Self {
            batch,
            head,
            first,
            rows,
            target,
            ..
        } = *self;
        let queries = q.matrix(batch, head, first, rows, size);
        let mut progress = [Progress::START; QUERY_BLOCK];
        with_scratch(rows * KEY_BLOCK.min(keys), |scores| {
            for first_key in (0..keys).step_by(KEY_BLOCK) {
                let count = KEY_BLOCK.min(keys - first_key);
                let scores = &mut scores[..rows * count];
                let transposed = Matrix {
                    values: &self.keys[first_key..],
                    rows: size,
                    columns: count,
                    row_step: keys,
                    column_step: 1,
                };
                // SAFETY: the scores belong to this task alone.
                unsafe { multiply(Target::new(scores, count), queries, transposed, scale, false) };
                for (row, (scores, progress)) in scores.chunks_exact_mut(count).zip(&mut progress).enumerate()
                {
                    if let Some(bias) = &settings.bias {
                        add_bias(
                            scores,
                            bias.row(batch, head, first + row),
                            first_key,
                            bias.steps[3],
                        );
                    }
                    *progress = weigh(scores, *progress);
                }
                let add = first_key > 0;
                let values = v.matrix(batch, head, first_key, count, value_size);
                // SAFETY: the result outlives all tasks, and these rows of it are this one's alone.
                unsafe {
                    if add {
                        target.fill(rows, value_size, |row, sums| rescale(sums, progress[row].rescale));
                    }
                    multiply(target, Matrix::row_major(scores, rows, count), values, 1.0, add);
                }
            }
        });
        // SAFETY: as above.
        unsafe {
            target.fill(rows, value_size, |row, sums| {
                let sum = progress[row].sum;
                rescale(sums, if sum == 0.0 { 0.0 } else { 1.0 / sum });
            });
        }
    }
}

fn add_bias(scores: &mut [f32], bias: &[f32], first: usize, step: usize) {
    match step {
        0 => scores.iter_mut().for_each(|score| *score += bias[0]),
        1 => scores
            .iter_mut()
            .zip(&bias[first..])
            .for_each(|(score, bias)| *score += bias),
        _ => scores
            .iter_mut()
            .zip(bias.iter().step_by(step).skip(first))
            .for_each(|(score, bias)| *score += bias),
    }
}

/// How far the softmax of a query has come.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// The greatest score so far.
    greatest: f32,
    /// The sum of the weights so far, relative to that of the greatest score.
    sum: f32,
    /// What weights from before the last block of keys must be multiplied by.
    rescale: f32,
}

impl Progress {
    const START: Self = Self {
        greatest: f32::NEG_INFINITY,
        sum: 0.0,
        rescale: 1.0,
    };
}

vectorised! {
    /// Makes scores weights relative to the greatest score so far.
    fn weigh(scores: &mut [f32], before: Progress) -> Progress {
        let greatest = greatest(scores).max(before.greatest);
        // Where all is masked nothing has a weight, and `-inf - -inf` must not be taken.
        let reference = if greatest == f32::NEG_INFINITY { 0.0 } else { greatest };
        let mut sums = [0.0_f32; LANES];
        let (whole, rest) = scores.as_chunks_mut::<LANES>();
        for chunk in whole {
            for (sum, score) in sums.iter_mut().zip(chunk) {
                *score = weight(*score - reference);
                *sum += *score;
            }
        }
        for (sum, score) in sums.iter_mut().zip(rest) {
            *score = weight(*score - reference);
            *sum += *score;
        }
        let rescale = weight(before.greatest - reference);
        Progress { greatest, sum: before.sum * rescale + total(sums), rescale }
    }

    fn rescale(values: &mut [f32], factor: f32) {
        for value in values {
            *value *= factor;
        }
    }
}

/// `e^x`, and nothing at all where it is too small for a normal number.
#[inline(always)]
fn weight(x: f32) -> f32 {
    const LEAST: f32 = -87.0;
    if x < LEAST { 0.0 } else { exp(x) }
}
