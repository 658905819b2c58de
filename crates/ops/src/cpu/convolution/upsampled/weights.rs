//! The summed weights of convolutions after upsampling.

// Several slices are indexed together.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use rayon::prelude::*;

use super::super::panel::{PANEL, widened};
use super::super::partition::in_parts;
use super::super::unit::turn;
use super::{PART, TERMS, part_in_tiles};
use crate::cpu::buffers::{aligned_length, split_aligned};
use crate::cpu::kernel::Values;
use crate::cpu::projection::pack::{Stretch, pack};
use crate::cpu::scratch::with_scratch;
use crate::cpu::simd::tiles::SIDE;
use crate::cpu::simd::{InstructionSet, Kernel, Simd};
use crate::cpu::threads::on_a_thread;

/// The weights of a 3x3 convolution, summed for each product.
///
/// Stored by parts of the input channels (or pairs of them); within a part by products, each as panels.
#[derive(Debug)]
pub(crate) struct SummedWeights {
    values: Vec<f32>,
    pub(super) out_channels: usize,
    pub(super) in_channels: usize,
    pub(super) in_pairs: bool,
    /// Whether the panels are tiles of pairs.
    pub(super) in_tiles: bool,
}

impl SummedWeights {
    pub(crate) fn new(weight: Values<'_>, out_channels: usize, in_channels: usize) -> Self {
        Self::new_with(InstructionSet::best(), weight, out_channels, in_channels)
    }

    pub(in crate::cpu::convolution) fn new_with(
        set: InstructionSet,
        weight: Values<'_>,
        out_channels: usize,
        in_channels: usize,
    ) -> Self {
        let mut sums = Self {
            values: Vec::new(),
            out_channels,
            in_channels,
            in_pairs: set.has_bf16_dot() && matches!(weight, Values::Bf16(_)),
            in_tiles: set.has_tiles() && matches!(weight, Values::Bf16(_)),
        };
        let of_element = TERMS * out_channels.next_multiple_of(PANEL);
        let mut values = vec![0.0; of_element * sums.stored(sums.elements())];
        let parts = values.par_chunks_mut(of_element * sums.part()).enumerate();
        on_a_thread(|| {
            parts.for_each(|(part, panels)| {
                let channels = sums.channels(part);
                let lengths = [widened(TERMS * channels.len()), TERMS * PANEL * sums.part()];
                with_scratch(aligned_length(lengths), |scratch| {
                    let [widened, before_tiles] = split_aligned(scratch, lengths);
                    set.run(Summing {
                        weight,
                        weights: &sums,
                        channels,
                        widened,
                        before_tiles,
                        panels,
                    });
                });
            });
        });
        sums.values = values;
        sums
    }

    pub(super) fn pair(&self) -> usize {
        if self.in_pairs { 2 } else { 1 }
    }

    /// Input channels, or pairs of them.
    pub(super) fn elements(&self) -> usize {
        self.in_channels.div_ceil(self.pair())
    }

    /// Elements of a part.
    pub(super) fn part(&self) -> usize {
        if self.in_tiles {
            part_in_tiles(self.elements())
        } else {
            in_parts(self.elements(), PART)
        }
    }

    /// Elements that are stored for these: whole tiles.
    fn stored(&self, elements: usize) -> usize {
        elements.next_multiple_of(if self.in_tiles { SIDE } else { 1 })
    }

    /// The channels of a part.
    pub(super) fn channels(&self, part: usize) -> Range<usize> {
        let channels = self.part() * self.pair();
        part * channels..((part + 1) * channels).min(self.in_channels)
    }

    /// The panels of a product, of the part with `channels`, from an output channel on.
    pub(super) fn panels(&self, channels: &Range<usize>, term: usize, output: usize) -> &[f32] {
        let (outputs, elements) = (
            self.out_channels.next_multiple_of(PANEL),
            self.stored(channels.len().div_ceil(self.pair())),
        );
        assert!(
            output.is_multiple_of(PANEL),
            "a task begins inside of a panel. This is a bug."
        );
        let before = TERMS * outputs * (channels.start / self.pair());
        &self.values[before + term * outputs * elements + output * elements..]
    }
}

