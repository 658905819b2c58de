//! The state of a run: everything that a second process needs to resume it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use sd_memory::Bytes;
use sd_weights::{FileIdentity, NetworkFiles, Prediction};
use serde::{Deserialize, Serialize};

use super::RunName;
use super::later::LaterRequest;
use super::saved::SavedImages;
use crate::failure::{Failure, Warning};
use crate::identity::ModelIdentity;
use crate::image_size::ImageSize;
use crate::recipe::Recipe;
use crate::request::{
    ControlChoice, DeviceChoice, EmbeddingChoice, GuidanceScale, InitImage, LoraChoice, ModelChoice, Names,
    Recommended, RefinerChoice, Request, Strength, TypeChoice, UpscaleChoice,
};
use crate::run::ModelPass;
use crate::save::{FileNames, ImageNames};
use crate::scheduler::{SamplerKind, SamplerState, ScheduleKind};
use crate::seed::{NoiseSource, Seeds};
use crate::stage::Progress;
use crate::user_dirs::UserDirs;
use crate::{Result, device, numerics_id};

/// Incremented when the meaning of a field changes.
pub(super) const FORMAT: u32 = 5;

/// The state without its latents.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Description {
    pub(super) format: u32,
    /// The version of the program that started the run.
    pub(super) version: String,
    pub(super) name: RunName,
    /// The numerics id of the device.
    pub(super) device: String,
    pub(super) request: KeptRequest,
    /// The identities of each model pass's files.
    pub(super) models: Vec<ModelIdentity>,
    /// The identities of the input files beside the models.
    pub(super) inputs: Vec<FileIdentity>,
    /// Steps of each model pass.
    #[serde(rename = "leg_steps")]
    pub(super) pass_steps: Vec<usize>,
    /// The current model pass.
    #[serde(rename = "leg")]
    pub(super) pass: usize,
    /// The duration of the run so far, in seconds.
    pub(super) seconds: f64,
    /// The time of the commit, in local time.
    pub(super) kept_at: String,
    pub(super) warnings: Vec<Warning>,
    pub(super) failures: Vec<Failure>,
    /// The saved images.
    pub(super) saved: SavedImages,
    /// The unfinished images, in order: begun and not saved.
    #[serde(rename = "pictures")]
    pub(super) at_work: Vec<ImageState>,
    /// The requests after this one in its batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) later: Vec<LaterRequest>,
}

/// The progress of an unfinished image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageState {
    /// The index of the image, from 0.
    pub(super) image: usize,
    /// Finished evaluations of the network, and the steps that they make.
    pub(super) evaluations: usize,
    pub(super) steps_done: usize,
    /// Whether all steps are finished.
    pub(super) is_denoised: bool,
}

/// The request with all settings resolved, so that it has the same results on any machine and from any
/// current folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeptRequest {
    pub(super) prompt: String,
    pub(super) negative_prompt: String,
    pub(super) model: KeptModel,
    pub(super) controls: Vec<ControlChoice>,
    pub(super) loras: Vec<LoraChoice>,
    #[serde(default)]
    pub(super) embeddings: Vec<EmbeddingChoice>,
    pub(super) upscale: Option<UpscaleChoice>,
    pub(super) names: Names,
    pub(super) strict: bool,
    pub(super) refiner: Option<KeptRefiner>,
    pub(super) images: usize,
    #[serde(rename = "seed")]
    pub(super) seeds: Seeds,
    #[serde(default)]
    pub(super) rng: NoiseSource,
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
    #[serde(default)]
    pub(super) file_names: FileNames,
    /// The folders that earlier processes saved images in.
    #[serde(default)]
    pub(super) earlier_outputs: Vec<PathBuf>,
    pub(super) device: DeviceChoice,
    pub(super) weight_type: TypeChoice,
    pub(super) memory: Option<Bytes>,
}

/// The settings of image-to-image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeptImg2Img {
    pub(super) image: PathBuf,
    pub(super) mask: Option<PathBuf>,
    pub(super) strength: Strength,
}

/// The refiner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeptRefiner {
    pub(super) model: KeptModel,
    pub(super) strength: Strength,
    pub(super) steps: usize,
    pub(super) switch: Option<f64>,
}

/// A model and its location.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct KeptModel {
    pub(super) name: String,
    /// Its folder or file; `None` for the built-in model.
    pub(super) folder: Option<PathBuf>,
    /// The files of single networks.
    #[serde(default)]
    pub(super) networks: NetworkFiles,
    /// What its denoising network predicts, if the user said it.
    #[serde(default)]
    pub(super) prediction: Option<Prediction>,
    /// The places in which networks are looked for.
    #[serde(default)]
    pub(super) search: Vec<PathBuf>,
}

