//! ControlNets for the transformers of Stable Diffusion 3 and 3.5: diffusers' `SD3ControlNetModel`.
//!
//! Zhang, Rao and Agrawala, "Adding Conditional Control to Text-to-Image Diffusion Models", 2023. A second,
//! shorter list of blocks sees a control image beside the latents, and adds residuals to the image tokens
//! between the transformer's blocks. There are two kinds: one reads the text as the transformer does; the
//! ones from Stability AI for Large read no text and take the transformer's tokens.

mod config;
mod footprint;
mod pass;
mod work;

use candle_core::{DType, Tensor};
use sd_ops::{Linear, converted};
use sd_weights::{Blocks, Residency, Weights};

pub use config::Config;
pub(super) use pass::ControlPass;

use super::block::JointBlock;
use super::block_kind::{BlockKind, ContextStream};
use super::conditioning::{Conditioner, Conditioning};
use super::patches::PatchEmbedding;
use super::position::Positions;
use super::{PATCHES, refuse};
use crate::{Result, layers, mmdit};

/// The name of the network in errors.
const NETWORK: &str = "ControlNet";
/// The scope of the control image's patch embedding.
const CONTROL_IMAGE: &str = "pos_embed_input.proj";

/// A network that makes a transformer follow a control image.
#[derive(Debug)]
pub struct ControlNet {
    config: Config,
    /// The configuration of the transformer whose blocks it has.
    network: mmdit::Config,
    kinds: Vec<BlockKind>,
    weights: Weights,
    conditioner: Conditioner,
    control_image: Blocks<PatchEmbedding>,
    /// None if it takes the transformer's tokens.
    patches: Option<Blocks<PatchEmbedding>>,
    /// None if its tokens have no position embedding of their own.
    positions: Option<Positions>,
    /// Joint blocks and the projections of their residuals, in turn.
    blocks: Blocks<ControlBlock>,
    activation_type: DType,
}

/// The conditions of a ControlNet in a run: those of its transformer, and the embedded control image.
///
/// A clone, or a part of the batch, shares the same tensors.
#[derive(Debug, Clone)]
pub struct Conditions {
    conditioning: Conditioning,
    /// `[patches, width]` in 32 bits; none if its tokens have no position embedding of their own.
    positions: Option<Tensor>,
    /// `[1, patches, width]`
    control_image: Tensor,
}

/// A ControlNet that takes part in a transformer's forward pass.
#[derive(Debug, Clone, Copy)]
pub struct Control<'a> {
    /// The network.
    pub network: &'a ControlNet,
    /// Its conditions for each of the transformer's inputs.
    pub conditions: &'a [Conditions],
    /// The factor of the residuals (diffusers: `controlnet_conditioning_scale`); 1 is as it was trained.
    pub scale: f64,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "two are in memory at a time, and their weights are on the heap"
)]
enum ControlBlock {
    /// A block of the transformer's architecture.
    Joint(JointBlock),
    /// The projection from the tokens of the block before to their residual.
    Residual(Linear),
}

impl Conditions {
    /// Number of texts: the batch size of the latents.
    pub fn texts(&self) -> usize {
        self.conditioning.texts()
    }

    /// The conditions of the text at `index` only, with the control image.
    ///
    /// # Panics
    /// There is no such text.
    pub fn only(&self, index: usize) -> Self {
        Self {
            conditioning: self.conditioning.only(index),
            ..self.clone()
        }
    }
}

impl ControlNet {
    /// The ControlNet that `config` describes. It reads no weights yet.
    ///
    /// # Errors
    /// The configuration is not supported, or tensors are missing or have other shapes.
    pub fn new(weights: Weights, config: &Config) -> Result<Self> {
        let network = config.network()?;
        let kinds = config.kinds();
        let once = weights.for_one_pass();
        let always = weights.with_residency(Residency::Resident);
        let (of_embedding, of_blocks, of_kinds) = (network.clone(), network.clone(), kinds.clone());
        let (channels, width) = (config.control_channels(), network.width());
        let patches = config.use_pos_embed.then(|| {
            let of_patches = network.clone();
            Blocks::single(always.scope(PATCHES), move |weights| {
                PatchEmbedding::new(weights, of_patches.in_channels, &of_patches)
            })
        });
        let positions = config.has_positions().then(|| Positions::new(&weights, &network));
        Ok(Self {
            conditioner: Conditioner::new(&weights, &kinds, &network)?,
            control_image: Blocks::single(once.scope(CONTROL_IMAGE), move |weights| {
                PatchEmbedding::new(weights, channels, &of_embedding)
            })?,
            patches: patches.transpose()?,
            positions: positions.transpose()?,
            blocks: Blocks::new(scopes(&weights, kinds.len()), move |index, weights| {
                Ok(if index.is_multiple_of(2) {
                    ControlBlock::Joint(JointBlock::new(of_kinds[index / 2], weights, &of_blocks)?)
                } else {
                    ControlBlock::Residual(layers::linear(weights, width, width)?)
                })
            })?,
            activation_type: weights.options().activation_type(),
            config: config.clone(),
            network,
            kinds,
            weights,
        })
    }

    /// Reads every block that stays in memory.
    ///
    /// # Errors
    /// A file is damaged, or the device is out of memory.
    pub fn load(&self) -> Result<()> {
        if let Some(patches) = &self.patches {
            patches.load()?;
        }
        Ok(self.blocks.load()?)
    }

    /// Computes the conditions of a run for all of its steps, in one pass over weights that are not used
    /// again. `timesteps`, `context` and `pooled` are the transformer's. `control_image`,
    /// `[1, control_channels, height, width]`, is the control image as latents of the size of the
    /// transformer's, with its extra channels.
    ///
    /// # Errors
    /// A shape does not fit, a file is damaged, or the device fails.
    pub fn condition(
        &self,
        timesteps: &[f32],
        context: &Tensor,
        pooled: &Tensor,
        control_image: &Tensor,
    ) -> Result<Conditions> {
        let (_, _, height, width) = control_image.dims4()?;
        let wanted = [1, self.config.control_channels(), height, width];
        if control_image.dims() != wanted {
            let found = format!("a control image of {:?}", control_image.dims());
            return refuse(NETWORK, found, format!("{wanted:?}"));
        }
        let latents = (height, width);
        let pooled = if self.config.force_zeros_for_pooled_projection {
            pooled.zeros_like()?
        } else {
            pooled.clone()
        };
        let context = self.reads_text().then_some(context);
        let (conditioning, _) = self
            .conditioner
            .condition(timesteps, context, &pooled, latents, NETWORK)?;
        let of_latents = |positions: &Positions| positions.of(&self.network, latents);
        let positions = self.positions.as_ref().map(of_latents).transpose()?;
        let control_image = converted(control_image, self.activation_type)?;
        Ok(Conditions {
            conditioning,
            positions,
            control_image: self.control_image.block(0)?.forward(&control_image, None)?,
        })
    }

    fn reads_text(&self) -> bool {
        self.kinds.iter().any(|kind| kind.context != ContextStream::None)
    }
}

/// The scopes of the blocks of a network of `layers` layers, in order.
fn scopes(weights: &Weights, layers: usize) -> impl Iterator<Item = Weights> {
    (0..layers).flat_map(|layer| {
        ["transformer_blocks", "controlnet_blocks"].map(|list| weights.scope(list).scope(layer))
    })
}