/// Sums the weights of a part.
struct Summing<'a> {
    weight: Values<'a>,
    weights: &'a SummedWeights,
    channels: Range<usize>,
    widened: &'a mut [f32],
    /// The vectors of each product for some output channels, on the way to tiles.
    before_tiles: &'a mut [f32],
    panels: &'a mut [f32],
}

impl Kernel for Summing<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            weight,
            weights,
            channels,
            widened,
            before_tiles,
            panels,
        } = self;
        let elements = channels.len().div_ceil(weights.pair());
        let stored = weights.stored(elements);
        let term_step = panels.len() / TERMS;
        for output in (0..weights.out_channels).step_by(S::LANES) {
            let stretch = Stretch::new(
                weight,
                weights.in_channels * TERMS,
                (output, S::LANES.min(weights.out_channels - output)),
                (channels.start * TERMS, channels.len() * TERMS),
                false,
            );
            pack(simd, stretch, widened, S::LANES);
            let panel = output / PANEL * PANEL * stored + output % PANEL;
            assert!(
                channels.len() * TERMS * S::LANES <= widened.len()
                    && TERMS * stored * S::LANES <= before_tiles.len()
                    && panel + (stored - 1) * PANEL + S::LANES <= term_step,
                "the buffer of weights is too small. This is a bug."
            );
            let (to, to_term_step) = if weights.in_tiles {
                before_tiles.fill(0.0);
                (before_tiles.as_mut_ptr(), stored * PANEL)
            } else {
                (panels[panel..].as_mut_ptr(), term_step)
            };
            for element in 0..elements {
                let first = element * weights.pair();
                // SAFETY: as was asserted: each channel has a vector for each place, and each element one for
                // each term.
                unsafe {
                    let from = widened.as_ptr().add(first * TERMS * S::LANES);
                    let to = to.add(element * PANEL);
                    let sums = summed_kernel(simd, from);
                    if weights.in_pairs {
                        let odd = if first + 1 < channels.len() {
                            summed_kernel(simd, from.add(TERMS * S::LANES))
                        } else {
                            [simd.zero(); TERMS]
                        };
                        for term in 0..TERMS {
                            simd.store(to.add(term * to_term_step), simd.pair(sums[term], odd[term]));
                        }
                    } else {
                        for term in 0..TERMS {
                            simd.store(to.add(term * to_term_step), sums[term]);
                        }
                    }
                }
            }
            if weights.in_tiles {
                for term in 0..TERMS {
                    let from = &before_tiles[term * stored * PANEL..][..stored * PANEL];
                    turn(
                        simd,
                        from,
                        PANEL,
                        &mut panels[term * term_step + panel..][..stored * PANEL],
                    );
                }
            }
        }
    }
}

/// The factor of each product, from a kernel of vectors.
///
/// # Safety
/// They can be read.
#[inline(always)]
unsafe fn summed_kernel<S: Simd>(simd: S, kernel: *const f32) -> [S::Vector; TERMS] {
    let mut columns = [[simd.zero(); 3]; 3];
    for column in 0..3 {
        // SAFETY: guaranteed by the caller.
        let rows = unsafe {
            [
                simd.load(kernel.add(column * S::LANES)),
                simd.load(kernel.add((3 + column) * S::LANES)),
                simd.load(kernel.add((6 + column) * S::LANES)),
            ]
        };
        columns[column] = summed(simd, rows);
    }
    let [left, middle, right] = columns;
    let mut sums = [simd.zero(); TERMS];
    for row in 0..3 {
        let [first, all, third] = summed(simd, [left[row], middle[row], right[row]]);
        (sums[3 * row], sums[3 * row + 1], sums[3 * row + 2]) = (first, all, third);
    }
    sums
}

/// The first, the sum of all, and the third.
#[inline(always)]
fn summed<S: Simd>(simd: S, [a, b, c]: [S::Vector; 3]) -> [S::Vector; 3] {
    [a, simd.add(a, simd.add(b, c)), c]
}
