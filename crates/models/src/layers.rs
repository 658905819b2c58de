//! Layers that are read from a scope of weights, under the tensor names of diffusers and transformers.

use candle_core::Tensor;
use sd_ops::{Conv2d, GroupNorm, LayerNorm, Linear, RmsNorm};
use sd_weights::{ProjectionWeight, Result, Weights};

/// A linear projection with a bias: `weight`, `[outputs, inputs]`, and `bias`.
pub(crate) fn linear(weights: &Weights, inputs: usize, outputs: usize) -> Result<Linear> {
    let bias = weights.tensor("bias", &[outputs])?;
    projection(weights, inputs, outputs, Some(bias))
}

/// A linear projection with a bias, which may be stored as a 1x1 convolution.
pub(crate) fn pointwise(weights: &Weights, inputs: usize, outputs: usize) -> Result<Linear> {
    if weights.shape("weight").is_some_and(|shape| shape.len() == 4) {
        return pointwise_conv(weights, inputs, outputs);
    }
    linear(weights, inputs, outputs)
}

/// A 1x1 convolution, as the linear projection of each pixel that it is.
pub(crate) fn pointwise_conv(weights: &Weights, inputs: usize, outputs: usize) -> Result<Linear> {
    if weights.shape("weight").is_some_and(|shape| shape.len() == 2) {
        return linear(weights, inputs, outputs);
    }
    let weight = weights.tensor("weight", &[outputs, inputs, 1, 1])?;
    let weight = weight.reshape((outputs, inputs))?;
    Ok(Linear::new(weight, Some(weights.tensor("bias", &[outputs])?))?)
}

/// A linear projection without a bias.
pub(crate) fn linear_without_bias(weights: &Weights, inputs: usize, outputs: usize) -> Result<Linear> {
    projection(weights, inputs, outputs, None)
}

/// A linear projection whose `weight` may be quantised.
fn projection(weights: &Weights, inputs: usize, outputs: usize, bias: Option<Tensor>) -> Result<Linear> {
    Ok(match weights.projection("weight", outputs, inputs)? {
        ProjectionWeight::Values(weight) => Linear::new(weight, bias)?,
        ProjectionWeight::Quantized { rows, quantization } => Linear::quantized(rows, quantization, bias)?,
    })
}

/// A convolution with a square kernel and a bias.
pub(crate) fn conv2d(
    weights: &Weights,
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Result<Conv2d> {
    let weight = weights.tensor("weight", &[outputs, inputs, kernel, kernel])?;
    Ok(Conv2d::new(
        weight,
        Some(weights.tensor("bias", &[outputs])?),
        stride,
        padding,
    )?)
}

/// A group norm with weight and bias.
pub(crate) fn group_norm(
    weights: &Weights,
    groups: usize,
    channels: usize,
    epsilon: f64,
) -> Result<GroupNorm> {
    let (weight, bias) = (
        weights.tensor("weight", &[channels])?,
        weights.tensor("bias", &[channels])?,
    );
    Ok(GroupNorm::new(groups, epsilon, weight, bias)?)
}

/// A layer norm with weight and bias.
pub(crate) fn layer_norm(weights: &Weights, features: usize, epsilon: f64) -> Result<LayerNorm> {
    let (weight, bias) = (
        weights.tensor("weight", &[features])?,
        weights.tensor("bias", &[features])?,
    );
    Ok(LayerNorm::new(Some(weight), Some(bias), epsilon)?)
}

/// An RMS norm with its weight.
pub(crate) fn rms_norm(weights: &Weights, features: usize, epsilon: f64) -> Result<RmsNorm> {
    Ok(RmsNorm::new(weights.tensor("weight", &[features])?, epsilon)?)
}
