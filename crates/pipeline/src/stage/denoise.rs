//! The denoising stage: for each evaluation the network predicts, and the sampler steps.

use candle_core::{Device, Shape, Tensor};
use sd_weights::{Residency, WeightOptions};

use super::control::ControlImages;
use super::guidance::guided;
use super::init_latents::InitLatents;
use crate::bundle::Bundle;
use crate::family::{ConditioningInputs, Denoiser, DenoiserInput, EncodedPrompt};
use crate::image_size::ImageSize;
use crate::recipe::Recipe;
use crate::request::{GuidanceScale, Strength};
use crate::scheduler::{Sampler, SamplerState};
use crate::seed::{ImageNoise, NoiseSource};
use crate::{Error, Result, device};

/// How classifier-free guidance evaluates the network for the prompt and for the negative prompt.
#[doc(alias = "classifier-free guidance")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CfgMode {
    /// In one forward pass over a batch of two.
    Batched,
    /// In two forward passes, which hold half the activations.
    Sequential,
}

impl CfgMode {
    /// Above this many patches the activations of a batch of two take more memory than is worth reading the
    /// weights once.
    const MOST_BATCHED_PATCHES: usize = 4096;

    /// The mode for an image of this many patches. It depends only on the size, so that it is the same at
    /// every budget.
    pub fn for_patches(patches: usize) -> Self {
        if patches <= Self::MOST_BATCHED_PATCHES {
            Self::Batched
        } else {
            Self::Sequential
        }
    }
}

/// How far the denoising of an image has come.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Evaluations of the network that are done.
    pub evaluations: usize,
    /// The latents, `f32` in host memory, and what the sampler remembers.
    pub sampler_state: SamplerState,
}

impl Progress {
    /// An image that starts as `latents`, before its first evaluation.
    pub(crate) fn from_latents(latents: Tensor) -> Self {
        Self {
            evaluations: 0,
            sampler_state: SamplerState::new(latents),
        }
    }
}

/// One image while it is denoised: its latents, its random numbers and its mask.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its latents and the evaluations that are done.
    pub progress: Progress,
    /// The latents without noise that the last evaluation predicts, if they are kept.
    pub(crate) predicted: Option<Tensor>,
    /// The random numbers of its seed, from the current evaluation on.
    noise: ImageNoise,
    inpainting: Option<Inpainting>,
}

/// The inputs of inpainting.
#[derive(Debug, Clone)]
struct Inpainting {
    /// `[1, 1, rows, columns]`: 1 where latents are replaced.
    mask: Tensor,
    /// The initial image's latents, and the noise that is added to them in each step; for a 4-channel
    /// network.
    original: Option<(Tensor, Tensor)>,
    /// The mask and the masked image's latents, `[1, 1 + channels, rows, columns]`; for a 9-channel inpainting model.
    mask_channels: Option<Tensor>,
}

/// The denoising network, its sampler, and the settings that all images of a run share.
#[derive(Debug)]
pub struct Denoise<'a> {
    bundle: &'a Bundle,
    network: Box<dyn Denoiser>,
    sampler: Sampler,
    guidance_scale: GuidanceScale,
    guidance_rescale: f64,
    cfg_mode: CfgMode,
    device: Device,
    /// How many prompts the network is conditioned on: two with classifier-free guidance.
    prompts: usize,
    latent_sides: (usize, usize),
    noise_source: NoiseSource,
    /// The strength of image-to-image.
    strength: Strength,
    is_img2img: bool,
    keeps_predicted: bool,
}

