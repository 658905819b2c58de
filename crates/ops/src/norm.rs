//! Normalisation layers, and the modulation of diffusion transformers.

use candle_core::{D, DType, Tensor, bail};

use crate::Result;
use crate::capabilities::Backend;
use crate::cpu::kernel::{on_one, on_three};
use crate::cpu::norm as kernels;
use crate::cpu::sections::Section;
use crate::cpu::simd::InstructionSet;
#[cfg(gpu)]
use crate::gpu::{Epilogue, RowNorm, has_kernels, on_gpu};
use crate::linear::small;
use crate::moments::ChannelMoments;

/// A group norm. Wu and He, "Group Normalization", 2018.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    groups: usize,
    epsilon: f64,
    weight: Tensor,
    bias: Tensor,
}

impl GroupNorm {
    /// A group norm with `groups` groups and `weight` and `bias`, `[channels]` both.
    ///
    /// # Errors
    /// The shapes differ, or the channels cannot be divided into so many groups.
    pub fn new(groups: usize, epsilon: f64, weight: Tensor, bias: Tensor) -> Result<Self> {
        let channels = weight.dims1()?;
        if groups == 0 || channels % groups != 0 || bias.dims() != [channels] {
            bail!(
                "{channels} channels with a bias of {:?} cannot be normed in {groups} groups",
                bias.dims()
            );
        }
        Ok(Self {
            groups,
            epsilon,
            weight: small(&weight)?,
            bias: small(&bias)?,
        })
    }
}

/// Group norm of `x`, `[batch, channels, height, width]`.
///
/// # Errors
/// `x` has other channels than the norm, or the device fails.
pub fn group_norm(x: &Tensor, norm: &GroupNorm) -> Result<Tensor> {
    group_norm_then(x, norm, false)
}

/// [`group_norm`] followed by silu.
///
/// # Errors
/// As [`group_norm`].
pub fn group_norm_silu(x: &Tensor, norm: &GroupNorm) -> Result<Tensor> {
    group_norm_then(x, norm, true)
}

fn group_norm_then(x: &Tensor, norm: &GroupNorm, then_silu: bool) -> Result<Tensor> {
    let (_, channels, height, width) = x.dims4()?;
    norm.check_channels(channels)?;
    match Backend::of(x.device()) {
        Backend::Cpu => norm.with_settings(then_silu, |settings| {
            on_one("group_norm", x.dims(), x, |x| {
                let set = InstructionSet::best();
                Ok(kernels::group_norm(set, x.floats()?, (height, width), settings))
            })
        }),
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => {
            let weights = [&norm.weight, &norm.bias];
            let statistics = on_gpu!(gpu, group_statistics(x, norm.groups, norm.epsilon))?;
            on_gpu!(
                gpu,
                group_normalized(x, norm.groups, &statistics, weights, then_silu)
            )
        }
        _ => {
            let normed = plain_group_norm(x, norm)?;
            if then_silu { normed.silu() } else { Ok(normed) }
        }
    }
}

impl GroupNorm {
    pub(crate) fn check_channels(&self, channels: usize) -> Result<()> {
        if self.weight.dims() != [channels] {
            bail!("a norm of {:?} channels was given {channels}", self.weight.dims());
        }
        Ok(())
    }

    /// The norms of each channel of images on the CPU with these `moments`.
    pub(crate) fn of_channels(
        &self,
        moments: &ChannelMoments,
        then_silu: bool,
    ) -> Result<Vec<kernels::ChannelNorm>> {
        let moments = moments.on_cpu()?;
        self.with_settings(then_silu, |settings| Ok(settings.of_channels(moments)))
    }

