//! Convolutions of images that arrive in bands of rows.

use candle_core::{Device, Layout, Storage, Tensor, bail};

use crate::capabilities::Backend;
use crate::convolution::{Padding, plain_padded};
use crate::cpu::convolution::upsampled::{SummedWeights, Weight, upsampled_conv2d};
use crate::cpu::convolution::{Addends, Sizes, conv2d};
use crate::cpu::gather::{Gathered, Rows};
use crate::cpu::kernel::Values;
use crate::cpu::norm::ChannelNorm;
use crate::cpu::simd::InstructionSet;
#[cfg(gpu)]
use crate::gpu::{self, has_kernels, on_gpu};
use crate::{ChannelMoments, Conv2d, GroupNorm, Result, upsample_nearest};

/// A band of rows of a batch of images, `[batch, channels, rows, width]`, and its neighbours.
#[derive(Debug, Clone, Copy)]
pub struct Band<'a> {
    /// Rows directly above the band; none at the top of the image.
    pub above: Option<&'a Tensor>,
    /// The band.
    pub rows: &'a Tensor,
    /// Rows directly below the band; none at the bottom of the image.
    pub below: Option<&'a Tensor>,
}

impl<'a> From<&'a Tensor> for Band<'a> {
    /// A whole image as one band.
    fn from(rows: &'a Tensor) -> Self {
        Self {
            above: None,
            rows,
            below: None,
        }
    }
}

/// A convolution of images that arrive in bands of rows, with an optional operation before it. On a CPU a
/// band of the result has the same bits however the image is split.
#[derive(Debug)]
pub struct BandedConv2d<'a> {
    convolution: &'a Conv2d,
    before: Before<'a>,
    bias: Option<Vec<f32>>,
    /// The current band with the rows around it. Kept for the next band, which is as large.
    gathered: Vec<f32>,
}

#[derive(Debug)]
enum Before<'a> {
    Nothing,
    /// A group norm and silu.
    Norm {
        norm: &'a GroupNorm,
        moments: &'a ChannelMoments,
        /// For the CPU kernel.
        channels: Option<Vec<ChannelNorm>>,
    },
    /// Nearest-neighbour upsampling by 2.
    Upsampling {
        /// Of the CPU kernel, after the first large band.
        summed: Option<SummedWeights>,
    },
}

impl<'a> BandedConv2d<'a> {
    /// `convolution` alone.
    ///
    /// # Errors
    /// The height of its result is not the input height divided by its stride, so bands would not give bands.
    pub fn new(convolution: &'a Conv2d) -> Result<Self> {
        let (_, _, height, width) = convolution.weight.dims4()?;
        let whole = convolution.stride + convolution.padding.sum();
        if (height, width) != (whole, whole) {
            bail!(
                "a convolution by {height} x {width} with a stride and padding of {whole} cannot go by bands"
            );
        }
        Ok(Self {
            convolution,
            before: Before::Nothing,
            bias: if on_cpu(convolution) {
                convolution.bias_values()?
            } else {
                None
            },
            gathered: Vec::new(),
        })
    }

    /// `convolution` after a group norm, with the `moments` of the whole images, and silu.
    ///
    /// # Errors
    /// As [`BandedConv2d::new`], or `moments` are those of other channels.
    pub fn after_norm_silu(
        convolution: &'a Conv2d,
        norm: &'a GroupNorm,
        moments: &'a ChannelMoments,
    ) -> Result<Self> {
        norm.check_channels(convolution.in_channels())?;
        let channels = on_cpu(convolution)
            .then(|| norm.of_channels(moments, true))
            .transpose()?;
        Ok(Self {
            before: Before::Norm {
                norm,
                moments,
                channels,
            },
            ..Self::new(convolution)?
        })
    }

