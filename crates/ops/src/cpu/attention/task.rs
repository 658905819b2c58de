//! An attention task: a block of queries of one head against all of its keys.
//!
//! Each lane is a query, in the products and in the softmax. Nothing moves between lanes, any head size and
//! any number of keys fill all lanes, and a query's result depends on no other query.

use super::panels::{KEY_BLOCK, Panels, Tile, of_query, padded};
use super::{Attention, Precision, products};
use crate::cpu::elements::{elements, lay, numbers};
use crate::cpu::simd::tiles::SIDE;
use crate::cpu::simd::{Kernel, Simd, exp2};
use crate::cpu::target::Target;

/// A block of queries of one head.
#[derive(Debug)]
pub(super) struct Task<'a> {
    pub(super) settings: &'a Attention<'a>,
    pub(super) batch: usize,
    pub(super) head: usize,
    /// The first query, and the number of queries.
    pub(super) first: usize,
    pub(super) queries: usize,
    /// The output of the first query. No other task writes there.
    pub(super) target: Target,
    pub(super) panels: Panels<'a>,
}

/// A group of queries: `vectors` vectors from the one at `first` on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub(super) first: usize,
    pub(super) vectors: usize,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        const MANY: usize = Tile::OF_32_REGISTERS.rows;
        const FEW: usize = Tile::OF_16_REGISTERS.rows;
        match (
            S::HAS_BF16_DOT && self.settings.precision == Precision::Bf16,
            S::REGISTERS,
        ) {
            (true, _) if S::HAS_TILES => self.attend_on_unit(simd),
            (true, 32..) => self.attend::<S, true, MANY>(simd, Tile::OF_32_REGISTERS),
            (true, _) => self.attend::<S, true, FEW>(simd, Tile::OF_16_REGISTERS),
            (false, 32..) => self.attend::<S, false, MANY>(simd, Tile::OF_32_REGISTERS),
            (false, _) => self.attend::<S, false, FEW>(simd, Tile::OF_16_REGISTERS),
        }
    }
}

/// The groups of a task's queries, of nearly equal sizes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups {
    pub(super) count: usize,
    vectors: usize,
}

impl Groups {
    pub(super) fn new<S: Simd>(queries: usize, tile: Tile) -> Self {
        let vectors = queries.div_ceil(S::LANES);
        Self {
            count: vectors.div_ceil(tile.vectors),
            vectors,
        }
    }

    #[inline(always)]
    pub(super) fn group<S: Simd>(self, index: usize) -> Group {
        let first = self.vectors * index / self.count;
        Group {
            first: first * S::LANES,
            vectors: self.vectors * (index + 1) / self.count - first,
        }
    }
}

impl Task<'_> {
    #[inline(always)]
    fn attend<S: Simd, const PAIRS: bool, const ROWS: usize>(&mut self, simd: S, tile: Tile) {
        let all = Groups::new::<S>(self.queries, tile);
        let (groups, group) = (all.count, |index: usize| all.group::<S>(index));
        for index in 0..groups {
            self.begin::<S, PAIRS>(simd, group(index));
        }
        let keys = self.settings.key_count();
        for first_key in (0..keys).step_by(KEY_BLOCK) {
            let count = KEY_BLOCK.min(keys - first_key);
            self.copy_keys::<S, PAIRS, ROWS>(simd, first_key, count);
            for index in 0..groups {
                let group = group(index);
                match group.vectors {
                    3 => self.step::<S, PAIRS, ROWS, 3>(simd, group.first, first_key, count),
                    2 => self.step::<S, PAIRS, ROWS, 2>(simd, group.first, first_key, count),
                    _ => self.step::<S, PAIRS, ROWS, 1>(simd, group.first, first_key, count),
                }
            }
        }
        for index in 0..groups {
            self.end(simd, group(index));
        }
    }
}

