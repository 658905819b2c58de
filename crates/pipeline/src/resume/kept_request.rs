//! A request as the state of a run keeps it, and the request that it becomes again.

use std::path::{Path, PathBuf};

use sd_memory::Bytes;
use sd_weights::{NetworkFiles, Prediction};
use serde::{Deserialize, Serialize};

use super::RunName;
use crate::image_size::ImageSize;
use crate::recipe::Recipe;
use crate::request::{
    ControlChoice, DeviceChoice, EmbeddingChoice, GuidanceScale, InitImage, LoraChoice, ModelChoice, Names,
    Recommended, RefinerChoice, Request, Strength, TypeChoice, UpscaleChoice,
};
use crate::save::{FileNames, ImageNames};
use crate::scheduler::{SamplerKind, ScheduleKind};
use crate::seed::{NoiseSource, Seeds};
use crate::user_dirs::UserDirs;

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
    #[serde(alias = "over")]
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
    /// The name that the run is to have, while it is not begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) run_name: Option<RunName>,
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

impl KeptRequest {
    pub(super) fn new(request: &Request, recipe: &Recipe, device: DeviceChoice) -> Self {
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
            run_name,
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
            device,
            weight_type: *weight_type,
            memory: *memory,
            run_name: run_name.clone(),
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

    /// Changes the folder of the source image, the mask and the control images.
    pub(super) fn move_source_images_to(&mut self, folder: &Path) {
        let of_img2img = self.img2img.iter_mut();
        let of_img2img =
            of_img2img.flat_map(|img2img| std::iter::once(&mut img2img.image).chain(&mut img2img.mask));
        let of_controls = self.controls.iter_mut().map(|control| &mut control.image);
        for path in of_img2img.chain(of_controls) {
            if let Some(name) = path.file_name() {
                *path = folder.join(name);
            }
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
            run_name: self.run_name.clone(),
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
