//! Products of few rows with a quantised weight: it is multiplied as it is decoded.
//!
//! A panel would be written and read for few products. The products of a result and their order are those of the
//! panels, so that the bits are the same.

// Several lists are indexed together.
#![allow(clippy::needless_range_loop)]

use super::super::elements::{elements, lay, numbers};
use super::super::simd::Simd;
use super::lanes::{Decoder, PART, WORDS, decodes};
use super::partition::{Limits, STRETCH};
use super::quantized_rows::QuantizedRows;
use super::task::{Task, Tiles};
use super::tile::VECTORS;
use super::{Projection, Weight};
use crate::Quantization;

/// The most rows. Panels are about as fast for more.
const MOST: usize = 4;

impl Task<'_> {
    /// Whether the rows of the weight are multiplied as they are decoded.
    #[inline(always)]
    pub(super) fn has_few_rows<S: Simd>(&self, tiles: Tiles) -> bool {
        let Weight::Quantized(weight) = self.projection.weight else {
            return false;
        };
        self.rows.len() <= MOST
            && decodes(weight.quantization)
            && self.columns.len().is_multiple_of(tiles.columns)
    }

    /// Accumulates all products of a task that [has few rows](Self::has_few_rows).
    #[inline(always)]
    pub(super) fn multiply_few<S: Simd, const PAIRS: bool>(&mut self, simd: S, tiles: Tiles) {
        let Projection {
            weight: Weight::Quantized(weight),
            ..
        } = self.projection
        else {
            panic!("a weight that is not quantised is decoded. This is a bug.");
        };
        match weight.quantization {
            Quantization::Q8_0 => self.by_rows::<S, PAIRS, false>(simd, tiles, weight),
            _ => self.by_rows::<S, PAIRS, true>(simd, tiles, weight),
        }
    }

    #[inline(always)]
    fn by_rows<S: Simd, const PAIRS: bool, const NIBBLES: bool>(
        &mut self,
        simd: S,
        tiles: Tiles,
        weight: QuantizedRows<'_>,
    ) {
        match self.rows.len() {
            0 => {}
            1 => self.decoded::<S, 1, PAIRS, NIBBLES>(simd, tiles, weight),
            2 => self.decoded::<S, 2, PAIRS, NIBBLES>(simd, tiles, weight),
            3..=MOST => self.decoded::<S, MOST, PAIRS, NIBBLES>(simd, tiles, weight),
            _ => panic!("too many rows for the registers. This is a bug."),
        }
    }

    #[inline(always)]
    fn decoded<S: Simd, const ROWS: usize, const PAIRS: bool, const NIBBLES: bool>(
        &mut self,
        simd: S,
        tiles: Tiles,
        weight: QuantizedRows<'_>,
    ) {
        let (inputs, width) = (self.projection.inputs, tiles.width());
        let part = numbers::<PAIRS>() * Limits::VECTORS.stretch_of(elements::<PAIRS>(inputs));
        let x = &self.x[self.rows.start * inputs..self.rows.end * inputs];
        for index in 0..tiles.count {
            let (row, _) = self.weight_rows::<S>(tiles, index, 0);
            let decoder = |vector: usize| {
                let ahead = VECTORS * S::LANES;
                Decoder::<S, NIBBLES>::new(simd, weight, row + vector * S::LANES, ahead)
            };
            let (mut left, mut right) = (decoder(0), decoder(1));
            // With no inputs the accumulators must be written as 0.
            for first in (0..inputs.max(1)).step_by(part) {
                let count = part.min(inputs - first);
                let rows = self.workspace.rows.chunks_exact_mut(STRETCH);
                for (row, to) in rows.enumerate().take(self.rows.len()) {
                    let from = &x[row * inputs + first..][..count];
                    lay::<S, PAIRS>(simd, from, None, &mut to[..elements::<PAIRS>(count)]);
                }
                // Results of rows that are not there are not used.
                let rows = self.workspace.rows[..ROWS * STRETCH].as_ptr();
                let mut sums = [[simd.zero(); ROWS]; VECTORS];
                let [of_left, of_right] = &mut sums;
                for value in (first..first + count).step_by(PART) {
                    let place = (value - first) / numbers::<PAIRS>();
                    // SAFETY: the laid rows have an element for each of the part, which has `count` values.
                    unsafe {
                        add_part::<S, ROWS, PAIRS, NIBBLES>(
                            simd,
                            &mut left,
                            value,
                            value == first,
                            rows,
                            place,
                            of_left,
                        );
                        add_part::<S, ROWS, PAIRS, NIBBLES>(
                            simd,
                            &mut right,
                            value,
                            value == first,
                            rows,
                            place,
                            of_right,
                        );
                    }
                }
                let to =
                    &mut self.workspace.sums[index * tiles.columns..][..(ROWS - 1) * width + tiles.columns];
                for (vector, sums) in sums.into_iter().enumerate() {
                    for (row, sum) in sums.into_iter().enumerate() {
                        // SAFETY: the slice has a vector there.
                        unsafe {
                            let to = to.as_mut_ptr().add(row * width + vector * S::LANES);
                            let before = if first > 0 { simd.load(to) } else { simd.zero() };
                            simd.store(to, simd.add(before, sum));
                        }
                    }
                }
            }
        }
    }
}

/// Adds the products of a part to the sums of each row. Rows are [`STRETCH`] elements apart.
///
/// # Safety
/// The rows have elements for the part from `place` on.
#[inline(always)]
unsafe fn add_part<S: Simd, const ROWS: usize, const PAIRS: bool, const NIBBLES: bool>(
    simd: S,
    decoder: &mut Decoder<'_, S, NIBBLES>,
    value: usize,
    is_first: bool,
    rows: *const f32,
    place: usize,
    sums: &mut [S::Vector; ROWS],
) {
    let scale = decoder.read(value, is_first);
    let mut totals = *sums;
    for word in 0..WORDS {
        let values = decoder.values(scale, word);
        // SAFETY: guaranteed by the caller.
        let rows = unsafe { rows.add(place + word * 4 / numbers::<PAIRS>()) };
        if PAIRS {
            let pairs = [simd.pair(values[0], values[1]), simd.pair(values[2], values[3])];
            for (index, pair) in pairs.into_iter().enumerate() {
                for row in 0..ROWS {
                    // SAFETY: as above.
                    let x = unsafe { *rows.add(row * STRETCH + index) };
                    totals[row] = simd.dot_bf16(totals[row], simd.splat(x), pair);
                }
            }
            continue;
        }
        // All rows for a value: the products of one row would wait for each other. And at a constant distance, so that
        // one register has the addresses of all.
        for (index, value) in values.into_iter().enumerate() {
            for row in 0..ROWS {
                // SAFETY: as above.
                let x = unsafe { *rows.add(row * STRETCH + index) };
                totals[row] = simd.fma(simd.splat(x), value, totals[row]);
            }
        }
    }
    *sums = totals;
}
