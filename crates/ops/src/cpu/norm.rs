//! Normalisation layers and modulation on the CPU.
//!
//! A row is read from memory once: it stays in cache between its statistics and their use. So does a group of
//! channels, unless it is too large.

#[cfg(test)]
mod tests;

use std::mem::MaybeUninit;

use super::lanewise::{Lanewise, overwrite, write};
use super::moments::{Moments, add_channels, mean_square};
use super::sections::Section;
use super::simd::wide::Arithmetic;
use super::simd::{InstructionSet, Simd, functions};

/// Larger groups do not stay in the L2 cache. 512 KB.
const LARGE_GROUP: usize = 1 << 17;

/// `(x - mean) * deviation * weight + bias`
#[derive(Clone, Copy)]
struct Weighted {
    mean: f32,
    deviation: f32,
}

impl Lanewise<3> for Weighted {
    #[inline(always)]
    fn of<A: Arithmetic>(self, simd: A, [x, weight, bias]: [A::Vector; 3]) -> A::Vector {
        let normed = simd.mul(simd.sub(x, simd.splat(self.mean)), simd.splat(self.deviation));
        simd.fma(normed, weight, bias)
    }
}

/// `(x - mean) * deviation * (1 + scale) + shift`
#[derive(Clone, Copy)]
struct Modulated(Weighted);

impl Lanewise<3> for Modulated {
    #[inline(always)]
    fn of<A: Arithmetic>(self, simd: A, [x, scale, shift]: [A::Vector; 3]) -> A::Vector {
        self.0.of(simd, [x, simd.add(simd.splat(1.0), scale), shift])
    }
}

/// `x * scale * weight`
#[derive(Clone, Copy)]
struct Scaled {
    scale: f32,
}

impl Lanewise<2> for Scaled {
    #[inline(always)]
    fn of<A: Arithmetic>(self, simd: A, [x, weight]: [A::Vector; 2]) -> A::Vector {
        simd.mul(simd.mul(x, simd.splat(self.scale)), weight)
    }
}

/// `residual + gate * x`
#[derive(Clone, Copy)]
struct Gated;

impl Lanewise<3> for Gated {
    #[inline(always)]
    fn of<A: Arithmetic>(self, simd: A, [x, gate, residual]: [A::Vector; 3]) -> A::Vector {
        simd.fma(gate, x, residual)
    }
}

/// The moments of a row, for [`Weighted`].
#[inline(always)]
fn weighted<S: Simd>(simd: S, row: &[f32], epsilon: f64) -> Weighted {
    let moments = Moments::NONE.and_rows(simd, row, row.len());
    let (mean, deviation) = moments.mean_and_scale(epsilon);
    Weighted { mean, deviation }
}

/// Layer norm: each row minus its mean, over its standard deviation, then `value * weight + bias`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerNorm<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) epsilon: f64,
}

impl Section for LayerNorm<'_> {
    #[inline(always)]
    fn write<'a, S: Simd>(
        self,
        simd: S,
        _: usize,
        from: &[f32],
        to: &'a mut [MaybeUninit<f32>],
    ) -> &'a mut [f32] {
        let weighted = weighted(simd, from, self.epsilon);
        write(simd, weighted, [from, self.weight, self.bias], to)
    }
}

/// As [`LayerNorm`] without weights, then `value * (1 + scale) + shift`, one shift and scale for each
/// `tokens` rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ModulatedLayerNorm<'a> {
    pub(crate) shift: &'a [f32],
    pub(crate) scale: &'a [f32],
    pub(crate) tokens: usize,
    pub(crate) epsilon: f64,
}

impl Section for ModulatedLayerNorm<'_> {
    #[inline(always)]
    fn write<'a, S: Simd>(
        self,
        simd: S,
        index: usize,
        from: &[f32],
        to: &'a mut [MaybeUninit<f32>],
    ) -> &'a mut [f32] {
        let modulated = Modulated(weighted(simd, from, self.epsilon));
        let (place, width) = (index / self.tokens, from.len());
        let (scale, shift) = (row(self.scale, place, width), row(self.shift, place, width));
        write(simd, modulated, [from, scale, shift], to)
    }
}

/// RMS norm: each row over the root of its mean square, times `weight`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RmsNorm<'a> {
    pub(crate) weight: &'a [f32],
    pub(crate) epsilon: f64,
}

impl Section for RmsNorm<'_> {
    #[inline(always)]
    fn write<'a, S: Simd>(
        self,
        simd: S,
        _: usize,
        from: &[f32],
        to: &'a mut [MaybeUninit<f32>],
    ) -> &'a mut [f32] {
        let scale = (1.0 / (mean_square(simd, from) + self.epsilon).sqrt()) as f32;
        write(simd, Scaled { scale }, [from, self.weight], to)
    }
}

/// `residual + gate * x`, one gate for each `tokens` rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GatedResidual<'a> {
    pub(crate) residual: &'a [f32],
    pub(crate) gate: &'a [f32],
    pub(crate) tokens: usize,
}

impl Section for GatedResidual<'_> {
    #[inline(always)]
    fn write<'a, S: Simd>(
        self,
        simd: S,
        index: usize,
        from: &[f32],
        to: &'a mut [MaybeUninit<f32>],
    ) -> &'a mut [f32] {
        let width = from.len();
        let gate = row(self.gate, index / self.tokens, width);
        write(simd, Gated, [from, gate, row(self.residual, index, width)], to)
    }
}

/// The row at `index`, of `width` values.
#[inline(always)]
fn row(values: &[f32], index: usize, width: usize) -> &[f32] {
    &values[index * width..(index + 1) * width]
}

