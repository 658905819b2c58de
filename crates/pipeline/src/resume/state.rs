//! The state of a run: everything that a second process needs to go on with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use sd_memory::Bytes;
use sd_weights::FileIdentity;
use serde::{Deserialize, Serialize};

use super::RunName;
use super::saved::SavedImages;
use crate::failure::{Failure, Warning};
use crate::identity::ModelIdentity;
use crate::recipe::Recipe;
use crate::request::{
    ControlChoice, DeviceChoice, GuidanceScale, ImageSize, InitImage, LoraChoice, ModelChoice, Names,
    Recommended, RefinerChoice, Request, Strength, TypeChoice, UpscaleChoice,
};
use crate::run::ModelPass;
use crate::scheduler::{SamplerKind, SamplerState, ScheduleKind};
use crate::stage::Progress;
use crate::user_dirs::UserDirs;
use crate::{Result, device, numerics_id};

/// Raised whenever a field changes its meaning.
pub(super) const FORMAT: u32 = 5;

/// What is known of a run apart from its latents.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Description {
    pub(super) format: u32,
    /// The version of the program that began the run.
    pub(super) version: String,
    pub(super) name: RunName,
    /// What computes, and with which instructions.
    pub(super) device: String,
    pub(super) request: KeptRequest,
    /// Of each model pass.
    pub(super) models: Vec<ModelIdentity>,
    /// The files beside the models that the images depend on.
    pub(super) inputs: Vec<FileIdentity>,
    /// Steps of each model pass.
    #[serde(rename = "leg_steps")]
    pub(super) pass_steps: Vec<usize>,
    /// The model pass that the images at work are in.
    #[serde(rename = "leg")]
    pub(super) pass: usize,
    /// Seconds that the run had taken.
    pub(super) seconds: f64,
    /// When the state was kept, in local time.
    pub(super) kept_at: String,
    pub(super) warnings: Vec<Warning>,
    pub(super) failures: Vec<Failure>,
    /// The images that are saved.
    pub(super) saved: SavedImages,
    /// Those at work: they are begun and not saved. In their order.
    #[serde(rename = "pictures")]
    pub(super) at_work: Vec<ImageState>,
}

/// How far an image is that is at work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageState {
    /// Which image of the run, from 0.
    pub(super) image: usize,
    /// Evaluations of the network that it has behind it, and the steps that these make.
    pub(super) evaluations: usize,
    pub(super) steps_done: usize,
    /// Whether it has all of them behind it.
    pub(super) is_denoised: bool,
}

/// A request with everything settled that it left open: on whatever machine, in whatever folder it is taken up
/// again, it asks for the same images in the same place.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeptRequest {
    pub(super) prompt: String,
    pub(super) negative_prompt: String,
    pub(super) model: KeptModel,
    pub(super) controls: Vec<ControlChoice>,
    pub(super) loras: Vec<LoraChoice>,
    pub(super) upscale: Option<UpscaleChoice>,
    pub(super) names: Names,
    pub(super) strict: bool,
    pub(super) refiner: Option<KeptRefiner>,
    pub(super) images: usize,
    pub(super) seed: u64,
    pub(super) steps: usize,
    pub(super) size: ImageSize,
    #[serde(rename = "over")]
    pub(super) img2img: Option<KeptImg2Img>,
    pub(super) guidance_scale: GuidanceScale,
    pub(super) guidance_rescale: f64,
    pub(super) sampler: SamplerKind,
    pub(super) schedule: ScheduleKind,
    pub(super) clip_skip: usize,
    pub(super) output: PathBuf,
    pub(super) device: DeviceChoice,
    pub(super) weight_type: TypeChoice,
    pub(super) memory: Option<Bytes>,
}

/// A run's settings of image-to-image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeptImg2Img {
    pub(super) image: PathBuf,
    pub(super) mask: Option<PathBuf>,
    pub(super) strength: Strength,
}

/// A run's refiner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeptRefiner {
    pub(super) model: KeptModel,
    pub(super) strength: Strength,
    pub(super) steps: usize,
    pub(super) switch: Option<f64>,
}

