//! The feed-forward layers of transformers: two projections around a hidden layer.

use candle_core::Tensor;
use sd_ops::{
    Capabilities, Linear, Parts, linear_gated_residual, linear_geglu, linear_gelu_tanh, linear_residual,
};
use sd_weights::{Result, Weights};

use crate::{Work, layers};

/// The activation of a feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HiddenActivation {
    /// GELU by the tanh approximation.
    GeluTanh,
    /// GEGLU: half of the features times the GELU of the other half.
    Geglu,
}

/// A feed-forward layer.
#[derive(Debug)]
pub(crate) struct FeedForward {
    up: Linear,
    down: Linear,
    activation: HiddenActivation,
}

impl FeedForward {
    /// Hidden features after the activation, in multiples of the width.
    const EXPANSION: usize = 4;

    pub(crate) fn new(weights: &Weights, width: usize, activation: HiddenActivation) -> Result<Self> {
        let inner = Self::EXPANSION * width;
        Ok(Self {
            up: layers::linear(&weights.scope("net.0.proj"), width, activation.before() * width)?,
            down: layers::linear(&weights.scope("net.2"), inner, width)?,
            activation,
        })
    }

    /// `residual` plus the layer's result for `tokens`, `[batch, tokens, width]` both, times `gates`,
    /// `[batch, width]`, if given. Tokens are processed in chunks, so that the hidden features stay small.
    pub(crate) fn add_to(
        &self,
        residual: &Tensor,
        gates: Option<&Tensor>,
        tokens: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let (batch, count, width) = tokens.dims3()?;
        let (texts, chunk) = Self::chunk(batch, count, Capabilities::of(tokens.device()));
        if (texts, chunk) == (batch, count) {
            return self.chunk_added_to(residual, gates, tokens);
        }
        let mut result = Parts::new(&[batch * count, width], tokens.dtype(), tokens.device())?;
        for text in 0..batch {
            let gates = gates.map(|gates| gates.narrow(0, text, 1)).transpose()?;
            for first in (0..count).step_by(chunk) {
                let of = |all: &Tensor| all.narrow(0, text, 1)?.narrow(1, first, chunk.min(count - first));
                let changed = self.chunk_added_to(&of(residual)?, gates.as_ref(), &of(tokens)?)?;
                result.put(&changed.squeeze(0)?, 0, text * count + first)?;
            }
        }
        result.whole().reshape((batch, count, width))
    }

    fn chunk_added_to(
        &self,
        residual: &Tensor,
        gates: Option<&Tensor>,
        tokens: &Tensor,
    ) -> candle_core::Result<Tensor> {
        let hidden = match self.activation {
            HiddenActivation::GeluTanh => linear_gelu_tanh(tokens, &self.up)?,
            HiddenActivation::Geglu => linear_geglu(tokens, &self.up)?,
        };
        match gates {
            Some(gates) => linear_gated_residual(residual, gates, &hidden, &self.down),
            None => linear_residual(residual, &hidden, &self.down),
        }
    }

    /// Whether `count` tokens of each of `texts` texts are one chunk.
    pub(crate) fn takes_at_once(texts: usize, count: usize, capabilities: &Capabilities) -> bool {
        Self::chunk(texts, count, capabilities) == (texts, count)
    }

    /// Texts of a chunk, and tokens of each: all, or some of one text.
    fn chunk(batch: usize, count: usize, capabilities: &Capabilities) -> (usize, usize) {
        let most = capabilities.saturating_rows;
        if batch * count <= most {
            (batch, count)
        } else {
            (1, count.min(most))
        }
    }

    /// The arithmetic of a layer for `rows` tokens.
    pub(crate) fn work(activation: HiddenActivation, rows: usize, width: usize) -> Work {
        let inner = Self::EXPANSION * width;
        Work::linear(rows, width, activation.before() * width).and(Work::linear(rows, inner, width))
    }

    /// Values that are alive in a layer beside its tokens, the residual and the result.
    pub(crate) fn workspace(
        activation: HiddenActivation,
        (batch, count): (usize, usize),
        width: usize,
        capabilities: &Capabilities,
    ) -> usize {
        let (texts, chunk) = Self::chunk(batch, count, capabilities);
        let fuses = capabilities.fuses_epilogues;
        // Where the activation is not fused, the hidden features before it are alive too; where it is, gates may be.
        let before = match activation {
            _ if !fuses => activation.before(),
            HiddenActivation::Geglu if capabilities.stores_gates => Self::EXPANSION,
            _ => 0,
        };
        // The product where the residual is not fused, or a chunk's result until it is copied.
        let result = usize::from(!fuses || (texts, chunk) != (batch, count));
        texts * chunk * (before + Self::EXPANSION + result) * width
    }
}

impl HiddenActivation {
    /// Hidden features before the activation, in multiples of the width.
    fn before(self) -> usize {
        match self {
            Self::GeluTanh => FeedForward::EXPANSION,
            Self::Geglu => 2 * FeedForward::EXPANSION,
        }
    }
}