impl<'a> Denoise<'a> {
    /// Conditions the network for all evaluations, and loads it unless the first evaluation does. `prompts`
    /// holds the negative prompt and the prompt, or the prompt alone if there is no guidance. ControlNets
    /// stay in memory if `controls_stay`.
    ///
    /// # Errors
    /// A file is wrong, the device is out of memory, or the image is larger than the model supports.
    pub fn load(
        bundle: &'a Bundle,
        recipe: &Recipe,
        prompts: &EncodedPrompt,
        weight_options: &WeightOptions,
        controls_stay: bool,
    ) -> Result<Self> {
        let latent_sides = latent_sides(bundle, recipe.size);
        let sampler = recipe.sampler(bundle)?;
        let count = prompts.context.dim(0)?;
        let control_images = ControlImages::encode(bundle, weight_options)?;
        let control_options = weight_options.with_residency(if controls_stay {
            Residency::Resident
        } else {
            Residency::Streamed
        });
        let mut network = bundle.denoising_network(weight_options, &control_options)?;
        let inputs = ConditioningInputs {
            prompts,
            timesteps: sampler.timesteps(),
            add_time_ids: bundle.family.add_time_ids(recipe.size, count),
            guidance: bundle.family.takes_guidance().then_some(recipe.guidance_scale.0),
            latents: latent_sides,
            device: &weight_options.device,
        };
        network.condition(&inputs, &|index| control_images.get(index))?;
        if device::reads_before_passes(&weight_options.device) {
            network.load()?;
        }
        Ok(Self {
            bundle,
            network,
            guidance_scale: recipe.guidance_scale,
            guidance_rescale: recipe.guidance_rescale,
            cfg_mode: CfgMode::for_patches(patches(latent_sides)),
            sampler,
            device: weight_options.device.clone(),
            prompts: count,
            latent_sides,
            noise_source: recipe.rng,
            is_img2img: recipe.img2img.is_some(),
            strength: recipe
                .img2img
                .as_ref()
                .map_or(Strength::ALL, |img2img| img2img.strength),
            keeps_predicted: false,
        })
    }

    /// Keeps what each evaluation predicts in [`Sample::predicted`], if `keeps` says so.
    pub(crate) fn keeping_predicted(mut self, keeps: bool) -> Self {
        self.keeps_predicted = keeps;
        self
    }

    /// Sets another mode of classifier-free guidance than that of the image's size.
    pub fn with_cfg_mode(mut self, cfg_mode: CfgMode) -> Self {
        self.cfg_mode = cfg_mode;
        self
    }

    /// The sampler, with its timesteps.
    pub fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// Starts an image: as the noise of `seed`, or as the latents of `init` with the noise that the strength asks for.
    ///
    /// Random numbers are drawn in the order of diffusers' pipelines: for the initial image's latents, for the noise, for the
    /// masked image's latents. With [`NoiseSource::Philox`] those of the two images come from another stream.
    ///
    /// # Errors
    /// The device is out of memory, or a 9-channel inpainting model has no mask.
    pub fn begin(&self, seed: u64, init: Option<&InitLatents>) -> Result<Sample> {
        let mut noise = ImageNoise::new(self.noise_source, seed);
        let (rows, columns) = self.latent_sides;
        let shape = Shape::from((1, self.bundle.vae.latent_channels, rows, columns));
        let masked = init.and_then(|init| init.masked.as_ref());
        check_mask(self.bundle, masked.is_some())?;
        let takes_mask = self.bundle.takes_mask();
        // If everything is inpainted and the network takes masked latents, the initial image is not needed.
        let begins_as_noise = init.is_none() || masked.is_some() && self.strength == Strength::ALL;
        let original = match init {
            Some(init) if !(takes_mask && begins_as_noise) => Some(
                init.whole
                    .sample(self.bundle, &draw_sample(&mut noise, &shape)?)?,
            ),
            _ => None,
        };
        let first = draw(&mut noise, &shape)?;
        let latents = match &original {
            Some(original) if !begins_as_noise => self.sampler.add_noise(original, &first)?,
            _ => (&first * f64::from(self.sampler.initial_noise_scale()))?,
        };
        let inpainting = match masked {
            Some(masked) => {
                let rest = masked
                    .rest
                    .sample(self.bundle, &draw_sample(&mut noise, &shape)?)?;
                let mask_channels = Tensor::cat(&[&masked.mask, &rest], 1)?;
                Some(Inpainting {
                    mask: masked.mask.clone(),
                    original: original.filter(|_| !takes_mask).map(|original| (original, first)),
                    mask_channels: takes_mask.then_some(mask_channels),
                })
            }
            None => None,
        };
        Ok(Sample {
            progress: Progress {
                evaluations: 0,
                sampler_state: SamplerState::new(latents),
            },
            predicted: None,
            noise,
            inpainting,
        })
    }