    /// Calls `use_them` with the settings of the CPU kernel.
    fn with_settings<R>(
        &self,
        then_silu: bool,
        use_them: impl FnOnce(kernels::GroupNormSettings<'_>) -> Result<R>,
    ) -> Result<R> {
        let (weight, bias) = (self.weight.to_vec1::<f32>()?, self.bias.to_vec1::<f32>()?);
        use_them(kernels::GroupNormSettings {
            groups: self.groups,
            weight: &weight,
            bias: &bias,
            epsilon: self.epsilon,
            then_silu,
        })
    }

    /// The plain definition for a part of images with these `moments`.
    pub(crate) fn plain_by(&self, x: &Tensor, moments: &ChannelMoments) -> Result<Tensor> {
        let channels = x.dim(1)?;
        let (mean, variance) = moments.of_groups(self.groups)?;
        let deviation = (variance + self.epsilon)?.sqrt()?;
        let by_channel = |groups: &Tensor| {
            let batch = groups.dim(0)?;
            let spread = groups
                .unsqueeze(2)?
                .broadcast_as((batch, self.groups, channels / self.groups))?;
            spread.contiguous()?.reshape((batch, channels, 1, 1))
        };
        let wide = x.to_dtype(DType::F32)?;
        let centred = wide.broadcast_sub(&by_channel(&mean)?)?;
        let normed = centred.broadcast_div(&by_channel(&deviation)?)?;
        self.plain_weighted(&normed.to_dtype(x.dtype())?)
    }

    /// Norms a part of images with these `moments`, with silu after it if wanted.
    #[cfg(gpu)]
    pub(crate) fn on_gpu_by(
        &self,
        gpu: Backend,
        x: &Tensor,
        moments: &ChannelMoments,
        then_silu: bool,
    ) -> Result<Tensor> {
        let statistics = moments.on_gpu()?.statistics(self.groups, self.epsilon)?;
        let weights = [&self.weight, &self.bias];
        on_gpu!(
            gpu,
            group_normalized(x, self.groups, &statistics, weights, then_silu)
        )
    }

    fn plain_weighted(&self, normed: &Tensor) -> Result<Tensor> {
        normed
            .broadcast_mul(&self.weight.reshape((1, (), 1, 1))?)?
            .broadcast_add(&self.bias.reshape((1, (), 1, 1))?)
    }
}

fn plain_group_norm(x: &Tensor, norm: &GroupNorm) -> Result<Tensor> {
    let grouped = x.reshape((x.dim(0)?, norm.groups, ()))?.to_dtype(DType::F32)?;
    let normed = plain_normed(&grouped, norm.epsilon)?
        .to_dtype(x.dtype())?
        .reshape(x.dims())?;
    norm.plain_weighted(&normed)
}

/// Subtracts the mean of the last dimension and divides by its standard deviation.
fn plain_normed(x: &Tensor, epsilon: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred.broadcast_div(&(variance + epsilon)?.sqrt()?)
}

/// A layer norm. Ba, Kiros and Hinton, "Layer Normalization", 2016.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Option<Tensor>,
    bias: Option<Tensor>,
    epsilon: f64,
}

impl LayerNorm {
    /// A layer norm with optional `weight` and `bias`, `[features]` each.
    ///
    /// # Errors
    /// The device fails.
    pub fn new(weight: Option<Tensor>, bias: Option<Tensor>, epsilon: f64) -> Result<Self> {
        let small = |tensor: Option<Tensor>| tensor.map(|tensor| small(&tensor)).transpose();
        Ok(Self {
            weight: small(weight)?,
            bias: small(bias)?,
            epsilon,
        })
    }
}

/// Layer norm of `x`, `[…, features]`.
///
/// # Errors
/// `x` has other features than the norm, or the device fails.
pub fn layer_norm(x: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    for tensor in norm.weight.iter().chain(&norm.bias) {
        check_features(tensor, width)?;
    }
    match Backend::of(x.device()) {
        Backend::Cpu => layer_norm_on_cpu(x, norm, width),
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => {
            let norm = RowNorm {
                subtracts_mean: true,
                epsilon: norm.epsilon,
                scale: norm.weight.as_ref(),
                scale_offset: 0.0,
                shift: norm.bias.as_ref(),
            };
            on_gpu!(gpu, row_norm(x, norm))
        }
        _ => plain_layer_norm(x, norm),
    }
}

