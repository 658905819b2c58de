//! The conditions of the UNet: computed once for all steps, and shared by all images of a run.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;

use super::config::Config;
use crate::{Error, Result};

/// The inputs of the conditioning of a run.
#[derive(Debug, Clone, Copy)]
pub struct ConditioningInputs<'a> {
    /// The timestep of each step, from 0 to 1000.
    pub timesteps: &'a [f32],
    /// Text embeddings, `[texts, tokens, cross_attention_dim]`.
    pub context: &'a Tensor,
    /// The added conditions of a network with `addition_embed_type` `text_time`, as Stable Diffusion XL has
    /// it.
    pub added: Option<AddedConditions<'a>>,
    /// The guidance scale, for a guidance-distilled network (one with `time_cond_proj_dim`).
    pub guidance: Option<f64>,
    /// Rows and columns of the latents.
    pub latents: (usize, usize),
}

/// The added conditions of Stable Diffusion XL (diffusers: `added_cond_kwargs`), which are added to the time
/// embedding. Podell et al., "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis",
/// 2023, section 2.2.
#[derive(Debug, Clone, Copy)]
pub struct AddedConditions<'a> {
    /// Pooled text embeddings, `[texts, features]`.
    pub text_embeds: &'a Tensor,
    /// The time ids of each text: original height and width, top and left of the crop, target height and
    /// width; for the refiner an aesthetic score in place of the target size.
    pub time_ids: &'a [Vec<f32>],
}

/// The text embeddings, and the time embeddings of every step.
///
/// A clone, or a part of the batch, shares the same tensors.
#[derive(Debug, Clone)]
pub struct Conditions {
    all: Arc<All>,
    texts: Range<usize>,
}

#[derive(Debug)]
struct All {
    /// A row for every text of every step.
    time: Tensor,
    /// `[texts, tokens, features]`
    context: Tensor,
    latents: (usize, usize),
    steps: usize,
}

/// The conditions of one step.
#[derive(Debug)]
pub(crate) struct AtStep {
    /// `[texts, features]`
    pub(crate) time: Tensor,
    /// `[texts, tokens, features]`
    pub(crate) context: Tensor,
}

impl Conditions {
    pub(crate) fn new(
        time: Tensor,
        context: Tensor,
        inputs: &ConditioningInputs<'_>,
    ) -> candle_core::Result<Self> {
        let texts = 0..context.dim(0)?;
        let all = All {
            time,
            context,
            latents: inputs.latents,
            steps: inputs.timesteps.len(),
        };
        Ok(Self {
            all: Arc::new(all),
            texts,
        })
    }

    /// Number of texts: the batch size of the latents.
    pub fn texts(&self) -> usize {
        self.texts.len()
    }

    /// Number of steps that were prepared.
    pub fn steps(&self) -> usize {
        self.all.steps
    }

    /// Rows and columns of the latents that the conditions are for.
    pub fn latents(&self) -> (usize, usize) {
        self.all.latents
    }

    /// The conditions of the text at `index` only.
    ///
    /// # Panics
    /// There is no such text.
    pub fn only(&self, index: usize) -> Self {
        assert!(index < self.texts(), "there is no text {index}");
        let first = self.texts.start + index;
        Self {
            all: self.all.clone(),
            texts: first..first + 1,
        }
    }

    pub(crate) fn at_step(&self, step: usize) -> candle_core::Result<AtStep> {
        // Rows go by steps, and within a step by texts.
        let first = step * self.all.context.dim(0)? + self.texts.start;
        Ok(AtStep {
            time: self.all.time.narrow(0, first, self.texts())?,
            context: self.all.context.narrow(0, self.texts.start, self.texts())?,
        })
    }

    /// Refuses `latents` of another shape, and a step that was not prepared.
    pub(crate) fn check(
        &self,
        latents: &Tensor,
        channels: usize,
        step: usize,
        network: &'static str,
    ) -> Result<()> {
        let refuse = |found: String, wanted: String| {
            Err(Error::Input {
                network,
                found,
                wanted,
            })
        };
        let (height, width) = self.latents();
        let wanted = [self.texts(), channels, height, width];
        if latents.dims() != wanted {
            return refuse(format!("latents {:?}", latents.dims()), format!("{wanted:?}"));
        }
        if step >= self.steps() {
            return refuse(
                format!("step {step}"),
                format!("one of the {} that were prepared", self.steps()),
            );
        }
        Ok(())
    }
}

impl ConditioningInputs<'_> {
    /// Refuses inputs that do not fit the `network` that `config` describes.
    pub(crate) fn check(&self, config: &Config, network: &'static str) -> Result<()> {
        let refuse = |found: String, wanted: String| {
            Err(Error::Input {
                network,
                found,
                wanted,
            })
        };
        let (texts, tokens, _) = self.context.dims3()?;
        for level in config.levels(network)? {
            let wanted = [texts, tokens, level.context];
            if self.context.dims() != wanted || tokens == 0 {
                return refuse(
                    format!("a context {:?}", self.context.dims()),
                    format!("{wanted:?}"),
                );
            }
        }
        let (height, width) = self.latents;
        if height == 0 || width == 0 {
            return refuse(format!("latents of {height} by {width}"), "some".to_owned());
        }
        if self.guidance.is_some() && config.time_cond_proj_dim.is_none() {
            return refuse("a guidance scale".to_owned(), "none".to_owned());
        }
        match (&self.added, config.added_embedding()) {
            (None, None) => Ok(()),
            (Some(_), None) => refuse("a pooled text".to_owned(), "none".to_owned()),
            (None, Some(_)) => refuse("no pooled text".to_owned(), "one, with add_time_ids".to_owned()),
            (Some(given), Some(added)) => {
                let (pooled_texts, features) = given.text_embeds.dims2()?;
                let fits = |time_ids: &Vec<f32>| {
                    features + time_ids.len() * added.time_id_features == added.features
                };
                if pooled_texts == texts && given.time_ids.len() == texts && given.time_ids.iter().all(fits) {
                    return Ok(());
                }
                let add_time_ids: Vec<usize> = given.time_ids.iter().map(Vec::len).collect();
                refuse(
                    format!(
                        "a pooled text {:?} and {add_time_ids:?} add_time_ids",
                        given.text_embeds.dims()
                    ),
                    format!(
                        "{texts} texts that have {1} features with their add_time_ids of {0} features each",
                        added.time_id_features, added.features
                    ),
                )
            }
        }
    }
}