impl Task<'_> {
    /// Packs the queries of a group and resets its accumulators.
    #[inline(always)]
    pub(super) fn begin<S: Simd, const PAIRS: bool>(&mut self, simd: S, group: Group) {
        let Attention { q, size, scale, .. } = *self.settings;
        let width = group.vectors * S::LANES;
        let elements = elements::<PAIRS>(size);
        // The softmax uses powers of 2.
        let scale = (f64::from(scale) * std::f64::consts::LOG2_E) as f32;
        let queries = &mut self.panels.queries[group.first * of_query(size)..][..width * of_query(size)];
        for vector in 0..group.vectors {
            let first = group.first + vector * S::LANES;
            let rows = S::LANES.min(self.queries - first);
            // The key buffer is free until the keys are copied: a few queries use it.
            let scaled = &mut self.panels.keys[..rows * elements];
            for (row, to) in scaled.chunks_exact_mut(elements).enumerate() {
                let from = &q.row(self.batch, self.head, self.first + first + row)[..size];
                lay::<S, PAIRS>(simd, from, Some(scale), to);
            }
            transpose_into(
                simd,
                (scaled, elements),
                (rows, elements),
                (&mut queries[vector * S::LANES..], width),
            );
            for element in 0..elements {
                queries[element * width + vector * S::LANES..][rows..S::LANES].fill(0.0);
            }
        }
        if PAIRS && S::HAS_TILES {
            queries[elements * width..elements.next_multiple_of(SIDE) * width].fill(0.0);
        }
        let padded = padded(self.settings.value_size);
        self.panels.sums[group.first * padded..][..width * padded].fill(0.0);
        self.panels.greatest[group.first..][..width].fill(f32::NEG_INFINITY);
        self.panels.weights[group.first..][..width].fill(0.0);
    }

    /// Copies a block of keys and values, so that scattered memory is read once: keys row by row, values in
    /// the order of the product.
    #[inline(always)]
    fn copy_keys<S: Simd, const PAIRS: bool, const ROWS: usize>(
        &mut self,
        simd: S,
        first: usize,
        count: usize,
    ) {
        let Attention { size, value_size, .. } = *self.settings;
        let of_key = elements::<PAIRS>(size);
        for (index, to) in self.panels.keys.chunks_exact_mut(of_key).take(count).enumerate() {
            let (part, row) = self.settings.place_of_key(first + index);
            lay::<S, PAIRS>(simd, &part.k.row(self.batch, self.head, row)[..size], None, to);
        }
        let value = |index: usize| {
            let (part, row) = self.settings.place_of_key(first + index);
            &part.v.row(self.batch, self.head, row)[..value_size]
        };
        for element in 0..elements::<PAIRS>(count) {
            let even = value(numbers::<PAIRS>() * element);
            // The last pair may have no second value.
            let odd = match numbers::<PAIRS>() * element + 1 {
                index if PAIRS && index < count => value(index),
                _ => &[],
            };
            let features = self.panels.values.chunks_exact_mut(KEY_BLOCK * ROWS);
            for (begin, features) in (0..value_size).step_by(ROWS).zip(features) {
                let to = &mut features[element * ROWS..][..ROWS];
                for (index, to) in to.chunks_mut(S::LANES).enumerate() {
                    let begin = begin + index * S::LANES;
                    let mut vector = load_some(simd, even, begin, to.len());
                    if PAIRS {
                        vector = simd.pair(vector, load_some(simd, odd, begin, to.len()));
                    }
                    // SAFETY: there is space for as many.
                    unsafe { simd.store_first(to.as_mut_ptr(), vector, to.len()) };
                }
            }
        }
        // Scores of padding keys are not used.
        let beyond = count.next_multiple_of(ROWS) - count;
        self.panels.keys[count * of_key..][..beyond * of_key].fill(0.0);
    }

    /// Processes a block of keys for the group of queries that begins at `first`.
    #[inline(always)]
    fn step<S: Simd, const PAIRS: bool, const ROWS: usize, const VECTORS: usize>(
        &mut self,
        simd: S,
        first: usize,
        first_key: usize,
        count: usize,
    ) {
        let Attention { size, value_size, .. } = *self.settings;
        let width = VECTORS * S::LANES;
        let padded = padded(value_size);
        if self.settings.bias.is_some() {
            self.lay_out_bias::<S, VECTORS>(simd, first, first_key, count);
        }
        let Panels {
            queries,
            sums,
            keys,
            values,
            scores,
            bias,
            greatest,
            weights,
        } = &mut self.panels;
        let of_key = elements::<PAIRS>(size);
        let queries = &queries[first * of_query(size)..][..width * of_key];
        let sums = &mut sums[first * padded..][..width * padded];
        products::scores::<S, PAIRS, ROWS, VECTORS>(simd, queries, keys, count, of_key, scores);
        if self.settings.bias.is_some() {
            add_bias(simd, &mut scores[..count * width], &bias[..count * width]);
        }
        let factors = weigh::<S, PAIRS, VECTORS>(
            simd,
            &mut scores[..count * width],
            &mut greatest[first..][..width],
            &mut weights[first..][..width],
        );
        let count = elements::<PAIRS>(count);
        products::add_values::<S, PAIRS, ROWS, VECTORS>(
            simd, scores, values, count, value_size, &factors, sums,
        );
    }

    /// Packs the bias of a group of queries and a block of keys.
    #[inline(always)]
    pub(super) fn lay_out_bias<S: Simd, const VECTORS: usize>(
        &mut self,
        simd: S,
        first: usize,
        first_key: usize,
        count: usize,
    ) {
        let Some(bias) = self.settings.bias else {
            return;
        };
        let [_, _, by_query, by_key] = bias.steps;
        let width = VECTORS * S::LANES;
        for vector in 0..VECTORS {
            let first = first + vector * S::LANES;
            let rows = S::LANES.min(self.queries - first);
            let from = &bias.row(self.batch, self.head, self.first + first)[first_key * by_key..];
            let to = &mut self.panels.bias[vector * S::LANES..];
            if by_key == 1 && by_query > 0 {
                transpose_into(simd, (from, by_query), (rows, count), (to, width));
                for key in 0..count {
                    to[key * width..][rows..S::LANES].fill(0.0);
                }
                continue;
            }
            for key in 0..count {
                let to = &mut to[key * width..][..S::LANES];
                to.fill(from[key * by_key]);
                if by_query > 0 {
                    for (query, to) in to[..rows].iter_mut().enumerate() {
                        *to = from[query * by_query + key * by_key];
                    }
                }
            }
        }
    }

    /// Divides the sums of a group by its weights and writes them.
    #[inline(always)]
    pub(super) fn end<S: Simd>(&mut self, simd: S, group: Group) {
        let Attention { value_size, .. } = *self.settings;
        let width = group.vectors * S::LANES;
        let padded = padded(value_size);
        let sums = &mut self.panels.sums[group.first * padded..][..width * value_size];
        for vector in 0..group.vectors {
            let first = group.first + vector * S::LANES;
            let weights = &self.panels.weights[first..][..S::LANES];
            // SAFETY: the slice is a vector long.
            let weights = unsafe { simd.load(weights.as_ptr()) };
            // If all keys were masked the divisor is 0; NaN stays NaN.
            let inverse = simd.div(simd.splat(1.0), weights);
            let inverse = simd.select_less(simd.zero(), weights, inverse, weights);
            for feature in 0..value_size {
                let sums = &mut sums[feature * width + vector * S::LANES..][..S::LANES];
                // SAFETY: the slice is a vector long.
                unsafe { simd.store(sums.as_mut_ptr(), simd.mul(simd.load(sums.as_ptr()), inverse)) };
            }
            let rows = S::LANES.min(self.queries - first);
            let target = self.target.at(first * self.target.row_step);
            let from = &sums[vector * S::LANES..];
            assert!((value_size - 1) * width + rows <= from.len(), "{OUTSIDE}");
            // SAFETY: what is read was checked above. The result outlives all tasks, and these rows of it are
            // this one's alone.
            unsafe {
                let to = target.block(rows, value_size);
                transpose(
                    simd,
                    (from.as_ptr(), width),
                    (value_size, rows),
                    (to, target.row_step),
                );
            }
        }
    }
}