/// The norm of a channel: `(value - mean) * scale + shift`, then silu if set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChannelNorm {
    mean: f32,
    scale: f32,
    shift: f32,
    then_silu: bool,
}

/// A [`ChannelNorm`] with silu if `SILU` is set.
#[derive(Clone, Copy)]
struct Channel<const SILU: bool>(ChannelNorm);

impl<const SILU: bool> Lanewise<1> for Channel<SILU> {
    #[inline(always)]
    fn of<A: Arithmetic>(self, simd: A, [x]: [A::Vector; 1]) -> A::Vector {
        let centred = simd.sub(x, simd.splat(self.0.mean));
        let normed = simd.fma(centred, simd.splat(self.0.scale), simd.splat(self.0.shift));
        if SILU {
            functions::silu(simd, normed)
        } else {
            normed
        }
    }
}

impl ChannelNorm {
    /// Writes the normalised `from` to `to`, which is as long.
    pub(crate) fn apply(self, set: InstructionSet, from: &[f32], to: &mut [f32]) {
        if self.then_silu {
            overwrite(set, Channel::<true>(self), [from], to);
        } else {
            overwrite(set, Channel::<false>(self), [from], to);
        }
    }

    #[inline(always)]
    fn write<'a, S: Simd>(self, simd: S, from: &[f32], to: &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] {
        if self.then_silu {
            write(simd, Channel::<true>(self), [from], to)
        } else {
            write(simd, Channel::<false>(self), [from], to)
        }
    }
}

/// The settings of a group norm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupNormSettings<'a> {
    pub(crate) groups: usize,
    /// One for each channel.
    pub(crate) weight: &'a [f32],
    /// One for each channel.
    pub(crate) bias: &'a [f32],
    pub(crate) epsilon: f64,
    pub(crate) then_silu: bool,
}

impl GroupNormSettings<'_> {
    fn channels_a_group(&self) -> usize {
        self.weight.len() / self.groups
    }

    /// The norm of a channel, from the mean and reciprocal deviation of its group. `channel` is counted over
    /// the whole batch.
    #[inline(always)]
    fn of_channel(&self, channel: usize, (mean, deviation): (f32, f32)) -> ChannelNorm {
        let channel = channel % self.weight.len();
        ChannelNorm {
            mean,
            scale: deviation * self.weight[channel],
            shift: self.bias[channel],
            then_silu: self.then_silu,
        }
    }

    /// The norms of all channels of images with these `moments`.
    pub(crate) fn of_channels(&self, moments: &[Moments]) -> Vec<ChannelNorm> {
        let channels = self.channels_a_group();
        let groups = moments.chunks(channels).enumerate();
        let norms = groups.flat_map(|(index, group)| {
            let together = group.iter().copied().fold(Moments::NONE, Moments::and);
            let of_group = together.mean_and_scale(self.epsilon);
            let channels = index * channels..(index + 1) * channels;
            channels.map(move |channel| self.of_channel(channel, of_group))
        });
        norms.collect()
    }
}

/// The channel groups of images of `pixels` pixels.
#[derive(Clone, Copy)]
struct Groups<'a> {
    settings: GroupNormSettings<'a>,
    pixels: usize,
}

impl Section for Groups<'_> {
    #[inline(always)]
    fn write<'a, S: Simd>(
        self,
        simd: S,
        index: usize,
        from: &[f32],
        to: &'a mut [MaybeUninit<f32>],
    ) -> &'a mut [f32] {
        // The group's channels are contiguous.
        let moments = Moments::NONE.and_rows(simd, from, from.len());
        let of_group = moments.mean_and_scale(self.settings.epsilon);
        let first = index * self.settings.channels_a_group();
        let channels = from.chunks_exact(self.pixels);
        for (offset, (from, to)) in channels.zip(to.chunks_exact_mut(self.pixels)).enumerate() {
            let norm = self.settings.of_channel(first + offset, of_group);
            norm.write(simd, from, to);
        }
        // SAFETY: a group is made of whole channels, each of which has been written.
        unsafe { to.assume_init_mut() }
    }
}

/// The channels of images, each with its norm.
#[derive(Clone, Copy)]
struct Channels<'a>(&'a [ChannelNorm]);

impl Section for Channels<'_> {
    #[inline(always)]
    fn write<'a, S: Simd>(
        self,
        simd: S,
        index: usize,
        from: &[f32],
        to: &'a mut [MaybeUninit<f32>],
    ) -> &'a mut [f32] {
        self.0[index].write(simd, from, to)
    }
}

/// Group norm of images of `height` rows of `width` pixels.
pub(crate) fn group_norm(
    set: InstructionSet,
    values: &[f32],
    (height, width): (usize, usize),
    settings: GroupNormSettings<'_>,
) -> Vec<f32> {
    let pixels = (height * width).max(1);
    let group = settings.channels_a_group() * pixels;
    if group <= LARGE_GROUP {
        return Groups { settings, pixels }.of(set, values, group);
    }
    by_channels(set, values, (height, width), settings)
}

/// As [`group_norm`], with two passes over all channels.
fn by_channels(
    set: InstructionSet,
    values: &[f32],
    (height, width): (usize, usize),
    settings: GroupNormSettings<'_>,
) -> Vec<f32> {
    let pixels = (height * width).max(1);
    let mut moments = vec![Moments::NONE; values.len() / pixels];
    add_channels(set, &mut moments, values, pixels, width);
    let norms = settings.of_channels(&moments);
    Channels(&norms).of(set, values, pixels)
}