    /// Restores the image of `seed` at `progress`. `init` is needed again only for a mask.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn restore(&self, seed: u64, init: Option<&InitLatents>, progress: Progress) -> Result<Sample> {
        let mut sample = match init {
            None if self.is_img2img => {
                // The noise was drawn after that of the initial latents.
                let mut noise = ImageNoise::new(self.noise_source, seed);
                let shape = progress.sampler_state.latents.shape();
                draw_sample(&mut noise, shape)?;
                draw(&mut noise, shape)?;
                Sample {
                    progress: progress.clone(),
                    predicted: None,
                    noise,
                    inpainting: None,
                }
            }
            init => self.begin(seed, init)?,
        };
        for evaluation in 0..progress.evaluations {
            for _ in 0..self.sampler.noise_draws(evaluation) {
                draw(&mut sample.noise, progress.sampler_state.latents.shape())?;
            }
        }
        Ok(Sample { progress, ..sample })
    }

    /// Advances `samples`, which have all had the same number of evaluations, by one more evaluation in one forward pass.
    ///
    /// # Errors
    /// The device fails, or a value is not finite.
    ///
    /// # Panics
    /// The samples have had different numbers of evaluations, or are finished.
    pub fn step(&self, samples: &mut [Sample]) -> Result<()> {
        let Some(evaluation) = samples.first().map(|sample| sample.progress.evaluations) else {
            return Ok(());
        };
        assert!(
            samples
                .iter()
                .all(|sample| sample.progress.evaluations == evaluation),
            "samples share a forward pass at the same evaluation"
        );
        let predictions = self.predictions(samples, evaluation)?;
        for (sample, prediction) in samples.iter_mut().zip(predictions) {
            let Sample {
                progress,
                predicted,
                noise,
                inpainting,
            } = sample;
            let mut fresh = |shape: &Shape| draw(noise, shape);
            let sampler_state = &mut progress.sampler_state;
            if self.keeps_predicted {
                *predicted = Some(self.sampler.predicted_original_sample(
                    evaluation,
                    &prediction,
                    sampler_state,
                )?);
            }
            self.sampler
                .step(evaluation, &prediction, sampler_state, &mut fresh)?;
            if let Some(inpainting) = inpainting {
                sampler_state.latents =
                    inpainting.keep_the_rest(&self.sampler, evaluation + 1, &sampler_state.latents)?;
            }
            progress.evaluations = evaluation + 1;
            let stage = format!("step {} of the denoising", evaluation + 1);
            self.bundle
                .check_latents(&progress.sampler_state.latents, &stage)?;
        }
        Ok(())
    }

    /// The prediction for each sample, after classifier-free guidance where there is a negative prompt.
    fn predictions(&self, samples: &[Sample], evaluation: usize) -> Result<Vec<Tensor>> {
        // The only prompt of each forward pass; None for all prompts in one pass.
        let passes: Vec<Option<usize>> = match self.cfg_mode {
            CfgMode::Batched => vec![None],
            CfgMode::Sequential => (0..self.prompts).map(Some).collect(),
        };
        let mut inputs = Vec::with_capacity(samples.len() * passes.len());
        for sample in samples {
            let latents = &sample.progress.sampler_state.latents;
            let latents = self.sampler.scale_input(evaluation, latents)?;
            let inpainting = sample.inpainting.as_ref();
            let mask_channels = inpainting.and_then(|inpainting| inpainting.mask_channels.as_ref());
            let plain = latents.to_device(&self.device)?;
            let latents = match mask_channels {
                Some(mask_channels) => Tensor::cat(&[&latents, mask_channels], 1)?.to_device(&self.device)?,
                None => plain.clone(),
            };
            for &prompt in &passes {
                let once_a_prompt = (if prompt.is_some() { 1 } else { self.prompts }, 1, 1, 1);
                inputs.push(DenoiserInput {
                    latents: latents.repeat(once_a_prompt)?,
                    plain: plain.repeat(once_a_prompt)?,
                    prompt,
                });
            }
        }
        let predicted = self.network.forward(&inputs, evaluation)?;
        let guided = predicted.chunks(passes.len()).map(|of_sample| {
            let predicted = device::to_host(&Tensor::cat(of_sample, 0)?)?;
            if predicted.dim(0)? == 1 {
                return Ok(predicted);
            }
            let (without, with) = (predicted.narrow(0, 0, 1)?, predicted.narrow(0, 1, 1)?);
            Ok(guided(
                &without,
                &with,
                self.guidance_scale,
                self.guidance_rescale,
            )?)
        });
        guided.collect()
    }
}