const OUTSIDE: &str = "a block lies outside of its values. This is a bug.";

/// At most `count` of the values from `first` on.
#[inline(always)]
pub(super) fn load_some<S: Simd>(simd: S, values: &[f32], first: usize, count: usize) -> S::Vector {
    let values = &values[first.min(values.len())..];
    // SAFETY: no more are loaded than there are.
    unsafe { simd.load_first(values.as_ptr(), values.len().min(count)) }
}

/// [`transpose`] between slices.
#[inline(always)]
fn transpose_into<S: Simd>(
    simd: S,
    (from, from_step): (&[f32], usize),
    (rows, columns): (usize, usize),
    (to, to_step): (&mut [f32], usize),
) {
    let spans = |length: usize, step: usize, rows: usize, columns: usize| {
        rows == 0 || columns == 0 || (rows - 1) * step + columns <= length
    };
    assert!(
        spans(from.len(), from_step, rows, columns) && spans(to.len(), to_step, columns, rows),
        "{OUTSIDE}"
    );
    // SAFETY: both blocks lie inside of their slices, as was checked above.
    unsafe {
        transpose(
            simd,
            (from.as_ptr(), from_step),
            (rows, columns),
            (to.as_mut_ptr(), to_step),
        )
    }
}

/// Transposes `rows` rows of `columns` values. Steps are values from row to row.
///
/// # Safety
/// `rows` rows of `columns` values can be read, as many columns written as rows, and the two blocks share
/// nothing.
#[inline(always)]
unsafe fn transpose<S: Simd>(
    simd: S,
    (from, from_step): (*const f32, usize),
    (rows, columns): (usize, usize),
    (to, to_step): (*mut f32, usize),
) {
    let whole = |count: usize| count / S::LANES * S::LANES;
    for row in (0..whole(rows)).step_by(S::LANES) {
        for column in (0..whole(columns)).step_by(S::LANES) {
            // SAFETY: the block lies inside of what the caller vouches for.
            unsafe {
                let from = from.add(row * from_step + column);
                let to = to.add(column * to_step + row);
                simd.transpose(from.cast(), 4 * from_step, to.cast(), 4 * to_step);
            }
        }
    }
    for row in 0..rows {
        let first = if row < whole(rows) { whole(columns) } else { 0 };
        for column in first..columns {
            // SAFETY: as above.
            unsafe { *to.add(column * to_step + row) = *from.add(row * from_step + column) };
        }
    }
}

