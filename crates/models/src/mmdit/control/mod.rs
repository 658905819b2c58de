//! ControlNets for the transformers of Stable Diffusion 3 and 3.5: diffusers' `SD3ControlNetModel`.
//!
//! Zhang, Rao and Agrawala, "Adding Conditional Control to Text-to-Image Diffusion Models", 2023. A second, shorter list of
//! blocks, which sees a picture to be followed beside the latents, adds to the picture's tokens between the
//! transformer's blocks. There are two kinds: one reads the text as the transformer does; those that Stability AI made for
//! Large read no text, and take the transformer's tokens.

mod config;
mod footprint;
mod walk;

use candle_core::{DType, Tensor};
use sd_ops::Linear;
use sd_weights::{Blocks, Residency, Weights};

pub use config::Config;
pub(super) use walk::Walk;

use super::block::{BlockKind, JointBlock, TextRole};
use super::patches::PatchEmbedding;
use super::position::Positions;
use super::steering::{Conditioner, Steering};
use super::{PATCHES, refuse};
use crate::{Result, layers, mmdit};

/// The name of the network in errors.
const NETWORK: &str = "ControlNet";
/// Where the projection of the picture's patches lies.
const PICTURE: &str = "pos_embed_input.proj";

/// A network that makes a transformer follow a picture.
#[derive(Debug)]
pub struct ControlNet {
    config: Config,
    /// The transformer that it has blocks of.
    network: mmdit::Config,
    kinds: Vec<BlockKind>,
    weights: Weights,
    conditioner: Conditioner,
    picture: Blocks<PatchEmbedding>,
    /// Where it does not take the transformer's tokens.
    patches: Option<Blocks<PatchEmbedding>>,
    /// Where its own tokens have positions.
    positions: Option<Positions>,
    /// A block, what it adds, the next block, ….
    blocks: Blocks<ControlBlock>,
    activation_type: DType,
}

/// What steers a ControlNet in a run: what steers its transformer, and the picture that is followed.
///
/// Cloning it, or taking some of its texts, copies nothing.
#[derive(Debug, Clone)]
pub struct Conditions {
    steering: Steering,
    /// `[patches, width]` in 32 bits, where its own tokens have positions.
    positions: Option<Tensor>,
    /// `[1, patches, width]`
    picture: Tensor,
}

/// A ControlNet at work beside its transformer.
#[derive(Debug, Clone, Copy)]
pub struct Control<'a> {
    /// The network.
    pub network: &'a ControlNet,
    /// What steers it, for each of the transformer's inputs.
    pub conditions: &'a [Conditions],
    /// How strongly the picture is followed; 1 is as it was trained.
    pub scale: f64,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "two are in memory at a time, and their weights lie elsewhere"
)]
enum ControlBlock {
    /// A block as the transformer has it.
    Joint(JointBlock),
    /// What makes that which is added of the tokens of the block before.
    Adds(Linear),
}

impl Conditions {
    /// How many texts there are: the batch that latents must come in.
    pub fn texts(&self) -> usize {
        self.steering.texts()
    }

    /// The text at `index` alone, with the picture.
    ///
    /// # Panics
    /// There is no such text.
    pub fn only(&self, index: usize) -> Self {
        Self {
            steering: self.steering.only(index),
            ..self.clone()
        }
    }
}

impl ControlNet {
    /// The ControlNet that `config` describes. Nothing is read yet.
    ///
    /// # Errors
    /// The configuration cannot be used, or the file does not hold what it describes.
    pub fn new(weights: Weights, config: &Config) -> Result<Self> {
        let network = config.network()?;
        let kinds = config.kinds();
        let once = weights.for_one_pass();
        let always = weights.with_residency(Residency::Resident);
        let (of_picture, of_blocks, of_kinds) = (network.clone(), network.clone(), kinds.clone());
        let (channels, width) = (config.picture_channels(), network.width());
        let patches = config.use_pos_embed.then(|| {
            let of_patches = network.clone();
            Blocks::single(always.scope(PATCHES), move |weights| {
                PatchEmbedding::new(weights, of_patches.in_channels, &of_patches)
            })
        });
        let positions = config.has_positions().then(|| Positions::new(&weights, &network));
        Ok(Self {
            conditioner: Conditioner::new(&weights, &kinds, &network)?,
            picture: Blocks::single(once.scope(PICTURE), move |weights| {
                PatchEmbedding::new(weights, channels, &of_picture)
            })?,
            patches: patches.transpose()?,
            positions: positions.transpose()?,
            blocks: Blocks::new(scopes(&weights, kinds.len()), move |index, weights| {
                Ok(if index.is_multiple_of(2) {
                    ControlBlock::Joint(JointBlock::new(of_kinds[index / 2], weights, &of_blocks)?)
                } else {
                    ControlBlock::Adds(layers::linear(weights, width, width)?)
                })
            })?,
            activation_type: weights.options().activation_type(),
            config: config.clone(),
            network,
            kinds,
            weights,
        })
    }

    /// Reads every block that is to stay in memory.
    ///
    /// # Errors
    /// A file is wrong, or the device has no room.
    pub fn load(&self) -> Result<()> {
        if let Some(patches) = &self.patches {
            patches.load()?;
        }
        Ok(self.blocks.load()?)
    }

    /// What steers a run, for all of its steps: one pass over weights that are not needed again. `timesteps`, `context` and
    /// `pooled` are the transformer's; `picture`, `[1, picture_channels, height, width]`, has become latents of the size of
    /// the transformer's, and what comes beside.
    ///
    /// # Errors
    /// A shape does not fit, a file is wrong, or the device fails.
    pub fn condition(
        &self,
        timesteps: &[f32],
        context: &Tensor,
        pooled: &Tensor,
        picture: &Tensor,
    ) -> Result<Conditions> {
        let (_, _, height, width) = picture.dims4()?;
        let wanted = [1, self.config.picture_channels(), height, width];
        if picture.dims() != wanted {
            let found = format!("a picture {:?}", picture.dims());
            return refuse(NETWORK, found, format!("{wanted:?}"));
        }
        let latents = (height, width);
        let pooled = if self.config.force_zeros_for_pooled_projection {
            pooled.zeros_like()?
        } else {
            pooled.clone()
        };
        let context = self.reads_text().then_some(context);
        let (steering, _) = self
            .conditioner
            .steer(timesteps, context, &pooled, latents, NETWORK)?;
        let of_latents = |positions: &Positions| positions.of(&self.network, latents);
        let positions = self.positions.as_ref().map(of_latents).transpose()?;
        let picture = picture.to_dtype(self.activation_type)?;
        Ok(Conditions {
            steering,
            positions,
            picture: self.picture.block(0)?.forward(&picture, None)?,
        })
    }

    fn reads_text(&self) -> bool {
        self.kinds.iter().any(|kind| kind.text != TextRole::IsAbsent)
    }
}

/// Where the blocks of a network of so many `layers` lie, in their order.
fn scopes(weights: &Weights, layers: usize) -> impl Iterator<Item = Weights> {
    (0..layers).flat_map(|layer| {
        ["transformer_blocks", "controlnet_blocks"].map(|list| weights.scope(list).scope(layer))
    })
}