/// Where a run's model is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeptModel {
    pub(super) name: String,
    /// Its folder; `None` where it is built into the program.
    pub(super) folder: Option<PathBuf>,
}

impl Description {
    /// The state at the beginning of a run.
    ///
    /// # Errors
    /// The sampler of a model pass cannot be made.
    pub(super) fn new(
        name: RunName,
        request: &Request,
        passes: &[ModelPass],
        models: Vec<ModelIdentity>,
        inputs: Vec<FileIdentity>,
    ) -> Result<Self> {
        let ModelPass {
            recipe,
            weight_options,
            ..
        } = &passes[0];
        let device = &weight_options.device;
        let pass_steps: Result<Vec<usize>> = passes
            .iter()
            .map(|pass| Ok(pass.recipe.sampler(&pass.bundle)?.steps()))
            .collect();
        Ok(Self {
            format: FORMAT,
            version: crate::VERSION.to_owned(),
            name,
            device: numerics_id::name(device),
            request: KeptRequest::new(request, recipe, device),
            models,
            inputs,
            pass_steps: pass_steps?,
            pass: 0,
            seconds: 0.0,
            kept_at: String::new(),
            warnings: Vec::new(),
            failures: Vec::new(),
            saved: SavedImages::default(),
            at_work: Vec::new(),
        })
    }

    /// Steps that are done, of all images.
    pub(super) fn steps_done(&self) -> usize {
        let before: usize = self.pass_steps.iter().take(self.pass).sum();
        let at_work = self.at_work.iter().map(|state| before + state.steps_done);
        let of_saved = self.saved.count().saturating_mul(self.pass_steps.iter().sum());
        of_saved.saturating_add(at_work.sum())
    }

    /// Steps that all images take.
    pub(super) fn steps(&self) -> usize {
        self.request.images.saturating_mul(self.pass_steps.iter().sum())
    }

    /// How far each image at work had come; nothing where the latents of one are not among `tensors`.
    pub(super) fn progress(&self, tensors: &BTreeMap<String, Tensor>) -> Option<Vec<(usize, Progress)>> {
        let of = |state: &ImageState| {
            let find = |name: &str| tensors.get(&tensor_name(state.image, name)).cloned();
            let progress = Progress {
                evaluations: state.evaluations,
                sampler_state: SamplerState::from_tensors(find)?,
            };
            Some((state.image, progress))
        };
        self.at_work.iter().map(of).collect()
    }

    /// The state of image `image`, which is at work from now on.
    pub(super) fn state_of(&mut self, image: usize) -> &mut ImageState {
        let at = self.at_work.partition_point(|state| state.image < image);
        if self.at_work.get(at).is_none_or(|state| state.image != image) {
            let new = ImageState {
                image,
                evaluations: 0,
                steps_done: 0,
                is_denoised: false,
            };
            self.at_work.insert(at, new);
        }
        &mut self.at_work[at]
    }

    /// Notes that image `image` is saved under `number`.
    pub(super) fn note_saved(&mut self, image: usize, number: usize) {
        self.saved.insert(image, number);
        self.at_work.retain(|state| state.image != image);
    }
}