impl Inpainting {
    /// Restores the initial image's latents outside the mask, with the noise of the step after `evaluations`.
    ///
    /// Lugmayr et al., "RePaint: Inpainting using Denoising Diffusion Probabilistic Models", 2022, without
    /// its resampling.
    fn keep_the_rest(&self, sampler: &Sampler, evaluations: usize, latents: &Tensor) -> Result<Tensor> {
        let Some((original, noise)) = &self.original else {
            return Ok(latents.clone());
        };
        let original = sampler.add_noise_at(evaluations, original, noise)?;
        let stays = self.mask.affine(-1.0, 1.0)?;
        Ok((original.broadcast_mul(&stays)? + latents.broadcast_mul(&self.mask)?)?)
    }
}

/// The next random numbers of `noise` for a sample of an encoded image, in host memory.
fn draw_sample(noise: &mut ImageNoise, shape: &Shape) -> candle_core::Result<Tensor> {
    Tensor::from_vec(noise.sample_normals(shape.elem_count()), shape, &Device::Cpu)
}

/// The next random numbers of `noise`, in host memory.
fn draw(noise: &mut ImageNoise, shape: &Shape) -> candle_core::Result<Tensor> {
    Tensor::from_vec(noise.normals(shape.elem_count()), shape, &Device::Cpu)
}

/// How many prompts the network is conditioned on: two with classifier-free guidance.
pub(crate) fn texts(bundle: &Bundle, scale: GuidanceScale) -> usize {
    if scale.guides() && !bundle.family.takes_guidance() {
        2
    } else {
        1
    }
}

/// Rows and columns of an image's latents.
pub(crate) fn latent_sides(bundle: &Bundle, size: ImageSize) -> (usize, usize) {
    let factor = bundle.vae.downsampling();
    (size.height() / factor, size.width() / factor)
}

/// How many patches of 2x2 latents an image has.
pub(crate) fn patches((rows, columns): (usize, usize)) -> usize {
    const SIDE: usize = 2;
    rows.div_ceil(SIDE) * columns.div_ceil(SIDE)
}

/// Refuses a recipe that the model of `bundle` does not support, before any weight is read.
pub(crate) fn check(bundle: &Bundle, recipe: &Recipe) -> Result<()> {
    let img2img = recipe.img2img.as_ref();
    check_mask(bundle, img2img.is_some_and(|img2img| img2img.mask.is_some()))?;
    check_size(bundle, recipe.size)
}

fn check_mask(bundle: &Bundle, is_masked: bool) -> Result<()> {
    if bundle.takes_mask() && !is_masked {
        return Err(Error::NeedsMask {
            folder: bundle.source().path().to_owned(),
        });
    }
    Ok(())
}

fn check_size(bundle: &Bundle, size: ImageSize) -> Result<()> {
    let factor = bundle.vae.downsampling();
    let layout = bundle.family.latents();
    let longest = layout.longest_side.map(|side| side * factor);
    if let Some(longest) = longest.filter(|&longest| size.width().max(size.height()) > longest) {
        return Err(Error::TooLarge {
            wanted: size,
            longest,
        });
    }
    let square = layout.patch_size * factor;
    if !size.width().is_multiple_of(square) || !size.height().is_multiple_of(square) {
        let reason = format!("its width and height must be multiples of {square} pixels, and {size} is not");
        return Err(Error::PartsDoNotFit {
            folder: bundle.source().path().to_owned(),
            reason,
        });
    }
    Ok(())
}