fn layer_norm_on_cpu(x: &Tensor, norm: &LayerNorm, width: usize) -> Result<Tensor> {
    let values = |tensor: &Option<Tensor>, otherwise: f32| match tensor {
        Some(tensor) => tensor.to_vec1::<f32>(),
        None => Ok(vec![otherwise; width]),
    };
    let (weight, bias) = (values(&norm.weight, 1.0)?, values(&norm.bias, 0.0)?);
    let kernel = kernels::LayerNorm {
        weight: &weight,
        bias: &bias,
        epsilon: norm.epsilon,
    };
    on_one("layer_norm", x.dims(), x, |x| {
        Ok(kernel.of(InstructionSet::best(), x.floats()?, width))
    })
}

fn plain_layer_norm(x: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
    let normed = plain_normed(&x.to_dtype(DType::F32)?, norm.epsilon)?.to_dtype(x.dtype())?;
    let weighted = norm
        .weight
        .iter()
        .try_fold(normed, |x, weight| x.broadcast_mul(weight))?;
    norm.bias
        .iter()
        .try_fold(weighted, |x, bias| x.broadcast_add(bias))
}

/// Layer norm of `x`, `[batch, tokens, features]`, without weights, then times `1 + scale` plus `shift`,
/// `[batch, features]` both (adaLN). Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023.
///
/// # Errors
/// The shapes do not fit each other, or the device fails.
pub fn modulated_layer_norm(x: &Tensor, shift: &Tensor, scale: &Tensor, epsilon: f64) -> Result<Tensor> {
    let (batch, tokens, width) = x.dims3()?;
    check_modulation(shift, batch, width)?;
    check_modulation(scale, batch, width)?;
    match Backend::of(x.device()) {
        Backend::Cpu => {
            let name = "modulated_layer_norm";
            on_three(name, x.dims(), x, shift, scale, |x, shift, scale| {
                let kernel = kernels::ModulatedLayerNorm {
                    shift: shift.floats()?,
                    scale: scale.floats()?,
                    tokens,
                    epsilon,
                };
                Ok(kernel.of(InstructionSet::best(), x.floats()?, width))
            })
        }
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => {
            let norm = RowNorm {
                subtracts_mean: true,
                epsilon,
                scale: Some(scale),
                scale_offset: 1.0,
                shift: Some(shift),
            };
            on_gpu!(gpu, row_norm(x, norm))
        }
        _ => {
            let normed = plain_normed(&x.to_dtype(DType::F32)?, epsilon)?.to_dtype(x.dtype())?;
            normed
                .broadcast_mul(&(scale.unsqueeze(1)? + 1.0)?)?
                .broadcast_add(&shift.unsqueeze(1)?)
        }
    }
}

/// `residual + gate * x` with `residual` and `x` `[batch, tokens, features]` and `gate` `[batch, features]`.
///
/// # Errors
/// The shapes do not fit each other, or the device fails.
pub fn gated_residual(residual: &Tensor, gate: &Tensor, x: &Tensor) -> Result<Tensor> {
    let (batch, tokens, width) = x.dims3()?;
    check_modulation(gate, batch, width)?;
    if residual.dims() != x.dims() {
        bail!("a residual of shape {:?} for {:?}", residual.dims(), x.dims());
    }
    match Backend::of(x.device()) {
        Backend::Cpu => {
            let name = "gated_residual";
            on_three(name, x.dims(), residual, gate, x, |residual, gate, x| {
                let kernel = kernels::GatedResidual {
                    residual: residual.floats()?,
                    gate: gate.floats()?,
                    tokens,
                };
                Ok(kernel.of(InstructionSet::best(), x.floats()?, width))
            })
        }
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => on_gpu!(gpu, combined(x, Epilogue::gated_residual(residual, gate))),
        _ => residual + x.broadcast_mul(&gate.unsqueeze(1)?)?,
    }
}

/// An RMS norm. Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    weight: Tensor,
    epsilon: f64,
}

impl RmsNorm {
    /// An RMS norm with `weight`, `[features]`.
    ///
    /// # Errors
    /// The device fails.
    pub fn new(weight: Tensor, epsilon: f64) -> Result<Self> {
        Ok(Self {
            weight: small(&weight)?,
            epsilon,
        })
    }
}

