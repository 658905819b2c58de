//! Convolutions on the CPU.
//!
//! A task computes a block of pixels of some output channels ([`partition`]), in parts of the input channels.
//! It copies the pixels under the kernel into a buffer that fits the cache, packs their weights beside it
//! ([`panel`]), multiplies ([`tile`]), and accumulates. The copies are the pixels and weights themselves
//! ([`direct`]), or transforms of them that need fewer products ([`winograd`], [`upsampled`]).

mod direct;
mod panel;
mod partition;
mod rows;
mod tile;
mod unit;
pub(crate) mod upsampled;
mod winograd;

use std::marker::PhantomData;

use self::partition::{Block, Limits, Partition, part, part_in_tiles};
use self::winograd::form::{F23, F43, Form};
use super::kernel::Values;
use super::scratch::with_scratch;
use super::simd::InstructionSet;
use super::threads::for_each_task;

/// The sizes of a convolution of one image, or of a band of rows.
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
    /// Zero rows above the image. Pixels beyond its right and bottom edges are zero too.
    pub(crate) rows_above: usize,
    /// Zero columns to its left.
    pub(crate) columns_left: usize,
}

impl Sizes {
    /// Taps of the kernel: its height times its width.
    fn taps(&self) -> usize {
        self.kernel_height * self.kernel_width
    }

    /// Pixels of an input channel.
    fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Pixels of an output channel.
    fn out_pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    /// The same convolution with the image as a single row, if the kernel is a single tap.
    fn as_one_row(self) -> Self {
        let padding = self.rows_above + self.columns_left;
        if self.taps() == 1 && self.stride == 1 && padding == 0 && self.pixels() == self.out_pixels() {
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

/// Addends of a convolution's sums.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Addends<'a> {
    /// A value for each output channel, or for each output channel of each image.
    pub(crate) bias: Option<&'a [f32]>,
    /// A value for each pixel.
    pub(crate) onto: Option<&'a [f32]>,
}

impl Addends<'_> {
    /// Whether the addends fit a convolution of `batch` images.
    fn fit(self, batch: usize, channels: usize, pixels: usize) -> bool {
        self.bias
            .is_none_or(|bias| [channels, batch * channels].contains(&bias.len()))
            && self
                .onto
                .is_none_or(|onto| onto.len() == batch * channels * pixels)
    }

    /// The bias of a channel of an image.
    fn bias(self, image: usize, channel: usize, channels: usize) -> f32 {
        self.bias.map_or(0.0, |bias| {
            if bias.len() == channels {
                bias[channel]
            } else {
                bias[image * channels + channel]
            }
        })
    }
}

/// The convolution of the images in `x`, plus `addends`.
///
/// A pixel depends on its window alone, not on what else is computed with it.
pub(crate) fn conv2d(x: &[f32], weight: Values<'_>, addends: Addends<'_>, sizes: Sizes) -> Vec<f32> {
    conv2d_with(InstructionSet::best(), x, weight, addends, sizes)
}

fn conv2d_with(
    set: InstructionSet,
    x: &[f32],
    weight: Values<'_>,
    addends: Addends<'_>,
    sizes: Sizes,
) -> Vec<f32> {
    let batch = x.len() / (sizes.in_channels * sizes.pixels()).max(1);
    let length = batch * sizes.out_channels * sizes.out_pixels();
    let mut result = Vec::with_capacity(length);
    assert!(
        x.len() == batch * sizes.in_channels * sizes.pixels()
            && weight.len() == sizes.out_channels * sizes.in_channels * sizes.taps()
            && addends.fit(batch, sizes.out_channels, sizes.out_pixels()),
        "a convolution does not fit its values. This is a bug."
    );
    let sizes = sizes.as_one_row();
    let in_pairs = set.has_bf16_dot() && matches!(weight, Values::Bf16(_));
    let in_tiles = in_pairs && set.has_tiles();
    let convolution = Convolution {
        x,
        weight,
        addends,
        sizes,
        in_pairs,
        in_tiles,
        result: Output(result.as_mut_ptr()),
    };
    let algorithm = Algorithm::new(&sizes, in_pairs, in_tiles);
    let partition = Partition::new(batch, &sizes, &algorithm.limits());
    for_each_task(partition.tasks(batch, &sizes), |index| {
        let block = &partition.block(index, batch, &sizes);
        match algorithm {
            Algorithm::Direct | Algorithm::Tiles => convolution.run_direct(set, block),
            Algorithm::WinogradF23 => convolution.run_winograd::<F23>(set, block),
            Algorithm::WinogradF43 => convolution.run_winograd::<F43>(set, block),
        }
    });
    // SAFETY: every pixel of every channel belongs to a block, which has been made.
    unsafe { result.set_len(length) };
    result
}

/// The algorithm of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    /// The products that define it.
    Direct,
    /// The same on a matrix unit, which is faster than the transforms of the others.
    Tiles,
    /// Winograd F(2,3): two neighbouring pixels at a time.
    WinogradF23,
    /// Winograd F(4,3): four neighbouring pixels at a time.
    WinogradF43,
}

impl Algorithm {
    /// The algorithm for these sizes, with pairs of bf16, in tiles of these or not, or with floats.
    fn new(sizes: &Sizes, in_pairs: bool, in_tiles: bool) -> Self {
        if in_tiles {
            Self::Tiles
        } else if in_pairs && winograd::suits::<F23>(sizes) {
            Self::WinogradF23
        } else if !in_pairs && winograd::suits::<F43>(sizes) {
            Self::WinogradF43
        } else {
            Self::Direct
        }
    }

    fn limits(self) -> Limits {
        match self {
            Self::Direct => direct::LIMITS,
            Self::Tiles => direct::LIMITS_OF_TILES,
            Self::WinogradF23 => winograd::limits::<F23>(),
            Self::WinogradF43 => winograd::limits::<F43>(),
        }
    }
}

/// The output images.
#[derive(Debug, Clone, Copy)]
struct Output(*mut f32);

// SAFETY: tasks write blocks that share no pixel of a channel.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

/// A convolution, shared by all tasks.
#[derive(Debug)]
struct Convolution<'a> {
    x: &'a [f32],
    weight: Values<'a>,
    addends: Addends<'a>,
    sizes: Sizes,
    /// Whether pairs of input channels are multiplied, as pairs of bf16.
    in_pairs: bool,
    /// Whether these pairs are multiplied in tiles.
    in_tiles: bool,
    result: Output,
}

impl Convolution<'_> {
    /// Computes a block directly.
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

    /// Computes a block with [`winograd`].
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

    /// Channels in an element.
    fn pair(&self) -> usize {
        if self.in_pairs { 2 } else { 1 }
    }

    /// Elements of a part (channels, or pairs of them), accumulated at a time.
    fn part(&self) -> usize {
        let elements = self.sizes.in_channels.div_ceil(self.pair());
        if self.in_tiles {
            part_in_tiles(elements, self.sizes.taps())
        } else {
            part(elements, self.sizes.taps())
        }
    }
}

/// An upper bound for the floats of a task's buffers.
pub(crate) fn task(in_channels: usize, out_channels: usize, taps: usize) -> usize {
    let in_tiles = match InstructionSet::best().has_tiles() {
        true => direct::most_in_tiles(in_channels, out_channels, taps),
        false => 0,
    };
    [
        in_tiles,
        direct::most(in_channels, out_channels, taps),
        winograd::most::<F23>(in_channels, out_channels, taps),
        winograd::most::<F43>(in_channels, out_channels, taps),
    ]
    .into_iter()
    .fold(0, usize::max)
}

#[cfg(test)]
mod tests;
