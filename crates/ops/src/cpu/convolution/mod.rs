//! Convolutions on the processor.
//!
//! A task makes a block of pixels of some output channels ([`cut`]). It goes through the channels that go in by parts: copies
//! what the kernel sees of them into a buffer that fits into the cache, lays out their weights beside it ([`panel`]), multiplies
//! ([`tile`]), and adds up. What is copied and laid out are the pixels and the weights themselves ([`direct`]), or combinations of
//! them of which fewer products are needed ([`winograd`], [`upsampled`]).

mod cut;
mod direct;
mod panel;
mod rows;
mod tile;
pub(crate) mod upsampled;
mod winograd;

use std::marker::PhantomData;

use self::cut::{Block, Cut, Limits, part};
use self::winograd::form::{Form, Four, Two};
use super::kernel::Values;
use super::scratch::with_scratch;
use super::simd::InstructionSet;
use super::threads::for_each_task;

/// The sizes of a convolution of one picture, or of a band of rows of one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) in_channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) out_channels: usize,
    pub(crate) out_height: usize,
    pub(crate) out_width: usize,
    pub(crate) kernel_height: usize,
    pub(crate) kernel_width: usize,
    pub(crate) stride: usize,
    /// Rows of zeros above the picture. What lies outside of it to the right and below is zero too.
    pub(crate) rows_above: usize,
    /// Columns of zeros to its left.
    pub(crate) columns_left: usize,
}

impl Sizes {
    /// Places in the kernel.
    fn places(&self) -> usize {
        self.kernel_height * self.kernel_width
    }

    /// Pixels of a channel that goes in.
    fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Pixels of a channel that comes out.
    fn out_pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    /// The same convolution of a picture that is a single row, where a window is a single pixel.
    fn as_one_row(self) -> Self {
        let padding = self.rows_above + self.columns_left;
        if self.places() == 1 && self.stride == 1 && padding == 0 && self.pixels() == self.out_pixels() {
            return Self {
                height: 1,
                width: self.pixels(),
                out_height: 1,
                out_width: self.pixels(),
                ..self
            };
        }
        self
    }
}

/// What is added to the sums of a convolution.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Terms<'a> {
    /// A value for each output channel, or for each of each picture.
    pub(crate) bias: Option<&'a [f32]>,
    /// A value for each pixel.
    pub(crate) onto: Option<&'a [f32]>,
}

impl Terms<'_> {
    /// Whether there are as many as a convolution of so many pictures needs.
    fn fit(self, batch: usize, channels: usize, pixels: usize) -> bool {
        self.bias
            .is_none_or(|bias| [channels, batch * channels].contains(&bias.len()))
            && self
                .onto
                .is_none_or(|onto| onto.len() == batch * channels * pixels)
    }

    /// What is added to all pixels of a channel of a picture, of so many channels.
    fn bias(self, picture: usize, channel: usize, channels: usize) -> f32 {
        self.bias.map_or(0.0, |bias| {
            if bias.len() == channels {
                bias[channel]
            } else {
                bias[picture * channels + channel]
            }
        })
    }
}

/// The convolution of the pictures in `x`, and `terms`.
///
/// The value of a pixel depends on its window alone, not on what else is computed with it.
pub(crate) fn conv2d(x: &[f32], weight: Values<'_>, terms: Terms<'_>, sizes: Sizes) -> Vec<f32> {
    conv2d_with(InstructionSet::best(), x, weight, terms, sizes)
}

