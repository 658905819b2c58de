//! Attention on the processor: a block of queries at a time against all keys, so that of the score matrix a
//! few rows exist at once.

use gemm::Parallelism;
use rayon::prelude::*;

use super::activation::exp;
use super::product::{Matrix, Target, multiply};

/// Queries in a block.
const BLOCK: usize = 64;

/// The sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    /// Batch times heads.
    pub(crate) heads: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) width: usize,
    /// Features of a value.
    pub(crate) value_width: usize,
    pub(crate) scale: f32,
}

/// What is added to the scores of a head: rows of `keys` values, one a query.
pub(crate) type Bias<'a> = dyn Fn(usize) -> Option<&'a [f32]> + Sync + 'a;

/// For every head `softmax(scale * q * k^T + bias) * v`.
pub(crate) fn attention(q: &[f32], k: &[f32], v: &[f32], bias: &Bias<'_>, geometry: Geometry) -> Vec<f32> {
    let Geometry { heads, queries, keys, width, value_width, scale } = geometry;
    let mut result = vec![0.0; heads * queries * value_width];
    let blocks = queries.div_ceil(BLOCK);
    let target = Target::new(&mut result, value_width);
    (0..heads * blocks).into_par_iter().for_each_init(Vec::new, |scores: &mut Vec<f32>, index| {
        let (head, first) = (index / blocks, index % blocks * BLOCK);
        let rows = BLOCK.min(queries - first);
        scores.resize(BLOCK * keys, 0.0);
        let q = &q[(head * queries + first) * width..][..rows * width];
        let k = &k[head * keys * width..][..keys * width];
        let v = &v[head * keys * value_width..][..keys * value_width];
        let (q, k) = (Matrix::row_major(q, rows, width), Matrix::row_major(k, keys, width).transposed());
        // SAFETY: the scores are this task's own.
        #[allow(unsafe_code)]
        unsafe {
            multiply(Target::new(scores, keys), q, k, scale, false, Parallelism::None);
        }
        let bias = bias(head);
        for (row, scores) in scores.chunks_exact_mut(keys.max(1)).take(rows).enumerate() {
            if let Some(bias) = bias {
                let bias = &bias[(first + row) * keys..][..keys];
                scores.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
            }
            softmax(scores);
        }
        let scores = Matrix::row_major(&scores[..rows * keys], rows, keys);
        let target = target.from_offset((head * queries + first) * value_width);
        // SAFETY: `result` outlives the loop, and every task writes to rows of its own.
        #[allow(unsafe_code)]
        unsafe {
            multiply(target, scores, Matrix::row_major(v, keys, value_width), 1.0, false, Parallelism::None);
        }
    });
    result
}

/// Turns scores into shares that add up to 1. Where every score is minus infinity all shares are zero.
fn softmax(scores: &mut [f32]) {
    const LANES: usize = 16;
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if highest == f32::NEG_INFINITY && !scores.iter().any(|score| score.is_nan()) {
        scores.fill(0.0);
        return;
    }
    let mut sums = [0.0_f32; LANES];
    let (whole, rest) = scores.as_chunks_mut::<LANES>();
    for chunk in whole {
        for (score, sum) in chunk.iter_mut().zip(&mut sums) {
            *score = share(*score - highest);
            *sum += *score;
        }
    }
    let mut sum = 0.0;
    for score in rest {
        *score = share(*score - highest);
        sum += *score;
    }
    let reciprocal = 1.0 / (sum + sums.iter().sum::<f32>());
    scores.iter_mut().for_each(|score| *score *= reciprocal);
}

/// `e^x`, and zero where that would not matter, so that what is masked out has no share at all.
#[inline]
fn share(x: f32) -> f32 {
    const SMALLEST: f32 = -87.0;
    if x < SMALLEST { 0.0 } else { exp(x) }
}
