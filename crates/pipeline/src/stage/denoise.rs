//! From noise to latents: the loop over the scheduler's steps.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use sd_models::mmdit::Transformer;
use sd_weights::{Residency, WeightType};

use super::encode::EncodedPrompt;
use super::finite;
use crate::bundle::Bundle;
use crate::event::Interrupt;
use crate::recipe::Recipe;
use crate::request::{GuidanceScale, ImageSize};
use crate::scheduler::FlowMatchEuler;
use crate::seed::NormalStream;
use crate::{Error, Result};

const COMPONENT: &str = "transformer";

/// How the network is asked about the prompt and about the negative prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GuidancePasses {
    /// In one pass over a batch of two.
    Batched,
    /// In two passes, which hold half the activations.
    Separate,
}

impl GuidancePasses {
    /// Above this many patches the activations of a batch of two weigh more than reading the weights twice.
    const MOST_BATCHED_PATCHES: usize = 4096;

    /// Chosen by the picture's size alone, so that it is the same at every budget.
    pub fn for_patches(patches: usize) -> Self {
        if patches <= Self::MOST_BATCHED_PATCHES {
            Self::Batched
        } else {
            Self::Separate
        }
    }
}

/// Latents, and how many steps they have behind them: none where they are noise.
#[derive(Debug, Clone)]
pub struct Denoised {
    /// Steps that are done.
    pub steps: usize,
    /// `[1, channels, height / 8, width / 8]`, 32-bit numbers in the processor's memory.
    pub latents: Tensor,
}

/// The transformer with everything that is the same for all pictures of a run.
#[derive(Debug)]
pub struct Denoise<'a> {
    bundle: &'a Bundle,
    transformer: Transformer,
    scheduler: FlowMatchEuler,
    guidance_scale: GuidanceScale,
    passes: GuidancePasses,
    device: Device,
    /// The negative prompt first, where there is guidance.
    context: Tensor,
    pooled: Tensor,
    size: ImageSize,
}

impl<'a> Denoise<'a> {
    /// Reads the transformer. `prompts` holds the negative prompt and the prompt, or the prompt alone where
    /// the recipe's guidance does not guide.
    ///
    /// # Errors
    /// A file is wrong, the device has no room, or the picture is larger than the model's position table.
    pub fn load(
        bundle: &'a Bundle,
        recipe: &Recipe,
        prompts: &EncodedPrompt,
        device: &Device,
        weight_type: WeightType,
        residency: Residency,
    ) -> Result<Self> {
        let weights = bundle.weights(COMPONENT, device, weight_type, residency)?;
        let transformer = Transformer::new(weights, &bundle.transformer)?;
        let (rows, columns) = latent_sides(bundle, recipe.size);
        let patch = bundle.transformer.patch_size;
        let patches = (rows / patch) * (columns / patch);
        let this = Self {
            bundle,
            transformer,
            scheduler: FlowMatchEuler::new(&bundle.scheduler, recipe.steps, patches),
            guidance_scale: recipe.guidance_scale,
            passes: GuidancePasses::for_patches(patches),
            device: device.clone(),
            context: prompts.context.to_device(device)?,
            pooled: prompts.pooled.to_device(device)?,
            size: recipe.size,
        };
        this.transformer.load()?;
        Ok(this)
    }

    /// Asks the network in other passes than the picture's size suggests.
    pub fn with_passes(mut self, passes: GuidancePasses) -> Self {
        self.passes = passes;
        self
    }

    /// The noise of `seed`, which a picture begins as.
    ///
    /// # Errors
    /// There is no memory left.
    pub fn noise(&self, seed: u64) -> Result<Denoised> {
        let (rows, columns) = latent_sides(self.bundle, self.size);
        let channels = self.bundle.transformer.in_channels;
        let noise = NormalStream::new(seed).normals(channels * rows * columns);
        Ok(Denoised {
            steps: 0,
            latents: Tensor::from_vec(noise, (1, channels, rows, columns), &Device::Cpu)?,
        })
    }

    /// Takes the steps that `from` has still before it and gives the latents after the last. `on_step` is told
    /// after each step how many are done, the latents, and the step's time.
    ///
    /// # Errors
    /// The device fails, a value is not finite, or the run was interrupted.
    pub fn run(
        &self,
        from: Denoised,
        interrupt: &Interrupt,
        mut on_step: impl FnMut(usize, &Tensor, Duration),
    ) -> Result<Tensor> {
        let Denoised { steps, mut latents } = from;
        for (step, &timestep) in self.scheduler.timesteps().iter().enumerate().skip(steps) {
            interrupt.check()?;
            let start = Instant::now();
            let velocity = self.velocity(&latents, timestep)?;
            latents = self.scheduler.step(step, &latents, &velocity)?;
            finite::check(
                &latents,
                &format!("step {} of the denoising", step + 1),
                self.bundle,
                COMPONENT,
            )?;
            on_step(step + 1, &latents, start.elapsed());
        }
        Ok(latents)
    }

    /// The network's prediction, guided: the negative prompt's, moved along the difference to the prompt's.
    ///
    /// Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022.
    fn velocity(&self, latents: &Tensor, timestep: f32) -> Result<Tensor> {
        let latents = latents.to_device(&self.device)?;
        let ask = |latents: &Tensor, context: &Tensor, pooled: &Tensor| -> Result<Tensor> {
            let timesteps = vec![timestep; latents.dim(0)?];
            let predicted = self.transformer.forward(latents, &timesteps, context, pooled)?;
            Ok(predicted.to_dtype(DType::F32)?.to_device(&Device::Cpu)?)
        };
        if !self.guidance_scale.guides() {
            return ask(&latents, &self.context, &self.pooled);
        }
        let (without, with) = match self.passes {
            GuidancePasses::Batched => {
                let both = ask(
                    &Tensor::cat(&[&latents, &latents], 0)?,
                    &self.context,
                    &self.pooled,
                )?;
                (both.narrow(0, 0, 1)?, both.narrow(0, 1, 1)?)
            }
            GuidancePasses::Separate => {
                let one = |index: usize| -> Result<Tensor> {
                    ask(
                        &latents,
                        &self.context.narrow(0, index, 1)?,
                        &self.pooled.narrow(0, index, 1)?,
                    )
                };
                (one(0)?, one(1)?)
            }
        };
        Ok((&without + ((with - &without)? * self.guidance_scale.0)?)?)
    }
}

/// Rows and columns of the latents of a picture.
pub(crate) fn latent_sides(bundle: &Bundle, size: ImageSize) -> (usize, usize) {
    let factor = bundle.vae.downsampling();
    (size.height() / factor, size.width() / factor)
}

/// Refuses a picture that the model has no positions for, before anything is read.
pub(crate) fn check_size(bundle: &Bundle, size: ImageSize) -> Result<()> {
    let positions = bundle.transformer.pos_embed_max_size;
    let pixels_a_patch = bundle.transformer.patch_size * bundle.vae.downsampling();
    let longest = positions * pixels_a_patch;
    if size.width().max(size.height()) > longest {
        return Err(Error::TooLarge {
            wanted: size,
            longest,
        });
    }
    if !size.width().is_multiple_of(pixels_a_patch) || !size.height().is_multiple_of(pixels_a_patch) {
        let reason = format!("it draws in squares of {pixels_a_patch} pixels, which {size} is not made of");
        return Err(Error::PartsDoNotFit {
            folder: bundle.folder().root().to_owned(),
            reason,
        });
    }
    Ok(())
}
