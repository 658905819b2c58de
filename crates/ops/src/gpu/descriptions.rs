//! The descriptions of operations that kernels of GPUs take.

use candle_core::Tensor;

use crate::cpu::activation::Activation;

/// What follows a product: `residual + gate * activation(x + bias)`, each part where it is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epilogue<'a> {
    pub(crate) activation: Option<Activation>,
    /// Of the shape of the result.
    pub(crate) residual: Option<&'a Tensor>,
    /// `[batch, features]` for `[batch, tokens, features]`.
    pub(crate) gate: Option<&'a Tensor>,
}

impl<'a> Epilogue<'a> {
    /// Changes nothing.
    pub(crate) const NONE: Self = Self {
        activation: None,
        residual: None,
        gate: None,
    };

    /// `activation(x)`
    pub(crate) const fn activation(activation: Activation) -> Self {
        Self {
            activation: Some(activation),
            ..Self::NONE
        }
    }

    /// `residual + x`
    pub(crate) const fn residual(residual: &'a Tensor) -> Self {
        Self {
            residual: Some(residual),
            ..Self::NONE
        }
    }

    /// `residual + gate * x`
    pub(crate) const fn gated_residual(residual: &'a Tensor, gate: &'a Tensor) -> Self {
        Self {
            residual: Some(residual),
            gate: Some(gate),
            ..Self::NONE
        }
    }

    /// Whether it changes nothing.
    pub(crate) fn is_none(&self) -> bool {
        self.activation.is_none() && self.residual.is_none() && self.gate.is_none()
    }
}

/// How rows are normed: `normed * (scale_offset + scale) + shift`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowNorm<'a> {
    /// Whether the mean is subtracted, which an RMS norm does not do.
    pub(crate) subtracts_mean: bool,
    pub(crate) epsilon: f64,
    /// `[features]`, or `[batch, features]` for rows `[batch, tokens, features]`.
    pub(crate) scale: Option<&'a Tensor>,
    pub(crate) scale_offset: f32,
    /// As `scale`.
    pub(crate) shift: Option<&'a Tensor>,
}

/// What is added to a convolution's result.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Addends<'a> {
    /// `[out channels]`
    pub(crate) bias: Option<&'a Tensor>,
    /// `[batch, out channels]`
    pub(crate) shifts: Option<&'a Tensor>,
    /// Of the shape of the result.
    pub(crate) onto: Option<&'a Tensor>,
}

/// Where the windows of a convolution begin, and how many there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Windows {
    pub(crate) stride: usize,
    /// Rows of zeros above the input; where it is negative, rows that no window reads.
    pub(crate) above: isize,
    /// Columns of zeros to its left.
    pub(crate) left: usize,
    /// Of the result. Windows that reach below or right of the input see zeros there.
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Whether the convolution is that of the input with every pixel as four.
    pub(crate) upsamples: bool,
}
