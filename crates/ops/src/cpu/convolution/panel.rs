//! Packs weights into panels of [`PANEL`] output channels: for each element a cache line with the weights of
//! these channels.

use std::ops::Range;

use super::Convolution;
use crate::cpu::projection::pack::{Stretch, pack};
use crate::cpu::simd::Simd;

/// Output channels of a panel: a multiple of the lanes of all vectors.
pub(super) const PANEL: usize = 16;

/// Floats of the panels of `outputs` output channels and `elements` elements.
pub(super) fn panels(outputs: usize, elements: usize) -> usize {
    outputs.next_multiple_of(PANEL) * elements
}

/// Floats of `values` values of a vector's output channels, as [`lay_floats`] writes them: whole blocks of
/// pairs.
pub(super) fn widened(values: usize) -> usize {
    values.next_multiple_of(2 * PANEL) * PANEL
}

impl Convolution<'_> {
    /// The weights of `channels` for the first of `outputs`, as many as a vector has lanes. If `pairs` is
    /// set, pairs of bf16 stay pairs.
    fn stretch<S: Simd>(&self, outputs: Range<usize>, channels: &Range<usize>, pairs: bool) -> Stretch<'_> {
        let taps = self.sizes.taps();
        Stretch::new(
            self.weight,
            self.sizes.in_channels * taps,
            (outputs.start, outputs.len().min(S::LANES)),
            (channels.start * taps, channels.len() * taps),
            pairs,
        )
    }
}

/// Writes a vector for each weight of each channel: those of the first of `outputs`, as 32-bit floats.
#[inline(always)]
pub(super) fn lay_floats<S: Simd>(
    simd: S,
    convolution: &Convolution<'_>,
    outputs: Range<usize>,
    channels: &Range<usize>,
    to: &mut [f32],
) {
    pack(
        simd,
        convolution.stretch::<S>(outputs, channels, false),
        to,
        S::LANES,
    );
}

/// Floats after the panels that [`lay_panels`] overwrites, as it writes whole blocks.
pub(super) const OVERHANG: usize = 2 * PANEL * PANEL;

/// Where panels of elements become tiles, the floats of a panel before that.
pub(super) fn before_tiles(elements: usize, taps: usize) -> usize {
    PANEL * elements * taps + OVERHANG
}

/// Packs the weights of some channels for `outputs`, as floats or as pairs, followed by [`OVERHANG`] unused
/// floats.
#[inline(always)]
pub(super) fn lay_panels<S: Simd>(
    simd: S,
    convolution: &Convolution<'_>,
    outputs: &Range<usize>,
    channels: &Range<usize>,
    widened: &mut [f32],
    panels: &mut [f32],
) {
    let taps = convolution.sizes.taps();
    let elements = channels.len().div_ceil(convolution.pair());
    for output in (0..outputs.len()).step_by(S::LANES) {
        let some = outputs.start + output..outputs.end;
        let panel = &mut panels[output / PANEL * PANEL * elements * taps + output % PANEL..];
        if !convolution.in_pairs || taps == 1 {
            // With a single tap, neighbours in memory are pairs of channels.
            let stretch = convolution.stretch::<S>(some, channels, convolution.in_pairs);
            pack(simd, stretch, panel, PANEL);
            continue;
        }
        lay_floats(simd, convolution, some, channels, widened);
        assert!(
            channels.len() * taps * S::LANES <= widened.len()
                && (elements * taps - 1) * PANEL + S::LANES <= panel.len(),
            "the buffer of weights is too small. This is a bug."
        );
        for element in 0..elements {
            let has_odd = 2 * element + 1 < channels.len();
            for tap in 0..taps {
                // SAFETY: as was asserted: each channel has a vector for each place, and each element one in
                // the panel.
                unsafe {
                    let from = widened.as_ptr().add((2 * element * taps + tap) * S::LANES);
                    let odd = if has_odd {
                        simd.load(from.add(taps * S::LANES))
                    } else {
                        simd.zero()
                    };
                    let to = panel.as_mut_ptr().add((element * taps + tap) * PANEL);
                    simd.store(to, simd.pair(simd.load(from), odd));
                }
            }
        }
    }
}