    /// `convolution`, with a 3x3 kernel, after nearest-neighbour upsampling by 2.
    ///
    /// # Errors
    /// `convolution` has another kernel, a stride above 1, or a result smaller than its input.
    pub fn after_upsampling(convolution: &'a Conv2d) -> Result<Self> {
        let (_, _, height, width) = convolution.weight.dims4()?;
        let padding = Padding { before: 1, after: 1 };
        if (height, width, convolution.stride, convolution.padding) != (3, 3, 1, padding) {
            bail!("a convolution by {height} x {width} with {padding:?} after upsampling");
        }
        Ok(Self {
            before: Before::Upsampling { summed: None },
            ..Self::new(convolution)?
        })
    }

    /// The band of the result at the place of `band`, `[batch, out channels, rows', width']`: as many rows,
    /// or twice as many after upsampling, or one for each stride. `onto`, of the same shape, is added if
    /// given.
    ///
    /// # Errors
    /// The shapes do not fit each other, or the device fails.
    pub fn rows(&mut self, band: Band<'_>, onto: Option<&Tensor>) -> Result<Tensor> {
        let shape = self.check(band)?;
        if let Some(onto) = onto
            && onto.dims() != shape
        {
            bail!("a result of shape {shape:?} cannot be added to {:?}", onto.dims());
        }
        match Backend::of(band.rows.device()) {
            Backend::Cpu => self.on_cpu(band, onto, shape),
            #[cfg(gpu)]
            backend if has_kernels(backend) => self.on_gpu(backend, band, onto, shape),
            _ => {
                let rows = self.plain(band)?;
                match onto {
                    Some(onto) => onto + rows,
                    None => Ok(rows),
                }
            }
        }
    }

    /// The rows above and below a band that its result depends on.
    fn margins(&self) -> (usize, usize) {
        (self.convolution.padding.before, self.convolution.padding.after)
    }

    /// The shape of the result for `band`.
    fn check(&self, band: Band<'_>) -> Result<[usize; 4]> {
        let (batch, channels, height, width) = band.rows.dims4()?;
        let (above, below) = self.margins();
        let belongs = |rows: Option<&Tensor>, margin: usize| {
            rows.is_none_or(|rows| {
                let dims = rows.dims();
                dims.len() == 4
                    && (dims[0], dims[1], dims[3]) == (batch, channels, width)
                    && dims[2] >= margin
            })
        };
        let stride = self.convolution.stride;
        let whole_strides = band.below.is_none() || height % stride == 0;
        if channels != self.convolution.in_channels()
            || height.min(width) < stride
            || !(belongs(band.above, above) && belongs(band.below, below) && whole_strides)
        {
            bail!(
                "a convolution of {} channels with a stride of {stride} was given a band {:?} between {:?} and {:?}",
                self.convolution.in_channels(),
                band.rows.dims(),
                band.above.map(Tensor::dims),
                band.below.map(Tensor::dims),
            );
        }
        let out_channels = self.convolution.out_channels();
        Ok(match self.before {
            Before::Upsampling { .. } => [batch, out_channels, 2 * height, 2 * width],
            _ => [batch, out_channels, height / stride, width / stride],
        })
    }

    fn on_cpu(&mut self, band: Band<'_>, onto: Option<&Tensor>, shape: [usize; 4]) -> Result<Tensor> {
        let rows = band.rows.contiguous()?;
        let (storage, layout) = rows.storage_and_layout();
        let values = floats(&storage, layout)?;
        let (_, in_channels, height, width) = rows.dims4()?;
        let (above, below) = self.margins();
        let alone = (above, below) == (0, 0) && matches!(self.before, Before::Nothing);
        let x = if alone {
            values
        } else {
            let size = self.gather(band, values)?;
            &self.gathered[..size]
        };
        let bias = self.bias.as_deref();
        let onto = onto.map(Tensor::contiguous).transpose()?;
        let onto = onto.as_ref().map(Tensor::storage_and_layout);
        let onto = onto.as_ref().map(|(storage, layout)| floats(storage, layout));
        let onto = onto.transpose()?;
        let (weights, weight_layout) = self.convolution.weight.storage_and_layout();
        let weight = Values::of_storage(&weights, weight_layout)?;
        let addends = Addends { bias, onto };
        if let Before::Upsampling { summed } = &mut self.before {
            let weight = Weight {
                values: weight,
                out_channels: shape[1],
                in_channels,
            };
            let result = upsampled_conv2d(x, weight, summed, addends, [height, width]);
            return Tensor::from_vec(result, &shape, &Device::Cpu);
        }
        let kernel = self.convolution.stride + self.convolution.padding.sum();
        let sizes = Sizes {
            in_channels,
            height: above + height + below,
            width,
            out_channels: shape[1],
            out_height: shape[2],
            out_width: shape[3],
            kernel_height: kernel,
            kernel_width: kernel,
            stride: self.convolution.stride,
            rows_above: 0,
            columns_left: above,
        };
        Tensor::from_vec(conv2d(x, weight, addends, sizes), &shape, &Device::Cpu)
    }