/// RMS norm of the last dimension of `x`.
///
/// # Errors
/// `x` has other features than the norm, or the device fails.
pub fn rms_norm(x: &Tensor, norm: &RmsNorm) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    check_features(&norm.weight, width)?;
    match Backend::of(x.device()) {
        Backend::Cpu => {
            let weight = norm.weight.to_vec1::<f32>()?;
            let kernel = kernels::RmsNorm {
                weight: &weight,
                epsilon: norm.epsilon,
            };
            on_one("rms_norm", x.dims(), x, |x| {
                Ok(kernel.of(InstructionSet::best(), x.floats()?, width))
            })
        }
        #[cfg(gpu)]
        gpu if has_kernels(gpu) => {
            let norm = RowNorm {
                subtracts_mean: false,
                epsilon: norm.epsilon,
                scale: Some(&norm.weight),
                scale_offset: 0.0,
                shift: None,
            };
            on_gpu!(gpu, row_norm(x, norm))
        }
        _ => plain_rms_norm(x, norm),
    }
}

fn plain_rms_norm(x: &Tensor, norm: &RmsNorm) -> Result<Tensor> {
    let wide = x.to_dtype(DType::F32)?;
    let mean_square = wide.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = wide
        .broadcast_div(&(mean_square + norm.epsilon)?.sqrt()?)?
        .to_dtype(x.dtype())?;
    normed.broadcast_mul(&norm.weight)
}

fn check_features(weight: &Tensor, width: usize) -> Result<()> {
    if weight.dims() == [width] {
        Ok(())
    } else {
        bail!("a norm of {:?} features was given {width}", weight.dims())
    }
}

