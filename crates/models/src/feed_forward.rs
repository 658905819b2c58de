//! The feed-forward layers of transformers: two projections, the wider inside between them.

use candle_core::Tensor;
use sd_ops::{Linear, geglu, gelu_tanh, linear};
use sd_weights::{Result, Weights};

use crate::layers;

/// What a feed-forward layer does between its projections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    /// Gelu by its approximation.
    GeluTanh,
    /// Half of the features times the gelu of the other half.
    Geglu,
}

/// A feed-forward layer.
#[derive(Debug)]
pub(crate) struct FeedForward {
    up: Linear,
    down: Linear,
    inside: Inside,
}

impl FeedForward {
    /// How much wider it is inside, after its activation.
    pub(crate) const EXPANSION: usize = 4;

    pub(crate) fn new(weights: &Weights, width: usize, inside: Inside) -> Result<Self> {
        let inner = Self::EXPANSION * width;
        Ok(Self {
            up: layers::linear(&weights.scope("net.0.proj"), width, inside.before() * width)?,
            down: layers::linear(&weights.scope("net.2"), inner, width)?,
            inside,
        })
    }

    /// `tokens`, `[batch, tokens, width]`, a chunk of them at a time, so that the wider inside stays small.
    pub(crate) fn forward(&self, tokens: Tensor) -> candle_core::Result<Tensor> {
        let (batch, count, width) = tokens.dims3()?;
        let rows = batch * count;
        let tokens = tokens.contiguous()?.reshape((rows, width))?;
        let result = Tensor::zeros((rows, width), tokens.dtype(), tokens.device())?;
        let chunk = Self::chunk(tokens.device().is_cpu());
        for first in (0..rows).step_by(chunk) {
            let inside = linear(&tokens.narrow(0, first, chunk.min(rows - first))?, &self.up)?;
            let inside = match self.inside {
                Inside::GeluTanh => gelu_tanh(&inside)?,
                Inside::Geglu => geglu(&inside)?,
            };
            result.slice_set(&linear(&inside, &self.down)?, 0, first)?;
        }
        result.reshape((batch, count, width))
    }

    /// Tokens that pass through at a time.
    pub(crate) fn chunk(on_processor: bool) -> usize {
        // The products' own bands on a processor, so that chunks change no bit of them; more where there are more
        // cores to keep busy.
        if on_processor { 1024 } else { 8192 }
    }
}

impl Inside {
    /// How much wider than a token the inside is before its activation.
    pub(crate) fn before(self) -> usize {
        match self {
            Self::GeluTanh => FeedForward::EXPANSION,
            Self::Geglu => 2 * FeedForward::EXPANSION,
        }
    }
}