    /// Gathers the band with values `rows` and the rows around it, after the norm if there is one. Returns
    /// the number of values.
    fn gather(&mut self, band: Band<'_>, rows: &[f32]) -> Result<usize> {
        let (batch, channels, height, width) = band.rows.dims4()?;
        let norms = match &self.before {
            Before::Norm { channels, .. } => channels.as_deref(),
            _ => None,
        };
        if norms.is_some_and(|norms| norms.len() != batch * channels) {
            bail!("the moments of other images than {:?}", band.rows.dims());
        }
        let contiguous = |rows: Option<&Tensor>| rows.map(Tensor::contiguous).transpose();
        let (above, below) = (contiguous(band.above)?, contiguous(band.below)?);
        let above = above.as_ref().map(Tensor::storage_and_layout);
        let below = below.as_ref().map(Tensor::storage_and_layout);
        let gather = Gathered {
            above: above
                .as_ref()
                .map(|(storage, layout)| rows_of(storage, layout))
                .transpose()?,
            rows: Rows { values: rows, height },
            below: below
                .as_ref()
                .map(|(storage, layout)| rows_of(storage, layout))
                .transpose()?,
            width,
            margins: self.margins(),
        };
        let size = batch * channels * gather.height() * width;
        if self.gathered.len() < size {
            // Replaced, so that the old contents are not copied.
            self.gathered = Vec::new();
            self.gathered.resize(size, 0.0);
        }
        gather.write(InstructionSet::best(), norms, &mut self.gathered[..size]);
        Ok(size)
    }

    /// The band between those rows around it that its result depends on, from the top down.
    fn with_margins(&self, band: Band<'_>) -> Result<Vec<Tensor>> {
        let (above, below) = self.margins();
        let mut parts = Vec::new();
        if let Some(rows) = band.above.filter(|_| above > 0) {
            parts.push(rows.narrow(2, rows.dim(2)? - above, above)?);
        }
        parts.push(band.rows.clone());
        if let Some(rows) = band.below.filter(|_| below > 0) {
            parts.push(rows.narrow(2, 0, below)?);
        }
        Ok(parts)
    }

    #[cfg(gpu)]
    fn on_gpu(
        &self,
        backend: Backend,
        band: Band<'_>,
        onto: Option<&Tensor>,
        shape: [usize; 4],
    ) -> Result<Tensor> {
        let (above, _) = self.margins();
        let parts = self.with_margins(band)?;
        let mut x = match parts.as_slice() {
            [rows] => rows.clone(),
            _ => on_gpu!(backend, concatenate(&parts, 2))?,
        };
        drop(parts);
        if let Before::Norm { norm, moments, .. } = &self.before {
            x = norm.on_gpu_by(backend, &x, moments, true)?;
        }
        let upsamples = matches!(self.before, Before::Upsampling { .. });
        let windows = gpu::Windows {
            stride: self.convolution.stride,
            above: match band.above {
                // A row above became two, of which the nearer one is used.
                Some(_) if upsamples => -1,
                Some(_) => 0,
                None => above.cast_signed(),
            },
            left: above,
            height: shape[2],
            width: shape[3],
            upsamples,
        };
        let addends = gpu::Addends {
            bias: self.convolution.bias.as_ref(),
            shifts: None,
            onto,
        };
        on_gpu!(
            backend,
            conv2d(&x, &self.convolution.weight_of_kernels()?, addends, windows)
        )
    }

