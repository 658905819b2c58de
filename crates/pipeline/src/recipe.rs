//! A recipe: a request with every setting known. It is a pure function of the request and the model's files.

use std::path::PathBuf;

use serde::Serialize;

use crate::bundle::Bundle;
use crate::choices::Choices;
use crate::family::Task;
use crate::image_size::ImageSize;
use crate::pipeline_class::PipelineClass;
use crate::request::{GuidanceScale, Names, RefinerChoice, Request, Strength};
use crate::scheduler::{Refusal, Sampler, SamplerKind, ScheduleKind};
use crate::seed::{NoiseSource, Seeds};
use crate::{Error, Result, stage};

/// The settings of image-to-image and inpainting.
#[doc(alias = "image-to-image")]
#[doc(alias = "inpainting")]
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Img2Img {
    /// The file of the initial image. A refiner has none: it takes the image of the base model.
    pub image: Option<PathBuf>,
    /// The inpainting mask, an image of the same size: white where pixels are replaced.
    pub mask: Option<PathBuf>,
    /// How much noise is added to the initial image.
    pub strength: Strength,
}

/// The part of the denoising schedule that a model runs, as base and refiner share it in diffusers' "ensemble of experts".
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub enum DenoisingRange {
    /// All of it.
    #[default]
    #[serde(rename = "full")]
    Full,
    /// Up to this fraction, from 0 to 1.
    #[doc(alias = "denoising_end")]
    #[serde(rename = "denoising_end")]
    End(f64),
    /// From this fraction on.
    #[doc(alias = "denoising_start")]
    #[serde(rename = "denoising_start")]
    Start(f64),
}

/// Every setting of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recipe {
    /// The name that the user gave the model.
    pub model: String,
    /// What the images show.
    pub prompt: String,
    /// The negative prompt; empty by default.
    pub negative_prompt: String,
    /// The number of images.
    pub images: usize,
    /// The seeds of the images.
    #[serde(rename = "seed")]
    pub seeds: Seeds,
    /// The generator of the noise.
    pub rng: NoiseSource,
    /// Denoising steps.
    pub steps: usize,
    /// The images' size.
    pub size: ImageSize,
    /// The part of the denoising schedule that the model runs.
    pub denoising_range: DenoisingRange,
    /// The settings of image-to-image or inpainting; None for text-to-image.
    pub img2img: Option<Img2Img>,
    /// The guidance scale.
    pub guidance_scale: GuidanceScale,
    /// The guidance rescale, from 0 for none to 1.
    pub guidance_rescale: f64,
    /// The sampler.
    pub sampler: SamplerKind,
    /// The noise schedule.
    pub schedule: ScheduleKind,
    /// How many more of CLIP's last layers are skipped.
    pub clip_skip: usize,
    /// The user's names of styles and presets.
    pub names: Names,
    /// The output folder.
    pub output: PathBuf,
    /// What the request chose and these settings do not show.
    pub choices: Choices,
}

impl Recipe {
    /// Fills in the open settings of `request`: first with what the model's maker recommends, then with what
    /// its files and its family say. `init_size` is the size of the initial image of image-to-image.
    ///
    /// # Errors
    /// The model's own sampler is not supported, and the request names none.
    pub fn new(request: &Request, bundle: &Bundle, init_size: Option<ImageSize>) -> Result<Self> {
        let recommended = request.model.recommended;
        let defaults = bundle.defaults();
        let img2img = request.init.as_ref().map(|init| Img2Img {
            image: Some(init.image.clone()),
            mask: init.mask.clone(),
            strength: init.strength.unwrap_or(match init.mask {
                Some(_) => Strength::ALL,
                None => Strength::IMG2IMG,
            }),
        });
        let class = PipelineClass::new(bundle, task(img2img.as_ref()), !request.controls.is_empty());
        let sampler = match request.sampler.or(recommended.sampler) {
            Some(sampler) => bundle.scheduler.sampler_called(sampler),
            None => own_sampler(bundle, class)?,
        };
        Ok(Self {
            model: request.model.name.clone(),
            prompt: request.prompt.clone(),
            negative_prompt: request.negative_prompt.clone().unwrap_or_default(),
            images: request.images,
            seeds: request.seeds.clone(),
            rng: request.rng,
            steps: request.steps.or(recommended.steps).unwrap_or(defaults.steps),
            size: match request.size {
                Some(size) => size.resolve(defaults.size),
                None => init_size.unwrap_or(defaults.size),
            },
            denoising_range: match request.refiner.as_ref().and_then(|refiner| refiner.switch) {
                Some(switch) => DenoisingRange::End(switch),
                None => DenoisingRange::Full,
            },
            img2img,
            guidance_scale: request
                .guidance_scale
                .or(recommended.guidance_scale)
                .unwrap_or(defaults.guidance_scale),
            guidance_rescale: request.guidance_rescale,
            sampler,
            schedule: request.schedule,
            clip_skip: request.clip_skip,
            names: request.names.clone(),
            output: request.output.clone(),
            choices: Choices::of(request),
        })
    }

