//! Convolutions on a matrix unit: tiles of weights by vectors of pixels.
//!
//! On the left are 16 output channels by 16 pairs of input channels, for each panel of output channels a tile for
//! each tap and each 16 pairs. On the right are the planes of these pairs, as they are: the 16 pixels of a
//! vector, a plane for each row of the tile.

use std::ops::Range;

use super::Convolution;
use super::panel::{PANEL, lay_panels};
use super::tile::Part;
use crate::cpu::simd::Simd;
use crate::cpu::simd::tiles::{SIDE, TILE, TileProduct};

impl Part<'_> {
    /// Multiplies and accumulates.
    ///
    /// # Safety
    /// The planes, weights and sums are as long as [`Part`] states, with whole tiles of planes and of outputs; no
    /// other thread touches the sums; and the tiles of this thread are configured.
    #[inline(always)]
    pub(super) unsafe fn multiply_on_unit<S: Simd>(&self, simd: S) {
        let (vectors, depth) = (self.pixel_vectors, self.channels.div_ceil(SIDE));
        let of_panel = self.taps.len() * depth * TILE;
        let (step, outputs) = (vectors.len() * SIDE, self.outputs.next_multiple_of(PANEL));
        for (index, pair) in vectors.chunks(2).enumerate() {
            let mut output = 0;
            while output < outputs {
                let two = output + PANEL < outputs;
                // SAFETY: guaranteed by the caller; a vector and a tap of the kernel lie inside of the plane.
                unsafe {
                    let product = TileProduct {
                        left: self.weights.add(output / PANEL * of_panel),
                        left_block: of_panel,
                        right: [
                            self.planes.add(pair[0].offset),
                            self.planes.add(pair[pair.len() - 1].offset),
                        ],
                        right_step: self.plane_step,
                        taps: self.taps,
                        depth,
                        sums: self.sums.add(output * step + 2 * index * SIDE),
                        sums_step: step,
                        add: !self.is_first,
                    };
                    match (two, pair.len()) {
                        (true, 2) => simd.multiply_tiles::<2, 2>(&product),
                        (true, _) => simd.multiply_tiles::<2, 1>(&product),
                        (false, 2) => simd.multiply_tiles::<1, 2>(&product),
                        (false, _) => simd.multiply_tiles::<1, 1>(&product),
                    }
                }
                output += if two { 2 * PANEL } else { PANEL };
            }
        }
    }
}

/// Packs the weights of some channels for `outputs` as tiles.
#[inline(always)]
pub(super) fn lay_tiles<S: Simd>(
    simd: S,
    convolution: &Convolution<'_>,
    outputs: &Range<usize>,
    channels: &Range<usize>,
    [widened, before]: [&mut [f32]; 2],
    tiles: &mut [f32],
) {
    let (taps, pairs) = (convolution.sizes.taps(), channels.len().div_ceil(2));
    let stored = pairs.next_multiple_of(SIDE);
    for output in outputs.clone().step_by(PANEL) {
        let some = output..outputs.end.min(output + PANEL);
        lay_panels(simd, convolution, &some, channels, widened, before);
        before[pairs * taps * PANEL..stored * taps * PANEL].fill(0.0);
        for tap in 0..taps {
            let to = ((output - outputs.start) * taps + tap * PANEL) * stored;
            let from = &before[tap * PANEL..stored * taps * PANEL];
            let tiles = &mut tiles[to..][..stored * PANEL];
            // SAFETY: the slice is as long as these tiles.
            unsafe { turn(simd, from, taps * PANEL, tiles.as_mut_ptr(), stored / SIDE) };
        }
    }
}

/// Turns vectors of output channels, of which each is an element and `step` floats from the next, into `count` tiles.
///
/// # Safety
/// The tiles can be written.
#[inline(always)]
pub(super) unsafe fn turn<S: Simd>(simd: S, from: &[f32], step: usize, tiles: *mut f32, count: usize) {
    for index in 0..count {
        let from = &from[index * SIDE * step..][..(SIDE - 1) * step + SIDE];
        // SAFETY: the elements are as long as a tile, from row to row; the caller vouches for the tile.
        unsafe {
            let to = tiles.add(index * TILE).cast();
            simd.transpose(from.as_ptr().cast(), 4 * step, to, 4 * SIDE);
        }
    }
}
