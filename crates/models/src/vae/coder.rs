//! What the encoder and the decoder share: a list of blocks over banded feature maps.

use candle_core::{DType, Tensor};
use sd_ops::Capabilities;
use sd_weights::{Blocks, Naming, Weights};

use super::banded::{BandedTensor, Banding};
use super::config::Config;
use super::footprint::Kernels;
use crate::Result;
use crate::footprint::held_bytes;

/// A block of the encoder or of the decoder.
pub(super) trait CoderBlock: Sized + Send + Sync + 'static {
    /// The block at `index`, with `weights` of the whole autoencoder. Block 0 is the entry, the last one the
    /// exit, and between them are the levels in the order of the forward pass.
    fn new(index: usize, weights: &Weights, config: &Config) -> sd_weights::Result<Self>;

    /// The feature map after this block.
    fn forward(&self, x: BandedTensor) -> candle_core::Result<BandedTensor>;
}

/// The encoder or the decoder of an autoencoder.
#[derive(Debug)]
pub(super) struct Coder<B> {
    pub(super) config: Config,
    pub(super) activation_type: DType,
    /// Bytes of its weights.
    pub(super) weight_bytes: u64,
    /// The banding to use in place of the default for an image's size.
    pub(super) banding: Option<Banding>,
    capabilities: &'static Capabilities,
    blocks: Blocks<B>,
}

impl<B: CoderBlock> Coder<B> {
    /// The coder whose tensors, among `weights` of the whole autoencoder, have one of `prefixes`. It reads no
    /// weights yet.
    ///
    /// # Errors
    /// The configuration is not supported, or tensors are missing or have other shapes.
    pub(super) fn new(weights: Weights, config: &Config, prefixes: [&str; 2]) -> Result<Self> {
        config.check()?;
        let weights = weights.in_diffusers_naming(Naming::OLD_DIFFUSERS_VAE);
        let activation_type = weights.options().activation_type();
        let weight_bytes = held_bytes(&weights, |name| {
            prefixes.iter().any(|prefix| name.starts_with(prefix))
        });
        let capabilities = Capabilities::of(&weights.options().device);
        let of_blocks = config.clone();
        let scopes = vec![weights; config.block_out_channels.len() + 2];
        let blocks = Blocks::new(scopes, move |index, weights| B::new(index, weights, &of_blocks))?;
        Ok(Self {
            config: config.clone(),
            activation_type,
            weight_bytes,
            banding: None,
            capabilities,
            blocks,
        })
    }

    /// Reads the weights that stay in memory.
    ///
    /// # Errors
    /// A file is damaged.
    /// What predictions of memory ask of the device.
    pub(super) fn kernels(&self) -> Kernels {
        Kernels {
            capabilities: self.capabilities,
            activation_type: self.activation_type,
        }
    }

    pub(super) fn load(&self) -> Result<()> {
        Ok(self.blocks.load()?)
    }

    /// The banding for `batch` latents of `height` and `width`.
    pub(super) fn banding(&self, batch: usize, height: usize, width: usize) -> Banding {
        let by_size = || self.config.banding([batch, height, width], self.capabilities);
        self.banding.unwrap_or_else(by_size)
    }

    /// The result of all blocks for `x`.
    ///
    /// # Errors
    /// A file is damaged, or the device fails.
    pub(super) fn forward(&self, mut x: BandedTensor) -> Result<Tensor> {
        for block in self.blocks.pass()? {
            x = block?.forward(x)?;
        }
        Ok(x.joined()?)
    }
}
