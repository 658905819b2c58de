//! From a request to a recipe: every setting known. A pure function of the request and of what the model's
//! files say.

use std::path::PathBuf;

use serde::Serialize;

use crate::bundle::Bundle;
use crate::family::Task;
use crate::pipeline_class::PipelineClass;
use crate::request::{GuidanceScale, ImageSize, Names, RefinerChoice, Request, Strength};
use crate::scheduler::{Refusal, Sampler, SamplerKind, ScheduleKind};
use crate::{Error, Result, stage};

/// The settings of image-to-image and inpainting.
#[doc(alias = "image-to-image")]
#[doc(alias = "inpainting")]
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Img2Img {
    /// The initial image's file. A refiner has none: it takes the image that the base model made.
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
    #[serde(rename = "Whole")]
    Full,
    /// Up to this fraction, from 0 to 1.
    #[doc(alias = "denoising_end")]
    #[serde(rename = "Until")]
    End(f64),
    /// From this fraction on.
    #[doc(alias = "denoising_start")]
    #[serde(rename = "From")]
    Start(f64),
}

/// Every setting of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recipe {
    /// The model, as the user calls it.
    pub model: String,
    /// What the images show.
    pub prompt: String,
    /// What they should not show; empty where nothing was said.
    pub negative_prompt: String,
    /// How many images.
    pub images: usize,
    /// The first image's seed.
    pub seed: u64,
    /// Denoising steps.
    pub steps: usize,
    /// The images' size.
    pub size: ImageSize,
    /// The part of the denoising schedule that the model runs.
    #[serde(rename = "share")]
    pub denoising_range: DenoisingRange,
    /// Image-to-image or inpainting; text-to-image where there is none.
    #[serde(rename = "over")]
    pub img2img: Option<Img2Img>,
    /// Guidance.
    pub guidance_scale: GuidanceScale,
    /// How far guided predictions are scaled back to the spread of the prompt's own, from 0, not at all, to 1.
    pub guidance_rescale: f64,
    /// The sampler.
    pub sampler: SamplerKind,
    /// The noise schedule.
    pub schedule: ScheduleKind,
    /// How many more of CLIP's last layers are left out.
    pub clip_skip: usize,
    /// What the user called things that became settings.
    pub names: Names,
    /// The folder that the images go to.
    pub output: PathBuf,
}

impl Recipe {
    /// Fills in what `request` leaves open: first from what the model's maker recommends, then from what its files and
    /// its family say. `init_size` is the size of the initial image of image-to-image.
    ///
    /// # Errors
    /// No sampler here is the model's own, and none was named.
    pub fn new(request: &Request, bundle: &Bundle, init_size: Option<ImageSize>) -> Result<Self> {
        let recommended = request.model.recommended;
        let defaults = bundle.defaults();
        let img2img = request.init.as_ref().map(|init| Img2Img {
            image: Some(init.image.clone()),
            mask: init.mask.clone(),
            strength: init.strength.unwrap_or(match init.mask {
                Some(_) => Strength::ALL,
                None => Strength::OVER_IMAGE,
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
            seed: request.seed,
            steps: request.steps.or(recommended.steps).unwrap_or(defaults.steps),
            size: request.size.or(init_size).unwrap_or(defaults.size),
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
        })
    }

    /// The recipe by which `refiner`, whose files are in `bundle`, refines the images of this one.
    ///
    /// # Errors
    /// No sampler here is the refiner's own.
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
            // It is a setting of the base model, unless both share one denoising schedule.
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
    /// The sampler, its schedule and its steps do not go together with the model, or a base model has no step to take before its
    /// refiner takes over.
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

    /// Which pipeline of diffusers generates this with the model of `bundle`.
    pub(crate) fn pipeline_class<'a>(&self, bundle: &'a Bundle) -> PipelineClass<'a> {
        PipelineClass::new(bundle, task(self.img2img.as_ref()), !bundle.controls().is_empty())
    }

    /// The texts that the network of `bundle` is asked about: the negative prompt, where there is guidance, and the prompt.
    pub(crate) fn texts(&self, bundle: &Bundle) -> Vec<&str> {
        let both = [self.negative_prompt.as_str(), self.prompt.as_str()];
        both[both.len() - stage::texts(bundle, self.guidance_scale)..].to_vec()
    }

    /// The seed of image `image`, counted from 0, so that each can be generated again alone.
    pub fn seed_of(&self, image: usize) -> u64 {
        self.seed.wrapping_add(image as u64)
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

/// The sampler of the model of `bundle` itself, as a pipeline of `class` has it.
fn own_sampler(bundle: &Bundle, class: PipelineClass<'_>) -> Result<SamplerKind> {
    let own = bundle.scheduler.repaired(class.repairs()).sampler();
    own.map_err(refused(bundle))
}

fn refused(bundle: &Bundle) -> impl Fn(Refusal) -> Error {
    |reason| Error::Scheduler {
        folder: bundle.source().path().to_owned(),
        reason,
    }
}