impl Description {
    /// The state at the start of a run.
    ///
    /// # Errors
    /// The sampler of a model pass is not supported.
    pub(super) fn new(
        name: RunName,
        request: &Request,
        passes: &[ModelPass],
        models: Vec<ModelIdentity>,
        inputs: Vec<FileIdentity>,
        later: Vec<LaterRequest>,
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
            later,
        })
    }

    /// Finished steps of all images.
    pub(super) fn steps_done(&self) -> usize {
        let before: usize = self.pass_steps.iter().take(self.pass).sum();
        let at_work = self.at_work.iter().map(|state| before + state.steps_done);
        let of_saved = self.saved.count().saturating_mul(self.pass_steps.iter().sum());
        of_saved.saturating_add(at_work.sum())
    }

    /// Steps of all images.
    pub(super) fn steps(&self) -> usize {
        self.request.images.saturating_mul(self.pass_steps.iter().sum())
    }

    /// The progress of each unfinished image; None if latents are missing in `tensors`.
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

    /// The state of `image`, which becomes an unfinished image if it is not one yet.
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

    /// Records that `image` is saved under `number`.
    pub(super) fn note_saved(&mut self, image: usize, number: usize) {
        self.saved.insert(image, number);
        self.at_work.retain(|state| state.image != image);
    }
}

impl KeptRequest {
    pub(super) fn new(request: &Request, recipe: &Recipe, device: &Device) -> Self {
        // A full destructuring, so that a new field of a request is not forgotten here.
        let Request {
            prompt: _,
            negative_prompt: _,
            model,
            controls,
            loras,
            embeddings,
            refiner,
            upscale,
            names,
            strict,
            images: _,
            steps: _,
            seeds: _,
            rng: _,
            size: _,
            init: _,
            guidance_scale: _,
            guidance_rescale: _,
            sampler: _,
            schedule: _,
            clip_skip: _,
            output: _,
            file_names,
            device: _,
            weight_type,
            memory,
            // It does not change the image, and may have changed since.
            host_memory: _,
            user_dirs: _,
        } = request;
        // The current folder is known: the model was just opened relative to it.
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let kept = |model: &ModelChoice| KeptModel {
            name: model.name.clone(),
            folder: (!model.files.is_embedded()).then(|| absolute(model.files.path())),
            networks: model.files.networks.map(absolute),
            prediction: model.files.prediction,
            search: model.files.search.iter().map(|path| absolute(path)).collect(),
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
            embeddings: embeddings
                .iter()
                .map(|embedding| EmbeddingChoice {
                    file: absolute(&embedding.file),
                    ..embedding.clone()
                })
                .collect(),
            refiner: refiner.as_ref().map(|refiner| KeptRefiner {
                model: kept(&refiner.model),
                strength: refiner.strength,
                steps: refiner.steps,
                switch: refiner.switch,
            }),
            images: recipe.images,
            seeds: recipe.seeds.clone(),
            rng: recipe.rng,
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
            file_names: file_names.clone(),
            earlier_outputs: Vec::new(),
            device: device::settled(device),
            weight_type: *weight_type,
            memory: *memory,
        }
    }

    /// The models of all passes.
    pub(super) fn models(&self) -> impl Iterator<Item = &KeptModel> {
        let refiner = self.refiner.iter().map(|refiner| &refiner.model);
        std::iter::once(&self.model).chain(refiner)
    }

    /// The user's name and the folder of each model, or `None` for the built-in model.
    pub(super) fn named_models(&self) -> Vec<(&str, Option<&Path>)> {
        self.models()
            .map(|KeptModel { name, folder, .. }| (name.as_str(), folder.as_deref()))
            .collect()
    }

    /// Changes the folder of the images that are not saved yet.
    pub(super) fn move_to(&mut self, folder: &Path) {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        if folder != self.output {
            let before = std::mem::replace(&mut self.output, folder);
            self.earlier_outputs.push(before);
        }
    }

    /// The request with `models`, one for each pass.
    pub(super) fn restore(&self, models: Vec<ModelChoice>, user_dirs: &UserDirs) -> Request {
        assert_eq!(
            models.len(),
            self.models().count(),
            "each pass has a model. This is a bug."
        );
        let mut models = models.into_iter().zip(self.models()).map(|(mut model, kept)| {
            model.files.networks = kept.networks.clone();
            model.files.prediction = kept.prediction;
            model.files.search.clone_from(&kept.search);
            ModelChoice {
                recommended: Recommended::default(),
                ..model
            }
        });
        let model = models.next().expect("a run has a pass. This is a bug.");
        let refiner = self.refiner.as_ref().zip(models.next());
        Request {
            prompt: self.prompt.clone(),
            negative_prompt: Some(self.negative_prompt.clone()),
            model,
            controls: self.controls.clone(),
            loras: self.loras.clone(),
            embeddings: self.embeddings.clone(),
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
            seeds: self.seeds.clone(),
            rng: self.rng,
            size: Some(self.size.into()),
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
            file_names: self.file_names.clone(),
            device: self.device,
            weight_type: self.weight_type,
            memory: self.memory,
            host_memory: None,
            user_dirs: user_dirs.clone(),
        }
    }

    /// The path of the file `name` that this run saved: in its folder, or in one of an earlier process.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        let earlier = self.earlier_outputs.iter().map(|folder| folder.join(name));
        let here = self.output.join(name);
        if here.exists() {
            return here;
        }
        earlier.into_iter().find(|path| path.exists()).unwrap_or(here)
    }

    /// The names of the image files of the run `name`.
    pub(super) fn image_names(&self, name: &RunName) -> ImageNames {
        ImageNames {
            names: self.file_names.clone(),
            run: name.clone(),
            seeds: self.seeds.clone(),
            model: self.model.name.clone(),
            images: self.images,
        }
    }
}

/// The name of the tensor `name` of `image` in the file.
pub(super) fn tensor_name(image: usize, name: &str) -> String {
    format!("{image}.{name}")
}