    /// The plain definition.
    fn plain(&self, band: Band<'_>) -> Result<Tensor> {
        let (above, below) = self.margins();
        let parts = self.with_margins(band)?;
        let mut x = Tensor::cat(&parts, 2)?;
        match &self.before {
            Before::Nothing => {}
            Before::Norm { norm, moments, .. } => x = norm.plain_by(&x, moments)?.silu()?,
            Before::Upsampling { .. } => {
                // Each neighbouring row becomes two, of which the nearer one is used.
                let (first, last) = (
                    usize::from(band.above.is_some()),
                    usize::from(band.below.is_some()),
                );
                let wanted = 2 * x.dim(2)? - first - last;
                x = upsample_nearest(&x)?.narrow(2, first, wanted)?;
            }
        }
        let zeros = |neighbour: Option<&Tensor>, margin: usize| if neighbour.is_none() { margin } else { 0 };
        let x = x.pad_with_zeros(2, zeros(band.above, above), zeros(band.below, below))?;
        plain_padded(&x.pad_with_zeros(3, above, below)?, self.convolution, 0)
    }
}

fn on_cpu(convolution: &Conv2d) -> bool {
    Backend::of(convolution.weight.device()) == Backend::Cpu
}

fn floats<'a>(storage: &'a Storage, layout: &Layout) -> Result<&'a [f32]> {
    Values::of_storage(storage, layout)?.floats()
}

