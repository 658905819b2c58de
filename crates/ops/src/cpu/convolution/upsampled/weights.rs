//! The summed weights of convolutions after upsampling.

// Several slices are indexed together.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

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
use crate::cpu::target::Target;
use crate::cpu::threads::for_each_task;

/// The weight of a 3x3 convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weight<'a> {
    pub(crate) values: Values<'a>,
    pub(crate) out_channels: usize,
    pub(crate) in_channels: usize,
}

/// How the sums of a weight are laid out for an instruction set: by parts of the input channels (or pairs of them);
/// within a part by products, each as panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) out_channels: usize,
    pub(super) in_channels: usize,
    pub(super) in_pairs: bool,
    /// Whether the panels are tiles of pairs.
    pub(super) in_tiles: bool,
}

impl Form {
    pub(super) fn new(set: InstructionSet, weight: Weight<'_>) -> Self {
        let narrow = matches!(weight.values, Values::Bf16(_));
        Self {
            out_channels: weight.out_channels,
            in_channels: weight.in_channels,
            in_pairs: set.has_bf16_dot() && narrow,
            in_tiles: set.has_tiles() && narrow,
        }
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

    pub(super) fn parts(&self) -> usize {
        self.elements().div_ceil(self.part())
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

    /// Floats of the sums of one product, of a part with `channels`, for some output channels.
    pub(super) fn of_term(&self, channels: &Range<usize>, outputs: usize) -> usize {
        outputs.next_multiple_of(PANEL) * self.stored(channels.len().div_ceil(self.pair()))
    }

    /// Floats of the buffers that [`Summing`] needs.
    pub(super) fn buffers(&self) -> [usize; 2] {
        let part = self.part();
        [
            widened(TERMS * self.pair() * part),
            if self.in_tiles { TERMS * PANEL * part } else { 0 },
        ]
    }
}

/// The weights of a convolution, summed for each product.
#[derive(Debug)]
pub(crate) struct SummedWeights {
    values: Vec<f32>,
    form: Form,
}

impl SummedWeights {
    pub(super) fn new(set: InstructionSet, weight: Weight<'_>) -> Self {
        let form = Form::new(set, weight);
        let of_element = TERMS * form.out_channels.next_multiple_of(PANEL);
        let length = of_element * form.stored(form.elements());
        let mut values = Vec::with_capacity(length);
        let target = Target::uninitialized(&mut values, length, 0);
        let buffers = form.buffers();
        for_each_task(form.parts(), |part| {
            with_scratch(aligned_length(buffers), |scratch| {
                set.run(Summing {
                    weight: weight.values,
                    form,
                    channels: form.channels(part),
                    outputs: 0..form.out_channels,
                    buffers: split_aligned(scratch, buffers),
                    target: target.at(part * of_element * form.part()),
                });
            });
        });
        // SAFETY: each value belongs to a part, which has been summed.
        unsafe { values.set_len(length) };
        Self { values, form }
    }

    /// The panels of a product, of the part with `channels`, from an output channel on.
    pub(super) fn panels(&self, channels: &Range<usize>, term: usize, output: usize) -> &[f32] {
        let form = &self.form;
        assert!(
            output.is_multiple_of(PANEL),
            "a task begins inside of a panel. This is a bug."
        );
        let before = TERMS * form.out_channels.next_multiple_of(PANEL) * (channels.start / form.pair());
        let of_term = form.of_term(channels, form.out_channels);
        &self.values[before + term * of_term + form.of_term(channels, output)..]
    }
}

/// Sums the weights of a part for some output channels.
pub(super) struct Summing<'a> {
    pub(super) weight: Values<'a>,
    pub(super) form: Form,
    pub(super) channels: Range<usize>,
    /// From a multiple of [`PANEL`] on.
    pub(super) outputs: Range<usize>,
    /// As long as [`Form::buffers`]: the weights of some output channels, and the vectors of each product for these, on
    /// the way to tiles.
    pub(super) buffers: [&'a mut [f32]; 2],
    /// Space for [`Form::of_term`] floats of each product. All are written.
    pub(super) target: Target,
}

impl Kernel for Summing<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Self {
            weight,
            form,
            channels,
            outputs,
            buffers: [widened, before_tiles],
            target,
        } = self;
        let elements = channels.len().div_ceil(form.pair());
        let stored = form.stored(elements);
        let term_step = form.of_term(&channels, outputs.len());
        let panels = target.block(1, TERMS * term_step);
        for output in (0..outputs.len().next_multiple_of(PANEL)).step_by(S::LANES) {
            // None behind the last one: these sums are zeros.
            let count = S::LANES.min(outputs.len().saturating_sub(output));
            let stretch = Stretch::new(
                weight,
                form.in_channels * TERMS,
                (outputs.start + output, count),
                (channels.start * TERMS, channels.len() * TERMS),
                false,
            );
            pack(simd, stretch, widened, S::LANES);
            let panel = output / PANEL * PANEL * stored + output % PANEL;
            assert!(
                channels.len() * TERMS * S::LANES <= widened.len()
                    && (!form.in_tiles || TERMS * stored * S::LANES <= before_tiles.len())
                    && panel + (stored - 1) * PANEL + S::LANES <= term_step,
                "the buffer of weights is too small. This is a bug."
            );
            let (to, to_term_step) = if form.in_tiles {
                before_tiles.fill(0.0);
                (before_tiles.as_mut_ptr(), stored * PANEL)
            } else {
                (panels.wrapping_add(panel), term_step)
            };
            for element in 0..elements {
                let first = element * form.pair();
                // SAFETY: as was asserted: each channel has a vector for each place, and each element one for
                // each term.
                unsafe {
                    let from = widened.as_ptr().add(first * TERMS * S::LANES);
                    let to = to.add(element * PANEL);
                    let sums = summed_kernel(simd, from);
                    if form.in_pairs {
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
            if form.in_tiles {
                for term in 0..TERMS {
                    let from = &before_tiles[term * stored * PANEL..][..stored * PANEL];
                    // SAFETY: a panel of a product has so many floats.
                    unsafe {
                        turn(
                            simd,
                            from,
                            PANEL,
                            panels.add(term * term_step + panel),
                            stored / SIDE,
                        )
                    };
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
