//! Weights laid out as products take them: panels of [`PANEL`] output channels, in which a line of the cache holds what an element
//! that goes in is multiplied by for each of them, one element after the other.

use std::ops::Range;

use super::Convolution;
use crate::cpu::projection::pack::{Stretch, pack};
use crate::cpu::simd::Simd;

/// Output channels of a panel: a multiple of the lanes of all vectors.
pub(super) const PANEL: usize = 16;

/// Floats of the panels of so many output channels and elements.
pub(super) fn panels(outputs: usize, elements: usize) -> usize {
    outputs.next_multiple_of(PANEL) * elements
}

/// Floats of so many values of a vector's output channels, as [`lay_floats`] writes them: whole blocks of pairs.
pub(super) fn widened(values: usize) -> usize {
    values.next_multiple_of(2 * PANEL) * PANEL
}

impl Convolution<'_> {
    /// The weights of the channels `channels` for the first outputs of `outputs`, as many as a vector has lanes. Where
    /// `pairs` is set those of bf16 stay pairs.
    fn stretch<S: Simd>(&self, outputs: Range<usize>, channels: &Range<usize>, pairs: bool) -> Stretch<'_> {
        let places = self.sizes.places();
        Stretch::new(
            self.weight,
            self.sizes.in_channels * places,
            (outputs.start, outputs.len().min(S::LANES)),
            (channels.start * places, channels.len() * places),
            pairs,
        )
    }
}

/// Writes a vector for each weight of each channel: those of the first outputs of `outputs`, as 32-bit floats.
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

/// Floats after panels that [`lay_panels`] writes to, as it writes whole blocks: each panel's lie where the next one begins.
pub(super) const OVERHANG: usize = 2 * PANEL * PANEL;

/// Lays out the weights of some channels for `outputs`, as floats or as pairs, and [`OVERHANG`] floats without a meaning.
#[inline(always)]
pub(super) fn lay_panels<S: Simd>(
    simd: S,
    convolution: &Convolution<'_>,
    outputs: &Range<usize>,
    channels: &Range<usize>,
    widened: &mut [f32],
    panels: &mut [f32],
) {
    let places = convolution.sizes.places();
    let elements = channels.len().div_ceil(convolution.pair());
    for output in (0..outputs.len()).step_by(S::LANES) {
        let some = outputs.start + output..outputs.end;
        let panel = &mut panels[output / PANEL * PANEL * elements * places + output % PANEL..];
        if !convolution.in_pairs || places == 1 {
            // Neighbours in memory are pairs of channels where a kernel is a single pixel.
            let stretch = convolution.stretch::<S>(some, channels, convolution.in_pairs);
            pack(simd, stretch, panel, PANEL);
            continue;
        }
        lay_floats(simd, convolution, some, channels, widened);
        assert!(
            channels.len() * places * S::LANES <= widened.len()
                && (elements * places - 1) * PANEL + S::LANES <= panel.len(),
            "weights have no room. This is a bug."
        );
        for element in 0..elements {
            let has_odd = 2 * element + 1 < channels.len();
            for place in 0..places {
                // SAFETY: as was asserted: each channel has a vector for each place, and each element one in the panel.
                unsafe {
                    let from = widened.as_ptr().add((2 * element * places + place) * S::LANES);
                    let odd = if has_odd {
                        simd.load(from.add(places * S::LANES))
                    } else {
                        simd.zero()
                    };
                    let to = panel.as_mut_ptr().add((element * places + place) * PANEL);
                    simd.store(to, simd.pair(simd.load(from), odd));
                }
            }
        }
    }
}
