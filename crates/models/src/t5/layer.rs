//! T5's layers are split into halves. Each half is a block of its own: whole layers would need half as much
//! memory again.

use candle_core::Tensor;
use sd_weights::{Result, Weights};

use super::Config;
use super::attention::SelfAttention;
use super::feed_forward::FeedForward;

/// Halves of a layer.
const HALVES: usize = 2;

/// One half of a layer: self-attention or feed-forward. Nothing in it has a bias.
#[derive(Debug)]
pub(super) enum Half {
    Attention(SelfAttention),
    FeedForward(FeedForward),
}

impl Half {
    /// The scopes of all halves, in order, inside that of the encoder.
    pub(super) fn scopes(encoder: &Weights, layers: usize) -> impl Iterator<Item = Weights> {
        let blocks = encoder.scope("block");
        (0..HALVES * layers).map(move |half| {
            let layer = blocks.scope(half / HALVES);
            layer.scope("layer").scope(half % HALVES)
        })
    }

    pub(super) fn new(index: usize, weights: &Weights, config: &Config) -> Result<Self> {
        Ok(match index % HALVES {
            0 => Self::Attention(SelfAttention::new(weights, config)?),
            _ => Self::FeedForward(FeedForward::new(weights, config)?),
        })
    }

    /// `x`, `[texts, tokens, features]`, after this half; `bias` is added to the scores of attention.
    pub(super) fn forward(&self, x: &Tensor, bias: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Attention(attention) => attention.forward(x, bias),
            Self::FeedForward(feed_forward) => feed_forward.forward(x),
        }
    }
}