    /// The recipe of `refiner`, whose files are in `bundle`, for the images of this recipe.
    ///
    /// # Errors
    /// The refiner's own sampler is not supported.
    pub fn refined(&self, refiner: &RefinerChoice, bundle: &Bundle) -> Result<Self> {
        let recommended = refiner.model.recommended;
        let img2img = match refiner.switch {
            Some(_) => None,
            None => Some(Img2Img {
                image: None,
                mask: None,
                strength: refiner.strength,
            }),
        };
        let class = PipelineClass::new(bundle, task(img2img.as_ref()), false);
        Ok(Self {
            model: refiner.model.name.clone(),
            steps: match refiner.switch {
                Some(_) => self.steps,
                None => refiner.steps,
            },
            denoising_range: refiner.switch.map_or(DenoisingRange::Full, DenoisingRange::Start),
            img2img,
            guidance_scale: recommended
                .guidance_scale
                .unwrap_or(bundle.defaults().guidance_scale),
            // The base model's setting does not apply to the refiner, unless both share one denoising
            // schedule.
            guidance_rescale: match refiner.switch {
                Some(_) => self.guidance_rescale,
                None => 0.0,
            },
            sampler: match recommended.sampler {
                Some(sampler) => bundle.scheduler.sampler_called(sampler),
                None => own_sampler(bundle, class)?,
            },
            schedule: ScheduleKind::Automatic,
            clip_skip: 0,
            ..self.clone()
        })
    }

    /// The sampler for the model of `bundle`.
    ///
    /// # Errors
    /// The model does not support the sampler, its schedule or its steps, or a base model has no step before
    /// its refiner takes over.
    pub fn sampler(&self, bundle: &Bundle) -> Result<Sampler> {
        let patches = stage::patches(stage::latent_sides(bundle, self.size));
        let (kind, schedule) = (self.sampler, self.schedule);
        let repairs = self.pipeline_class(bundle).repairs();
        let scheduler = bundle.scheduler.repaired_for(repairs, kind, schedule);
        let steps_skipped = self.img2img.as_ref().map_or(0, |img2img| {
            bundle.scheduler.skipped_steps(self.steps, img2img.strength.0)
        });
        let of = |skipped| {
            Sampler::new(&scheduler, kind, schedule, self.steps, skipped, patches).map_err(refused(bundle))
        };
        let sampler = of(steps_skipped)?;
        let train = bundle.scheduler.train_timesteps();
        Ok(match self.denoising_range {
            DenoisingRange::Full => sampler,
            DenoisingRange::End(fraction) => {
                let evaluations = sampler.evaluations_before(fraction, train);
                if evaluations == 0 {
                    return Err(Error::NothingBeforeSwitch {
                        switch: fraction,
                        steps: sampler.steps(),
                    });
                }
                sampler.until(evaluations)
            }
            DenoisingRange::Start(fraction) => {
                of(sampler.steps_done(sampler.evaluations_before(fraction, train)))?
            }
        })
    }

    /// The pipeline class of diffusers that corresponds to this recipe with the model of `bundle`.
    pub(crate) fn pipeline_class<'a>(&self, bundle: &'a Bundle) -> PipelineClass<'a> {
        PipelineClass::new(bundle, task(self.img2img.as_ref()), !bundle.controls().is_empty())
    }

    /// The prompts that the network of `bundle` is conditioned on: the negative prompt, if there is guidance,
    /// and the prompt.
    pub(crate) fn texts(&self, bundle: &Bundle) -> Vec<&str> {
        let both = [self.negative_prompt.as_str(), self.prompt.as_str()];
        both[both.len() - stage::texts(bundle, self.guidance_scale)..].to_vec()
    }

    /// The seed of an image, counted from 0. Each image can be generated again alone with its seed.
    pub fn seed_of(&self, image: usize) -> u64 {
        self.seeds.of(image)
    }
}

/// The task of a recipe with these settings of image-to-image.
fn task(img2img: Option<&Img2Img>) -> Task {
    match img2img {
        None => Task::TextToImage,
        Some(img2img) if img2img.mask.is_none() => Task::ImageToImage,
        Some(_) => Task::Inpainting,
    }
}

/// The model's own sampler, as a pipeline of `class` configures it.
fn own_sampler(bundle: &Bundle, class: PipelineClass<'_>) -> Result<SamplerKind> {
    let own = bundle.scheduler.repaired(class.repairs()).sampler();
    own.map_err(refused(bundle))
}

fn refused(bundle: &Bundle) -> impl Fn(Refusal) -> Error {
    |reason| match reason {
        Refusal::FlowSchedule { .. } => Error::Schedule(reason),
        reason => Error::Scheduler {
            folder: bundle.source().path().to_owned(),
            reason,
        },
    }
}
