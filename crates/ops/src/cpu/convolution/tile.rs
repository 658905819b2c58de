//! The convolution microkernel: some output channels by some vectors of pixels, accumulated in registers over
//! all elements.
//!
//! Zhang, Franchetti and Low, "High Performance Zero-Memory Overhead Direct Convolutions", 2018, show that
//! only the weights need packing ([`panel`](super::panel)). Here a zero-padded copy of the pixels that fits
//! the cache is made too.

use super::panel::PANEL;
use super::partition::PixelVector;
use crate::cpu::simd::Simd;

/// The most vectors of pixels in a tile.
const VECTORS: usize = 3;

/// Planes of some input channels, and their weights.
///
/// Elements are 32-bit floats, or pairs of bf16 of two channels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    /// The offset of each tap from the first one.
    pub(super) taps: &'a [usize],
    pub(super) pixel_vectors: &'a [PixelVector],
    /// A plane for each channel, and [`SLACK`] values after them.
    pub(super) planes: *const f32,
    /// Values from a plane to the next.
    pub(super) plane_step: usize,
    /// Number of planes.
    pub(super) channels: usize,
    /// Packed weights, a panel for each tap of each channel; on a matrix unit tiles ([`unit`](super::unit)).
    pub(super) weights: *const f32,
    /// Output channels.
    pub(super) outputs: usize,
    /// The accumulators: for each output channel a vector for each vector of pixels.
    pub(super) sums: *mut f32,
    /// Whether the sums replace the contents, as the first ones.
    pub(super) is_first: bool,
    /// Whether elements are pairs.
    pub(super) in_pairs: bool,
}

/// Values after the last plane that may be read, but are not used.
pub(super) const SLACK: usize = 16;

impl Part<'_> {
    /// Multiplies and accumulates.
    ///
    /// # Safety
    /// The planes, weights and sums are as long as stated above, and no other thread touches the sums.
    #[inline(always)]
    pub(super) unsafe fn multiply<S: Simd>(&self, simd: S) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            // The constants first, so that no code is compiled for what an instruction set does not have.
            if S::HAS_BF16_DOT && self.in_pairs {
                if S::HAS_TILES {
                    self.multiply_on_unit(simd);
                } else {
                    self.multiply_elements::<S, true>(simd);
                }
            } else {
                self.multiply_elements::<S, false>(simd);
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply_elements<S: Simd, const PAIRS: bool>(&self, simd: S) {
        let pixel_vectors = self.pixel_vectors;
        let mut first = 0;
        while first < pixel_vectors.len() {
            // Not 3 and 1: the accumulators of the last one would wait for each other.
            let count = match (pixel_vectors.len() - first, S::REGISTERS) {
                (1, _) => 1,
                (2 | 4, _) | (_, ..32) => 2,
                _ => VECTORS,
            };
            // SAFETY: guaranteed by the caller.
            unsafe {
                match count {
                    1 => self.multiply_column::<S, PAIRS, 1>(simd, first),
                    2 => self.multiply_column::<S, PAIRS, 2>(simd, first),
                    _ => self.multiply_column::<S, PAIRS, VECTORS>(simd, first),
                }
            }
            first += count;
        }
    }

    /// The products of all output channels by `V` vectors.
    #[inline(always)]
    unsafe fn multiply_column<S: Simd, const PAIRS: bool, const V: usize>(&self, simd: S, first: usize) {
        let mut output = 0;
        while output < self.outputs {
            // A tile is inside of a panel.
            let rest = (self.outputs - output).min(PANEL - output % PANEL);
            // SAFETY: guaranteed by the caller.
            unsafe {
                output += if rest >= 8 && S::REGISTERS > 8 * V + V {
                    self.tile::<S, PAIRS, 8, V>(simd, output, first)
                } else if rest >= 6 && S::REGISTERS < 32 {
                    self.tile::<S, PAIRS, 6, V>(simd, output, first)
                } else if rest >= 4 {
                    self.tile::<S, PAIRS, 4, V>(simd, output, first)
                } else if rest >= 2 {
                    self.tile::<S, PAIRS, 2, V>(simd, output, first)
                } else {
                    self.tile::<S, PAIRS, 1, V>(simd, output, first)
                };
            }
        }
    }

    /// The products of `O` output channels by `V` vectors. Returns `O`.
    #[allow(clippy::needless_range_loop)] // Nothing but plain loops is sure to become registers.
    #[inline(always)]
    unsafe fn tile<S: Simd, const PAIRS: bool, const O: usize, const V: usize>(
        &self,
        simd: S,
        output: usize,
        first: usize,
    ) -> usize {
        let Self {
            taps, pixel_vectors, ..
        } = *self;
        let mut offsets = [0; V];
        for (offset, vector) in offsets.iter_mut().zip(&pixel_vectors[first..first + V]) {
            *offset = vector.offset;
        }
        let mut sums = [[simd.zero(); V]; O];
        // SAFETY: guaranteed by the caller; a vector and a tap of the kernel lie inside of the plane.
        unsafe {
            let mut channel = self.planes;
            let panel = output / PANEL * PANEL * self.channels * taps.len();
            let mut weights = self.weights.add(panel + output % PANEL);
            for _ in 0..self.channels {
                for &tap in taps {
                    let pixels = channel.add(tap);
                    let mut values = [simd.zero(); V];
                    for vector in 0..V {
                        values[vector] = simd.load(pixels.add(offsets[vector]));
                    }
                    for output in 0..O {
                        let weight = simd.splat(*weights.add(output));
                        for vector in 0..V {
                            sums[output][vector] = if PAIRS {
                                simd.dot_bf16(sums[output][vector], weight, values[vector])
                            } else {
                                simd.fma(weight, values[vector], sums[output][vector])
                            };
                        }
                    }
                    weights = weights.add(PANEL);
                }
                channel = channel.add(self.plane_step);
            }
            for (index, sums) in sums.into_iter().enumerate() {
                let to = self
                    .sums
                    .add(((output + index) * pixel_vectors.len() + first) * S::LANES);
                for (vector, sum) in sums.into_iter().enumerate() {
                    let to = to.add(vector * S::LANES);
                    let sum = if self.is_first {
                        sum
                    } else {
                        simd.add(simd.load(to), sum)
                    };
                    simd.store(to, sum);
                }
            }
        }
        O
    }
}

/// The addends of an output channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finish<'a> {
    /// The bias of each.
    pub(super) bias: f32,
    /// Values of the channel's pixels to add.
    pub(super) onto: Option<&'a [f32]>,
}

impl Finish<'_> {
    /// Writes the sums of a vector.
    ///
    /// # Safety
    /// There is a vector of sums, and `vector.count` values of the channel that begins at `channel` can be
    /// written at the vector's offset.
    #[inline(always)]
    pub(super) unsafe fn write<S: Simd>(
        &self,
        simd: S,
        sums: *const f32,
        vector: &PixelVector,
        channel: *mut f32,
    ) {
        // SAFETY: guaranteed by the caller; a slice is checked.
        unsafe {
            let mut sum = simd.add(simd.load(sums), simd.splat(self.bias));
            if let Some(onto) = self.onto {
                let onto = &onto[vector.to..vector.to + vector.count];
                sum = simd.add(simd.load_first(onto.as_ptr(), vector.count), sum);
            }
            simd.store_first(channel.add(vector.to), sum, vector.count);
        }
    }
}