fn check_modulation(vector: &Tensor, batch: usize, width: usize) -> Result<()> {
    if vector.dims() == [batch, width] {
        Ok(())
    } else {
        bail!(
            "a modulation of shape {:?} for a batch of {batch} with {width} features",
            vector.dims()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernel::tests::{close, equal, random};

    fn vector(size: usize, seed: u64) -> Tensor {
        random(&[size], seed)
    }

    #[test]
    fn group_norms_agree_with_the_plain_definition() {
        for (channels, groups, height, width) in
            [(8, 4, 1, 1), (6, 2, 5, 7), (32, 32, 16, 16), (12, 1, 33, 40)]
        {
            let x = ((random(&[2, channels, height, width], 1) * 3.0).unwrap() + 5.0).unwrap();
            let norm = GroupNorm::new(groups, 1e-6, vector(channels, 2), vector(channels, 3)).unwrap();
            let plain = plain_group_norm(&x, &norm).unwrap();
            close(&group_norm(&x, &norm).unwrap(), &plain, 1e-5);
            close(&group_norm_silu(&x, &norm).unwrap(), &plain.silu().unwrap(), 1e-5);
        }
    }

    #[test]
    fn token_norms_agree_with_the_plain_definition() {
        for width in [1, 7, 64, 1500] {
            let x = random(&[3, 11, width], 1);
            let normed = plain_normed(&x, 1e-6).unwrap();
            let (weight, bias) = (vector(width, 2), vector(width, 3));
            let norm = LayerNorm::new(Some(weight.clone()), Some(bias.clone()), 1e-6).unwrap();
            let expected = normed
                .broadcast_mul(&weight)
                .unwrap()
                .broadcast_add(&bias)
                .unwrap();
            close(&layer_norm(&x, &norm).unwrap(), &expected, 1e-5);

            let (shift, scale) = (random(&[3, width], 4), random(&[3, width], 5));
            let by_token = |vector: &Tensor| vector.unsqueeze(1).unwrap();
            let scaled = normed.broadcast_mul(&(by_token(&scale) + 1.0).unwrap()).unwrap();
            let expected = scaled.broadcast_add(&by_token(&shift)).unwrap();
            close(
                &modulated_layer_norm(&x, &shift, &scale, 1e-6).unwrap(),
                &expected,
                1e-5,
            );

            let y = random(&[3, 11, width], 6);
            let expected = (&y + x.broadcast_mul(&by_token(&scale)).unwrap()).unwrap();
            close(&gated_residual(&y, &scale, &x).unwrap(), &expected, 1e-6);

            let norm = RmsNorm::new(weight.clone(), 1e-6).unwrap();
            let mean_square = x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
            let expected = x
                .broadcast_div(&(mean_square + 1e-6).unwrap().sqrt().unwrap())
                .unwrap();
            close(
                &rms_norm(&x, &norm).unwrap(),
                &expected.broadcast_mul(&weight).unwrap(),
                1e-5,
            );
        }
    }

    #[test]
    fn views_are_normed_as_their_copies_are() {
        let (width, channels) = (70, 6);
        let tokens = random(&[3, width, 11], 1).transpose(1, 2).unwrap();
        let image = random(&[2, channels, 30, 9], 2).transpose(2, 3).unwrap();
        let part = random(&[2, 2 * channels, 30, 9], 3)
            .narrow(1, 3, channels)
            .unwrap();
        let of_tokens = LayerNorm::new(Some(vector(width, 4)), None, 1e-6).unwrap();
        let of_roots = RmsNorm::new(vector(width, 5), 1e-6).unwrap();
        let of_groups = GroupNorm::new(3, 1e-6, vector(channels, 6), vector(channels, 7)).unwrap();
        let shift = random(&[width, 3], 8).t().unwrap();
        let (copied, flat) = (tokens.contiguous().unwrap(), shift.contiguous().unwrap());
        let modulated = |x: &Tensor, shift: &Tensor| modulated_layer_norm(x, shift, shift, 1e-6).unwrap();
        let gated = |x: &Tensor, gate: &Tensor| gated_residual(x, gate, x).unwrap();
        equal(&modulated(&tokens, &shift), &modulated(&copied, &flat));
        equal(&gated(&tokens, &shift), &gated(&copied, &flat));
        equal(
            &layer_norm(&tokens, &of_tokens).unwrap(),
            &layer_norm(&copied, &of_tokens).unwrap(),
        );
        equal(
            &rms_norm(&tokens, &of_roots).unwrap(),
            &rms_norm(&copied, &of_roots).unwrap(),
        );
        for view in [image, part] {
            let copied = view.contiguous().unwrap();
            equal(
                &group_norm(&view, &of_groups).unwrap(),
                &group_norm(&copied, &of_groups).unwrap(),
            );
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let x = random(&[2, 3, 8], 1);
        assert!(GroupNorm::new(3, 1e-6, vector(8, 1), vector(8, 1)).is_err());
        assert!(GroupNorm::new(0, 1e-6, vector(8, 1), vector(8, 1)).is_err());
        assert!(rms_norm(&x, &RmsNorm::new(vector(7, 1), 1e-6).unwrap()).is_err());
        assert!(modulated_layer_norm(&x, &random(&[1, 8], 1), &random(&[2, 8], 1), 1e-6).is_err());
        assert!(gated_residual(&x, &random(&[2, 8], 1), &random(&[2, 4, 8], 1)).is_err());
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let x = random(&[1, 8, 300, 100], 1);
        let norm = GroupNorm::new(4, 1e-6, vector(8, 2), vector(8, 3)).unwrap();
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| group_norm_silu(&x, &norm).unwrap())
        };
        equal(&with(1), &with(3));
    }

    #[test]
    fn groups_that_fit_into_the_cache_and_others_are_normed_alike() {
        // The values of a group are a few more or less than those that fit.
        for height in [254, 258] {
            let x = ((random(&[1, 4, height, 256], 1) * 3.0).unwrap() + 5.0).unwrap();
            let norm = GroupNorm::new(2, 1e-6, vector(4, 2), vector(4, 3)).unwrap();
            let plain = plain_group_norm(&x, &norm).unwrap();
            close(&group_norm(&x, &norm).unwrap(), &plain, 1e-5);
        }
    }
}
