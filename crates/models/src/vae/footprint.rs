//! The bytes of the autoencoder.

use super::Decoder;
use crate::Footprint;
use crate::footprint::{held_bytes, product_scratch};

impl Decoder {
    /// The weights that decoding uses.
    pub fn weight_bytes(&self) -> u64 {
        held_bytes(&self.weights, |name| {
            name.starts_with("decoder.") || name.starts_with("post_quant_conv.")
        })
    }

    /// What decoding latents `[batch, channels, height, width]` takes beside the weights.
    pub fn footprint(&self, batch: usize, height: usize, width: usize) -> Footprint {
        let pixels = (batch * height * width * 64 * self.config.block_out_channels[0]) as u64;
        Footprint {
            activations: 4 * pixels + (400 << 20).min(8 * pixels),
            scratch: product_scratch(8192),
        }
    }
}
