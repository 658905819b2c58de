//! An attention task whose products run on a matrix unit.
//!
//! Both products have a query in each column, as those of vectors have: on the left of the first are keys, on the
//! left of the second the features of values.

use super::Attention;
use super::panels::{KEY_BLOCK, Panels, Tile, of_query, padded};
use super::task::{Groups, Task, add_bias, load_some, weigh};
use crate::cpu::elements::{elements, lay_in_tiles};
use crate::cpu::simd::Simd;
use crate::cpu::simd::tiles::{ONE_TAP, SIDE, TILE, TileProduct, TileUnit};

/// Floats of the values of a block of keys, for 16 features: pairs of keys.
const OF_FEATURES: usize = KEY_BLOCK / 2 * SIDE;

/// Tiles for `count` elements.
#[inline(always)]
fn depth(count: usize) -> usize {
    count.div_ceil(SIDE)
}

impl Task<'_> {
    #[inline(always)]
    pub(super) fn attend_on_unit<S: Simd>(&mut self, simd: S) {
        let groups = Groups::new::<S>(self.queries, Tile::OF_UNIT);
        let _unit = TileUnit::new(simd);
        for index in 0..groups.count {
            self.begin::<S, true>(simd, groups.group::<S>(index));
        }
        let keys = self.settings.key_count();
        for first_key in (0..keys).step_by(KEY_BLOCK) {
            let count = KEY_BLOCK.min(keys - first_key);
            self.lay_keys(simd, first_key, count);
            self.lay_values(simd, first_key, count);
            for index in 0..groups.count {
                let group = groups.group::<S>(index);
                match group.vectors {
                    2 => self.step_on_unit::<S, 2>(simd, group.first, first_key, count),
                    _ => self.step_on_unit::<S, 1>(simd, group.first, first_key, count),
                }
            }
        }
        for index in 0..groups.count {
            self.end(simd, groups.group::<S>(index));
        }
    }

    /// Copies a block of keys into tiles.
    #[inline(always)]
    fn lay_keys<S: Simd>(&mut self, simd: S, first: usize, count: usize) {
        let size = self.settings.size;
        let depth = depth(elements::<true>(size));
        for index in 0..count {
            let (part, row) = self.settings.place_of_key(first + index);
            let from = &part.k.row(self.batch, self.head, row)[..size];
            let to = &mut self.panels.keys[index / SIDE * depth * TILE + index % SIDE * SIDE..];
            lay_in_tiles(simd, from, None, depth, to);
        }
    }

    /// Copies the values of a block of keys into tiles, with zeros after the last key.
    #[inline(always)]
    fn lay_values<S: Simd>(&mut self, simd: S, first: usize, count: usize) {
        let value_size = self.settings.value_size;
        for tile in 0..depth(elements::<true>(count)) {
            let mut rows: [&[f32]; 2 * SIDE] = [&[]; 2 * SIDE];
            for (index, row) in rows.iter_mut().enumerate() {
                let index = 2 * SIDE * tile + index;
                if index < count {
                    let (part, place) = self.settings.place_of_key(first + index);
                    *row = &part.v.row(self.batch, self.head, place)[..value_size];
                }
            }
            for feature in (0..value_size).step_by(SIDE) {
                let mut pairs = [0.0_f32; TILE];
                for (pair, rows) in pairs.chunks_exact_mut(SIDE).zip(rows.chunks_exact(2)) {
                    let even = load_some(simd, rows[0], feature, SIDE);
                    let odd = load_some(simd, rows[1], feature, SIDE);
                    // SAFETY: a vector has as many lanes.
                    unsafe { simd.store(pair.as_mut_ptr(), simd.pair(even, odd)) };
                }
                let to = &mut self.panels.values[feature / SIDE * OF_FEATURES + tile * TILE..][..TILE];
                // SAFETY: both are a whole tile.
                unsafe {
                    simd.transpose(pairs.as_ptr().cast(), 4 * SIDE, to.as_mut_ptr().cast(), 4 * SIDE);
                }
            }
        }
    }

    /// Processes a block of keys for the group of queries that begins at `first`.
    #[inline(always)]
    fn step_on_unit<S: Simd, const VECTORS: usize>(
        &mut self,
        simd: S,
        first: usize,
        first_key: usize,
        count: usize,
    ) {
        let Attention { size, value_size, .. } = *self.settings;
        let width = VECTORS * S::LANES;
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
        let queries = &queries[first * of_query(size)..][..width * of_query(size)];
        let sums = &mut sums[first * padded(value_size)..][..width * padded(value_size)];
        let of_keys = depth(elements::<true>(size));
        multiply::<S, VECTORS>(simd, (keys, count, of_keys), queries, of_keys, (scores, false));
        if self.settings.bias.is_some() {
            add_bias(simd, &mut scores[..count * width], &bias[..count * width]);
        }
        let factors = weigh::<S, true, VECTORS>(
            simd,
            &mut scores[..count * width],
            &mut greatest[first..][..width],
            &mut weights[first..][..width],
        );
        let pairs = elements::<true>(count);
        scores[pairs * width..pairs.next_multiple_of(SIDE) * width].fill(0.0);
        for sums in sums[..width * value_size].chunks_exact_mut(width) {
            for (vector, &factor) in factors.iter().enumerate() {
                // SAFETY: the chunk has as many vectors.
                unsafe {
                    let to = sums.as_mut_ptr().add(vector * S::LANES);
                    simd.store(to, simd.mul(simd.load(to), factor));
                }
            }
        }
        let tiles = (&**values, value_size, OF_FEATURES / TILE);
        multiply::<S, VECTORS>(simd, tiles, scores, depth(pairs), (sums, true));
    }
}

/// The product of `count` rows of tiles, `of_row` tiles for each 16 rows of which the first `depth` count, and
/// `right`, `[elements, queries]`: `[rows, queries]`, which is written over the sums or added to them.
#[inline(always)]
fn multiply<S: Simd, const VECTORS: usize>(
    simd: S,
    (left, count, of_row): (&[f32], usize, usize),
    right: &[f32],
    depth: usize,
    (sums, add): (&mut [f32], bool),
) {
    let width = VECTORS * SIDE;
    let rows = count.next_multiple_of(SIDE);
    assert!(
        depth <= of_row
            && rows * of_row * SIDE <= left.len()
            && depth * SIDE * width <= right.len()
            && rows * width <= sums.len(),
        "a product does not fit its tiles. This is a bug."
    );
    let mut row = 0;
    while row < rows {
        // SAFETY: as was asserted: there are tiles for all rows and all columns, and sums for both.
        unsafe {
            let right = right.as_ptr();
            let product = TileProduct {
                left: left.as_ptr().add(row * of_row * SIDE),
                left_block: of_row * TILE,
                right: [right, right.wrapping_add(SIDE)],
                right_step: width,
                taps: ONE_TAP,
                depth,
                sums: sums.as_mut_ptr().add(row * width),
                sums_step: width,
                add,
            };
            if row + SIDE < rows {
                simd.multiply_tiles::<2, VECTORS>(&product);
                row += 2 * SIDE;
            } else {
                simd.multiply_tiles::<1, VECTORS>(&product);
                row += SIDE;
            }
        }
    }
}