fn conv2d_with(
    set: InstructionSet,
    x: &[f32],
    weight: Values<'_>,
    terms: Terms<'_>,
    sizes: Sizes,
) -> Vec<f32> {
    let batch = x.len() / (sizes.in_channels * sizes.pixels()).max(1);
    let length = batch * sizes.out_channels * sizes.out_pixels();
    let mut result = Vec::with_capacity(length);
    assert!(
        x.len() == batch * sizes.in_channels * sizes.pixels()
            && weight.len() == sizes.out_channels * sizes.in_channels * sizes.places()
            && terms.fit(batch, sizes.out_channels, sizes.out_pixels()),
        "a convolution does not fit its values. This is a bug."
    );
    let sizes = sizes.as_one_row();
    let in_pairs = set.has_bf16_dot() && matches!(weight, Values::Bf16(_));
    let convolution = Convolution {
        x,
        weight,
        terms,
        sizes,
        in_pairs,
        result: Output(result.as_mut_ptr()),
    };
    let way = Way::new(&sizes, in_pairs);
    let cut = Cut::new(batch, &sizes, &way.limits());
    for_each_task(cut.tasks(batch, &sizes), |index| {
        let block = &cut.block(index, batch, &sizes);
        match way {
            Way::Direct => convolution.run_direct(set, block),
            Way::Two => convolution.run_winograd::<Two>(set, block),
            Way::Four => convolution.run_winograd::<Four>(set, block),
        }
    });
    // SAFETY: every pixel of every channel belongs to a block, which has been made.
    unsafe { result.set_len(length) };
    result
}

/// How a convolution is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Of the products that define it.
    Direct,
    /// Two neighbours at a time.
    Two,
    /// Four neighbours at a time.
    Four,
}

impl Way {
    /// The way for these sizes, and for pairs of bf16 or floats.
    fn new(sizes: &Sizes, in_pairs: bool) -> Self {
        if in_pairs && winograd::suits::<Two>(sizes) {
            Self::Two
        } else if !in_pairs && winograd::suits::<Four>(sizes) {
            Self::Four
        } else {
            Self::Direct
        }
    }

    fn limits(self) -> Limits {
        match self {
            Self::Direct => direct::LIMITS,
            Self::Two => winograd::limits::<Two>(),
            Self::Four => winograd::limits::<Four>(),
        }
    }
}

/// The pictures that come out.
#[derive(Debug, Clone, Copy)]
struct Output(*mut f32);

// SAFETY: tasks write blocks that share no pixel of a channel.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

/// A convolution that is shared among tasks.
#[derive(Debug)]
struct Convolution<'a> {
    x: &'a [f32],
    weight: Values<'a>,
    terms: Terms<'a>,
    sizes: Sizes,
    /// Whether two channels that go in are multiplied at a time, as pairs of bf16.
    in_pairs: bool,
    result: Output,
}

impl Convolution<'_> {
    /// Makes a block.
    fn run_direct(&self, set: InstructionSet, block: &Block) {
        let layout = &direct::Layout::new(&self.sizes, block, set.lanes());
        let buffers = direct::Buffers::new(self, block, layout, set.lanes());
        with_scratch(buffers.total(), |scratch| {
            set.run(direct::Task {
                convolution: self,
                block,
                layout,
                buffers,
                scratch,
            });
        });
    }

    /// Makes a block in the way of [`winograd`].
    fn run_winograd<F: Form>(&self, set: InstructionSet, block: &Block) {
        let layout = &winograd::Layout::new::<F>(&self.sizes, block, set.lanes());
        let buffers = winograd::Buffers::new::<F>(self, block, layout, set.lanes());
        with_scratch(buffers.total(), |scratch| {
            set.run(winograd::Task::<F> {
                convolution: self,
                block,
                layout,
                buffers,
                scratch,
                form: PhantomData,
            });
        });
    }

    /// Channels that share an element.
    fn pair(&self) -> usize {
        if self.in_pairs { 2 } else { 1 }
    }

    /// Elements whose products are summed at a time: channels, or pairs of them.
    fn part(&self) -> usize {
        part(self.sizes.in_channels.div_ceil(self.pair()), self.sizes.places())
    }
}

/// Floats of a task's buffers, at most.
pub(crate) fn task(in_channels: usize, out_channels: usize, places: usize) -> usize {
    [
        direct::most(in_channels, out_channels, places),
        winograd::most::<Two>(in_channels, out_channels, places),
        winograd::most::<Four>(in_channels, out_channels, places),
    ]
    .into_iter()
    .fold(0, usize::max)
}

#[cfg(test)]
mod tests;
