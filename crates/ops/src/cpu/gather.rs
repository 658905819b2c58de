//! Gathers a band of rows and the rows around it, on the CPU.

use rayon::prelude::*;

use super::norm::ChannelNorm;
use super::simd::InstructionSet;

/// Rows of a batch of images: the values of `[batch, channels, height, width]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) height: usize,
}

impl<'a> Rows<'a> {
    /// `count` rows of one channel, counted over the whole batch.
    fn of(self, channel: usize, first: usize, count: usize, width: usize) -> &'a [f32] {
        let start = (channel * self.height + first) * width;
        &self.values[start..start + count * width]
    }
}

/// A band with the rows above and below it; none at the edges of the image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gathered<'a> {
    pub(crate) above: Option<Rows<'a>>,
    pub(crate) rows: Rows<'a>,
    pub(crate) below: Option<Rows<'a>>,
    pub(crate) width: usize,
    /// Number of rows above and below that are gathered.
    pub(crate) margins: (usize, usize),
}

impl Gathered<'_> {
    /// Rows of a channel, neighbours included.
    pub(crate) fn height(&self) -> usize {
        self.margins.0 + self.rows.height + self.margins.1
    }

    /// Writes for each channel the rows above, the band and the rows below, after `norms` if given, and zeros
    /// for padding rows.
    pub(crate) fn write(&self, set: InstructionSet, norms: Option<&[ChannelNorm]>, to: &mut [f32]) {
        let Self {
            above,
            rows,
            below,
            width,
            margins: (above_margin, below_margin),
            ..
        } = *self;
        let size = self.height() * width;
        to.par_chunks_mut(size.max(1))
            .enumerate()
            .for_each(|(channel, to)| {
                let write = |from: Option<&[f32]>, to: &mut [f32]| match (from, norms) {
                    (None, _) => to.fill(0.0),
                    (Some(from), None) => to.copy_from_slice(from),
                    (Some(from), Some(norms)) => norms[channel].apply(set, from, to),
                };
                let (top, to) = to.split_at_mut(above_margin * width);
                let (middle, bottom) = to.split_at_mut(rows.height * width);
                let last =
                    above.map(|rows| rows.of(channel, rows.height - above_margin, above_margin, width));
                write(last, top);
                write(Some(rows.of(channel, 0, rows.height, width)), middle);
                write(below.map(|rows| rows.of(channel, 0, below_margin, width)), bottom);
            });
    }
}
