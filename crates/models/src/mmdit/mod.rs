//! The transformer of Stable Diffusion 3 and 3.5: diffusers' `SD3Transformer2DModel`.
//!
//! Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024. Two streams of
//! tokens, the picture's patches and the text, have weights of their own in every block and attend jointly.

mod block;
mod config;
mod head;
mod modulation;
mod position;
mod stem;
mod stream;

use candle_core::{DType, Tensor};
use sd_weights::{Blocks, Weights};

pub use config::Config;

use crate::{Error, Result};
use block::JointBlock;
use head::Head;
use stem::Stem;

/// The epsilon of the transformer's norms.
const NORM_EPSILON: f64 = 1e-6;

/// A transformer that predicts in which direction noisy latents lie from the picture to the noise.
#[derive(Debug)]
pub struct Transformer {
    config: Config,
    stem: Blocks<Stem>,
    blocks: Blocks<JointBlock>,
    head: Blocks<Head>,
    activation_type: DType,
}

impl Transformer {
    /// The transformer that `config` describes. Nothing is read yet.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn new(weights: Weights, config: &Config) -> Result<Self> {
        config.check()?;
        let activation_type = weights.holding().activation_type();
        let (of_stem, of_blocks, of_head) = (config.clone(), config.clone(), config.clone());
        let scopes: Vec<Weights> = (0..config.num_layers)
            .map(|layer| weights.scope("transformer_blocks").scope(layer))
            .collect();
        Ok(Self {
            stem: Blocks::single(weights.clone(), move |weights| Stem::new(weights, &of_stem)),
            blocks: Blocks::new(scopes, move |layer, weights| {
                JointBlock::new(layer, weights, &of_blocks)
            }),
            head: Blocks::single(weights, move |weights| Head::new(weights, &of_head)),
            config: config.clone(),
            activation_type,
        })
    }

    /// Reads every block that is to stay in memory.
    ///
    /// # Errors
    /// A file is wrong, or the device has no room.
    pub fn load(&self) -> Result<()> {
        self.stem.load()?;
        self.blocks.load()?;
        Ok(self.head.load()?)
    }

    /// The prediction for each of a batch.
    ///
    /// - `latents`: `[batch, in_channels, height, width]`, both sides multiples of the patch size
    /// - `timesteps`: one a picture, from 0 to 1000
    /// - `context`: one vector a token of text, `[batch, tokens, joint_attention_dim]`
    /// - `pooled`: one vector a text, `[batch, pooled_projection_dim]`
    ///
    /// gives `[batch, out_channels, height, width]`.
    ///
    /// # Errors
    /// A shape does not fit, a file is wrong, or the device fails.
    pub fn forward(
        &self,
        latents: &Tensor,
        timesteps: &[f32],
        context: &Tensor,
        pooled: &Tensor,
    ) -> Result<Tensor> {
        self.check_inputs(latents, timesteps, context, pooled)?;
        let (_, _, height, width) = latents.dims4()?;
        let (latents, context, pooled) = (
            latents.to_dtype(self.activation_type)?,
            context.to_dtype(self.activation_type)?,
            pooled.to_dtype(self.activation_type)?,
        );
        let stem = self.stem.block(0)?;
        let conditioning = stem.conditioning(timesteps, &pooled)?;
        let mut image = stem.patches(&latents)?;
        let mut text = stem.context(&context)?;
        drop(stem);
        for block in self.blocks.pass()? {
            let block = block?;
            let modulation = block.modulation(&conditioning)?;
            (image, text) = block.forward(&image, text, &modulation)?;
        }
        self.head.block(0)?.forward(&image, &conditioning, height, width)
    }

    fn check_inputs(
        &self,
        latents: &Tensor,
        timesteps: &[f32],
        context: &Tensor,
        pooled: &Tensor,
    ) -> Result<()> {
        let Config {
            in_channels,
            patch_size,
            joint_attention_dim,
            pooled_projection_dim,
            ..
        } = self.config;
        let refuse = |found: String, wanted: String| {
            Err(Error::Input {
                network: "transformer",
                found,
                wanted,
            })
        };
        let (batch, channels, height, width) = latents.dims4()?;
        if channels != in_channels || height % patch_size != 0 || width % patch_size != 0 {
            let wanted = format!("{in_channels} channels and sides that are multiples of {patch_size}");
            return refuse(format!("latents {:?}", latents.dims()), wanted);
        }
        let longest = self.config.pos_embed_max_size * patch_size;
        if height.max(width) > longest {
            return refuse(
                format!("latents {:?}", latents.dims()),
                format!("sides of at most {longest}"),
            );
        }
        if timesteps.len() != batch {
            return refuse(
                format!("{} timesteps for a batch of {batch}", timesteps.len()),
                "one each".to_owned(),
            );
        }
        let tokens = context.dim(1)?;
        if context.dims() != [batch, tokens, joint_attention_dim] {
            return refuse(
                format!("a context {:?}", context.dims()),
                format!("[{batch}, tokens, {joint_attention_dim}]"),
            );
        }
        if pooled.dims() != [batch, pooled_projection_dim] {
            return refuse(
                format!("a pooled text {:?}", pooled.dims()),
                format!("[{batch}, {pooled_projection_dim}]"),
            );
        }
        Ok(())
    }
}