/// Adds a bias, `[keys, queries]` as the scores are.
#[inline(always)]
pub(super) fn add_bias<S: Simd>(simd: S, scores: &mut [f32], bias: &[f32]) {
    let log2_e = simd.splat(std::f32::consts::LOG2_E);
    for (score, bias) in scores.chunks_exact_mut(S::LANES).zip(bias.chunks_exact(S::LANES)) {
        // SAFETY: the chunks are a vector long.
        unsafe {
            let sum = simd.fma(simd.load(bias.as_ptr()), log2_e, simd.load(score.as_ptr()));
            simd.store(score.as_mut_ptr(), sum);
        }
    }
}

/// Turns the scores of a key block, `[keys, queries]`, into weights relative to the maximum score of each
/// query so far, as elements, and adds them to the sums of weights. Returns the factors for what was
/// accumulated before.
#[inline(always)]
pub(super) fn weigh<S: Simd, const PAIRS: bool, const VECTORS: usize>(
    simd: S,
    scores: &mut [f32],
    greatest: &mut [f32],
    weights: &mut [f32],
) -> [S::Vector; VECTORS] {
    let width = VECTORS * S::LANES;
    assert!(greatest.len() == width && weights.len() == width, "{OUTSIDE}");
    // SAFETY: both are as many vectors long, and each chunk of scores too.
    unsafe {
        let mut references = [simd.zero(); VECTORS];
        for (vector, reference) in references.iter_mut().enumerate() {
            *reference = simd.load(greatest.as_ptr().add(vector * S::LANES));
        }
        let mut factors = references;
        for scores in scores.chunks_exact(width) {
            for (vector, reference) in references.iter_mut().enumerate() {
                let score = simd.load(scores.as_ptr().add(vector * S::LANES));
                // NaN is skipped here; its weight and the result become NaN.
                *reference = simd.max(score, *reference);
            }
        }
        for (vector, (reference, factor)) in references.iter_mut().zip(&mut factors).enumerate() {
            simd.store(greatest.as_mut_ptr().add(vector * S::LANES), *reference);
            // If all keys are masked no weight counts, and `-inf - -inf` must be avoided.
            *reference = simd.max(*reference, simd.splat(f32::MIN));
            *factor = exp2(simd, simd.sub(*factor, *reference));
        }
        let mut sums = [simd.zero(); VECTORS];
        let keys = scores.len() / width;
        let scores = scores.as_mut_ptr();
        for element in 0..elements::<PAIRS>(keys) {
            for (vector, (sum, &reference)) in sums.iter_mut().zip(&references).enumerate() {
                // Elements overwrite scores that were read.
                let to = scores.add(element * width + vector * S::LANES);
                let from = scores.add(numbers::<PAIRS>() * element * width + vector * S::LANES);
                let mut weight = exp2(simd, simd.sub(simd.load(from), reference));
                *sum = simd.add(*sum, weight);
                if PAIRS {
                    let mut odd = simd.zero();
                    if 2 * element + 1 < keys {
                        odd = exp2(simd, simd.sub(simd.load(from.add(width)), reference));
                        *sum = simd.add(*sum, odd);
                    }
                    weight = simd.pair(weight, odd);
                }
                simd.store(to, weight);
            }
        }
        for (vector, (&sum, &factor)) in sums.iter().zip(&factors).enumerate() {
            let weights = weights.as_mut_ptr().add(vector * S::LANES);
            simd.store(weights, simd.fma(simd.load(weights), factor, sum));
        }
        factors
    }
}