fn rows_of<'a>(storage: &'a Storage, layout: &Layout) -> Result<Rows<'a>> {
    let (_, _, height, _) = layout.shape().dims4()?;
    Ok(Rows {
        values: floats(storage, layout)?,
        height,
    })
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use proptest::prelude::*;

    use super::*;
    use crate::cpu::kernel::tests::{close, eighths, equal, random};
    use crate::cpu::simd::InstructionSet;
    use crate::{conv2d, group_norm_silu};

    fn convolution(weight: [usize; 4], stride: usize, padding: usize, after: usize) -> Conv2d {
        let bias = Some(random(&weight[..1], 3));
        Conv2d::new(random(&weight, 2), bias, stride, padding)
            .unwrap()
            .padded_after(after)
    }

    /// `x` in bands of the heights `heights`, over and over.
    fn split(x: &Tensor, heights: &[usize]) -> Vec<Tensor> {
        let (mut first, rows) = (0, x.dim(2).unwrap());
        let mut bands = Vec::new();
        for height in heights.iter().cycle() {
            let height = (*height).min(rows - first);
            bands.push(x.narrow(2, first, height).unwrap());
            first += height;
            if first == rows {
                break;
            }
        }
        bands
    }

    /// What `rows` gives for each of `bands`, joined.
    fn by_bands(bands: &[Tensor], mut rows: impl FnMut(Band<'_>, usize) -> Tensor) -> Tensor {
        let results: Vec<Tensor> = (0..bands.len())
            .map(|index| {
                let above = index.checked_sub(1).map(|index| &bands[index]);
                let band = Band {
                    above,
                    rows: &bands[index],
                    below: bands.get(index + 1),
                };
                rows(band, index)
            })
            .collect();
        Tensor::cat(&results, 2).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_band_has_the_bits_of_the_whole(
            (batch, inputs, outputs) in (1_usize..3, 1_usize..90, 1_usize..90),
            (height, width) in (1_usize..30, 1_usize..40),
            heights in prop::collection::vec(1_usize..12, 1..4),
            pointwise: bool,
        ) {
            let x = random(&[batch, inputs, height, width], 1);
            let kernel = if pointwise { 1 } else { 3 };
            let convolution = convolution([outputs, inputs, kernel, kernel], 1, kernel / 2, kernel / 2);
            let whole = conv2d(&x, &convolution).unwrap();
            let mut banded = BandedConv2d::new(&convolution).unwrap();
            equal(&by_bands(&split(&x, &heights), |band, _| banded.rows(band, None).unwrap()), &whole);

            let onto = random(&[batch, outputs, height, width], 4);
            let ontos = split(&onto, &heights);
            let added = by_bands(&split(&x, &heights), |band, index| banded.rows(band, Some(&ontos[index])).unwrap());
            equal(&added, &(&onto + whole).unwrap());
        }

        #[test]
        fn a_band_has_the_bits_of_the_whole_after_a_norm(
            (batch, inputs, outputs) in (1_usize..3, 1_usize..20, 1_usize..20),
            (height, width) in (1_usize..30, 1_usize..40),
            heights in prop::collection::vec(1_usize..12, 1..4),
        ) {
            let x = random(&[batch, 3 * inputs, height, width], 1);
            let convolution = convolution([outputs, 3 * inputs, 3, 3], 1, 1, 1);
            let norm = GroupNorm::new(3, 1e-6, random(&[3 * inputs], 5), random(&[3 * inputs], 6)).unwrap();
            let bands = split(&x, &heights);
            let mut moments = ChannelMoments::default();
            bands.iter().for_each(|band| moments.add(band).unwrap());
            let mut banded = BandedConv2d::after_norm_silu(&convolution, &norm, &moments).unwrap();
            let found = by_bands(&bands, |band, _| banded.rows(band, None).unwrap());
            let moments = ChannelMoments::of(&x).unwrap();
            let mut at_once = BandedConv2d::after_norm_silu(&convolution, &norm, &moments).unwrap();
            equal(&found, &at_once.rows(Band::from(&x), None).unwrap());
            let normed = group_norm_silu(&x, &norm).unwrap();
            close(&found, &conv2d(&normed, &convolution).unwrap(), 1e-5);
        }

        #[test]
        fn a_band_has_the_bits_of_the_whole_after_upsampling(
            (batch, inputs, outputs) in (1_usize..3, 1_usize..200, 1_usize..90),
            (height, width) in (1_usize..20, 1_usize..30),
            heights in prop::collection::vec(1_usize..12, 1..4),
        ) {
            let x = random(&[batch, inputs, height, width], 1);
            let convolution = convolution([outputs, inputs, 3, 3], 1, 1, 1);
            let mut banded = BandedConv2d::after_upsampling(&convolution).unwrap();
            let whole = banded.rows(Band::from(&x), None).unwrap();
            equal(&by_bands(&split(&x, &heights), |band, _| banded.rows(band, None).unwrap()), &whole);
            let larger = upsample_nearest(&x).unwrap();
            close(&whole, &conv2d(&larger, &convolution).unwrap(), 1e-5);
        }

        #[test]
        fn a_band_has_the_bits_of_the_whole_when_it_shrinks(
            (height, width) in (1_usize..20, 2_usize..40),
            heights in prop::collection::vec(1_usize..6, 1..4),
        ) {
            let x = random(&[2, 70, 2 * height, width], 1);
            let convolution = convolution([65, 70, 3, 3], 2, 0, 1);
            let heights: Vec<usize> = heights.iter().map(|height| 2 * height).collect();
            let mut banded = BandedConv2d::new(&convolution).unwrap();
            let found = by_bands(&split(&x, &heights), |band, _| banded.rows(band, None).unwrap());
            equal(&found, &conv2d(&x, &convolution).unwrap());
        }
    }

    #[test]
    fn the_plain_definition_gives_the_same() {
        let (x, heights) = (random(&[2, 6, 16, 9], 1), [4, 2, 6]);
        let bands = split(&x, &heights);
        let norm = GroupNorm::new(3, 1e-6, random(&[6], 5), random(&[6], 6)).unwrap();
        let (same, half) = (
            convolution([5, 6, 3, 3], 1, 1, 1),
            convolution([5, 6, 3, 3], 2, 0, 1),
        );
        let point = convolution([5, 6, 1, 1], 1, 0, 0);
        let moments = ChannelMoments::of(&x).unwrap();
        for mut banded in [
            BandedConv2d::new(&same).unwrap(),
            BandedConv2d::new(&half).unwrap(),
            BandedConv2d::new(&point).unwrap(),
            BandedConv2d::after_upsampling(&same).unwrap(),
        ] {
            let found = by_bands(&bands, |band, _| banded.rows(band, None).unwrap());
            close(
                &by_bands(&bands, |band, _| banded.plain(band).unwrap()),
                &found,
                1e-5,
            );
        }
        let mut on_cpu = BandedConv2d::after_norm_silu(&same, &norm, &moments).unwrap();
        let found = by_bands(&bands, |band, _| on_cpu.rows(band, None).unwrap());
        let mut moments = ChannelMoments::default();
        bands.iter().for_each(|band| moments.add_plain(band).unwrap());
        let plain = BandedConv2d {
            before: Before::Norm {
                norm: &norm,
                moments: &moments,
                channels: None,
            },
            ..BandedConv2d::new(&same).unwrap()
        };
        close(
            &by_bands(&bands, |band, _| plain.plain(band).unwrap()),
            &found,
            1e-5,
        );
    }

    #[test]
    fn weights_of_16_bits_give_the_bits_of_the_same_weights_widened_or_are_multiplied_in_pairs() {
        // Numbers whose sums and differences bf16 holds, so that pairs of them lose nothing.
        let x = eighths(&[1, 40, 7, 9], 1);
        for kind in [DType::BF16, DType::F16] {
            let weight = eighths(&[30, 40, 3, 3], 2).to_dtype(kind).unwrap();
            let wide = Conv2d::new(weight.to_dtype(DType::F32).unwrap(), None, 1, 1).unwrap();
            let narrow = Conv2d::new(weight, None, 1, 1).unwrap();
            let larger = |convolution: &Conv2d| {
                let mut banded = BandedConv2d::after_upsampling(convolution).unwrap();
                banded.rows(Band::from(&x), None).unwrap()
            };
            if kind == DType::BF16 && InstructionSet::best().has_bf16_dot() {
                close(&larger(&narrow), &larger(&wide), 1e-6);
            } else {
                equal(&larger(&narrow), &larger(&wide));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let same = convolution([5, 6, 3, 3], 1, 1, 1);
        assert!(BandedConv2d::new(&convolution([5, 6, 3, 3], 1, 0, 0)).is_err());
        assert!(BandedConv2d::new(&convolution([5, 6, 1, 3], 1, 1, 1)).is_err());
        assert!(BandedConv2d::after_upsampling(&convolution([5, 6, 3, 3], 2, 0, 1)).is_err());
        let norm = GroupNorm::new(1, 1e-6, random(&[7], 5), random(&[7], 6)).unwrap();
        let moments = ChannelMoments::of(&random(&[1, 7, 2, 2], 1)).unwrap();
        assert!(BandedConv2d::after_norm_silu(&same, &norm, &moments).is_err());
        let mut banded = BandedConv2d::new(&same).unwrap();
        let rows = random(&[1, 6, 4, 9], 1);
        let refused = |banded: &mut BandedConv2d<'_>, above: &Tensor, rows: &Tensor| {
            let band = Band {
                above: Some(above),
                rows,
                below: None,
            };
            banded.rows(band, None).is_err()
        };
        assert!(!refused(&mut banded, &rows, &rows));
        assert!(refused(&mut banded, &random(&[1, 6, 4, 8], 1), &rows));
        assert!(refused(&mut banded, &rows, &random(&[1, 5, 4, 9], 1)));
        assert!(banded.rows(Band::from(&rows), Some(&rows)).is_err());
        let half = convolution([5, 6, 3, 3], 2, 0, 1);
        let mut banded = BandedConv2d::new(&half).unwrap();
        let odd = random(&[1, 6, 3, 9], 1);
        let band = Band {
            above: None,
            rows: &odd,
            below: Some(&rows),
        };
        assert!(banded.rows(band, None).is_err());
    }
}
