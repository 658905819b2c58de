//! From noise to latents: the loop over the scheduler's steps.

use candle_core::{DType, Device, Tensor};
use sd_models::mmdit::{Conditions, Input, Transformer};
use sd_weights::Holding;

use super::encode::EncodedPrompt;
use super::finite;
use crate::bundle::Bundle;
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
    /// Of the negative prompt first, where there is guidance.
    conditions: Conditions,
    latent_sides: (usize, usize),
}

impl<'a> Denoise<'a> {
    /// Computes what steers all steps, and then reads the transformer. `prompts` holds the negative prompt and the
    /// prompt, or the prompt alone where the recipe's guidance does not guide.
    ///
    /// # Errors
    /// A file is wrong, the device has no room, or the picture is larger than the model's position table.
    pub fn load(
        bundle: &'a Bundle,
        recipe: &Recipe,
        prompts: &EncodedPrompt,
        holding: &Holding,
    ) -> Result<Self> {
        let transformer = Transformer::new(bundle.weights(COMPONENT, holding)?, &bundle.transformer)?;
        let latent_sides = latent_sides(bundle, recipe.size);
        let patches = patches(bundle, latent_sides);
        let scheduler = FlowMatchEuler::new(&bundle.scheduler, recipe.steps, patches);
        let conditions = transformer.condition(
            scheduler.timesteps(),
            &prompts.context.to_device(&holding.device)?,
            &prompts.pooled.to_device(&holding.device)?,
            latent_sides,
        )?;
        transformer.load()?;
        Ok(Self {
            bundle,
            transformer,
            scheduler,
            guidance_scale: recipe.guidance_scale,
            passes: GuidancePasses::for_patches(patches),
            device: holding.device.clone(),
            conditions,
            latent_sides,
        })
    }

    /// Asks the network in other passes than the picture's size suggests.
    pub fn with_passes(mut self, passes: GuidancePasses) -> Self {
        self.passes = passes;
        self
    }

    /// Steps from noise to latents.
    pub fn steps(&self) -> usize {
        self.scheduler.timesteps().len()
    }

    /// The noise of `seed`, which a picture begins as.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn noise(&self, seed: u64) -> Result<Denoised> {
        let channels = self.bundle.transformer.in_channels;
        let (rows, columns) = self.latent_sides;
        let noise = NormalStream::new(seed).normals(channels * rows * columns);
        Ok(Denoised {
            steps: 0,
            latents: Tensor::from_vec(noise, (1, channels, rows, columns), &Device::Cpu)?,
        })
    }

    /// Takes each of `pictures`, which have all come equally far, one step further, in one pass over the network.
    ///
    /// # Errors
    /// The device fails, or a value is not finite.
    ///
    /// # Panics
    /// The pictures have not come equally far, or are finished.
    pub fn step(&self, pictures: &mut [Denoised]) -> Result<()> {
        let Some(step) = pictures.first().map(|picture| picture.steps) else {
            return Ok(());
        };
        assert!(
            step < self.steps() && pictures.iter().all(|picture| picture.steps == step),
            "pictures share a pass at the same step"
        );
        let velocities = self.velocities(pictures, step)?;
        for (picture, velocity) in pictures.iter_mut().zip(velocities) {
            picture.latents = self.scheduler.step(step, &picture.latents, &velocity)?;
            picture.steps = step + 1;
            let stage = format!("step {} of the denoising", step + 1);
            finite::check(&picture.latents, &stage, self.bundle, COMPONENT)?;
        }
        Ok(())
    }

    /// The network's prediction for each picture, guided: the negative prompt's, moved along the difference to the
    /// prompt's.
    ///
    /// Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022.
    fn velocities(&self, pictures: &[Denoised], step: usize) -> Result<Vec<Tensor>> {
        let texts: Vec<Conditions> = match self.passes {
            GuidancePasses::Batched => vec![self.conditions.clone()],
            GuidancePasses::Separate => (0..self.conditions.texts())
                .map(|text| self.conditions.only(text))
                .collect(),
        };
        let mut asked = Vec::with_capacity(pictures.len() * texts.len());
        for picture in pictures {
            let latents = picture.latents.to_device(&self.device)?;
            for conditions in &texts {
                asked.push((latents.repeat((conditions.texts(), 1, 1, 1))?, conditions));
            }
        }
        let inputs: Vec<Input<'_>> = asked
            .iter()
            .map(|(latents, conditions)| Input { latents, conditions })
            .collect();
        let predicted = self.transformer.forward(&inputs, step)?;
        let guided = predicted.chunks(texts.len()).map(|of_picture| {
            let predicted = Tensor::cat(of_picture, 0)?
                .to_dtype(DType::F32)?
                .to_device(&Device::Cpu)?;
            if !self.guidance_scale.guides() {
                return Ok(predicted);
            }
            let (without, with) = (predicted.narrow(0, 0, 1)?, predicted.narrow(0, 1, 1)?);
            Ok((&without + ((with - &without)? * self.guidance_scale.0)?)?)
        });
        guided.collect()
    }
}

/// Rows and columns of the latents of a picture.
pub(crate) fn latent_sides(bundle: &Bundle, size: ImageSize) -> (usize, usize) {
    let factor = bundle.vae.downsampling();
    (size.height() / factor, size.width() / factor)
}

/// The patches that latents are cut into.
pub(crate) fn patches(bundle: &Bundle, (rows, columns): (usize, usize)) -> usize {
    let side = bundle.transformer.patch_size;
    (rows / side) * (columns / side)
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