impl KeptRequest {
    fn new(request: &Request, recipe: &Recipe, device: &Device) -> Self {
        // Taken apart whole, so that a new field of a request finds its place here.
        let Request {
            prompt: _,
            negative_prompt: _,
            model,
            controls,
            loras,
            refiner,
            upscale,
            names,
            strict,
            images: _,
            steps: _,
            seed: _,
            size: _,
            init: _,
            guidance_scale: _,
            guidance_rescale: _,
            sampler: _,
            schedule: _,
            clip_skip: _,
            output: _,
            device: _,
            weight_type,
            memory,
            // Which does not change the image, and may have changed since.
            host_memory: _,
            user_dirs: _,
        } = request;
        // A relative path is below the current folder, which is known wherever the model was just opened.
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let kept = |model: &ModelChoice| KeptModel {
            name: model.name.clone(),
            folder: (!model.folder.is_embedded()).then(|| absolute(model.folder.root())),
        };
        Self {
            prompt: recipe.prompt.clone(),
            negative_prompt: recipe.negative_prompt.clone(),
            model: kept(model),
            upscale: upscale.as_ref().map(|upscale| UpscaleChoice {
                network: upscale.network.as_deref().map(absolute),
                ..upscale.clone()
            }),
            names: names.clone(),
            strict: *strict,
            controls: controls
                .iter()
                .map(|control| ControlChoice {
                    folder: absolute(&control.folder),
                    image: absolute(&control.image),
                    ..control.clone()
                })
                .collect(),
            loras: loras
                .iter()
                .map(|lora| LoraChoice {
                    file: absolute(&lora.file),
                    ..lora.clone()
                })
                .collect(),
            refiner: refiner.as_ref().map(|refiner| KeptRefiner {
                model: kept(&refiner.model),
                strength: refiner.strength,
                steps: refiner.steps,
                switch: refiner.switch,
            }),
            images: recipe.images,
            seed: recipe.seed,
            steps: recipe.steps,
            size: recipe.size,
            img2img: recipe.img2img.as_ref().and_then(|img2img| {
                Some(KeptImg2Img {
                    image: absolute(img2img.image.as_ref()?),
                    mask: img2img.mask.as_deref().map(absolute),
                    strength: img2img.strength,
                })
            }),
            guidance_scale: recipe.guidance_scale,
            guidance_rescale: recipe.guidance_rescale,
            sampler: recipe.sampler,
            schedule: recipe.schedule,
            clip_skip: recipe.clip_skip,
            output: absolute(&recipe.output),
            device: device::settled(device),
            weight_type: *weight_type,
            memory: *memory,
        }
    }

    /// Where the models of all passes are.
    pub(super) fn models(&self) -> impl Iterator<Item = &KeptModel> {
        let refiner = self.refiner.iter().map(|refiner| &refiner.model);
        std::iter::once(&self.model).chain(refiner)
    }

    /// The request, for `models`, one for each pass.
    pub(super) fn restore(&self, models: Vec<ModelChoice>, user_dirs: &UserDirs) -> Request {
        assert_eq!(
            models.len(),
            self.models().count(),
            "each pass has a model. This is a bug."
        );
        let mut models = models.into_iter().map(|model| ModelChoice {
            recommended: Recommended::default(),
            ..model
        });
        let model = models.next().expect("a run has a pass. This is a bug.");
        let refiner = self.refiner.as_ref().zip(models.next());
        Request {
            prompt: self.prompt.clone(),
            negative_prompt: Some(self.negative_prompt.clone()),
            model,
            controls: self.controls.clone(),
            loras: self.loras.clone(),
            upscale: self.upscale.clone(),
            names: self.names.clone(),
            strict: self.strict,
            refiner: refiner.map(|(kept, model)| RefinerChoice {
                model,
                strength: kept.strength,
                steps: kept.steps,
                switch: kept.switch,
            }),
            images: self.images,
            steps: Some(self.steps),
            seed: self.seed,
            size: Some(self.size),
            init: self.img2img.as_ref().map(|img2img| InitImage {
                image: img2img.image.clone(),
                mask: img2img.mask.clone(),
                strength: Some(img2img.strength),
            }),
            guidance_scale: Some(self.guidance_scale),
            guidance_rescale: self.guidance_rescale,
            sampler: Some(self.sampler),
            schedule: self.schedule,
            clip_skip: self.clip_skip,
            output: self.output.clone(),
            device: self.device,
            weight_type: self.weight_type,
            memory: self.memory,
            host_memory: None,
            user_dirs: user_dirs.clone(),
        }
    }

    /// Where the image of the run lies that is saved under the name `stem`.
    pub(super) fn path_of(&self, stem: &str) -> PathBuf {
        self.output.join(format!("{stem}.png"))
    }
}

/// What the tensor `name` of image `image` is called in the file.
pub(super) fn tensor_name(image: usize, name: &str) -> String {
    format!("{image}.{name}")
}
