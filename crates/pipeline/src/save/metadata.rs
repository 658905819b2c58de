//! The metadata of an image: the JSON file beside it.

use std::path::PathBuf;

use sd_memory::{Bytes, Reading, Stage, Timeline};
use serde::Serialize;

use crate::choices::Choices;
use crate::scheduler::{SamplerKind, ScheduleKind};
use crate::seed::NoiseSource;
use crate::{ControlChoice, Failure, GuidanceScale, ImageSize, Img2Img, LoraChoice, Strength, Warning};

/// All settings of one image, under the keys that scripts read.
#[derive(Debug, Clone, Serialize)]
pub struct Metadata {
    /// What the image shows.
    pub prompt: String,
    /// The negative prompt.
    pub negative_prompt: String,
    /// This image's own seed.
    pub seed: u64,
    /// The generator of the noise.
    pub rng: NoiseSource,
    /// Denoising steps.
    pub steps: usize,
    /// The guidance scale.
    pub guidance_scale: GuidanceScale,
    /// The guidance rescale.
    pub guidance_rescale: f64,
    /// Width and height in pixels.
    #[serde(flatten)]
    pub size: ImageSize,
    /// The sampler.
    pub sampler: SamplerKind,
    /// Its schedule, resolved from automatic.
    pub schedule: ScheduleKind,
    /// What was chosen and the resolved settings do not show.
    pub choices: Choices,
    /// How many more of CLIP's last layers were skipped.
    pub clip_skip: usize,
    /// The settings of image-to-image, if it was used.
    pub img2img: Option<Img2Img>,
    /// The style that was added to the prompt.
    pub style: Option<String>,
    /// The name that the user gave the model.
    pub model: String,
    /// The SHA-256 of the denoising network's weights, if it is known without reading them.
    pub model_sha256: Option<String>,
    /// LoRAs with their scales: one for all networks, or one for the text encoders and one for the denoising
    /// network.
    pub lora: Vec<String>,
    /// The same LoRAs with all their details.
    pub loras: Vec<LoraRecord>,
    /// The files of textual inversion, whose words may be in the prompts.
    pub embeddings: Vec<EmbeddingRecord>,
    /// The ControlNets.
    pub controlnet: Option<Vec<ControlChoice>>,
    /// The factor of the upscaling.
    pub upscale: Option<usize>,
    /// The method of the upscaling.
    pub upscale_method: Option<String>,
    /// The refiner.
    pub refiner: Option<String>,
    /// The settings of the refiner.
    pub refiner_settings: Option<RefinerSettings>,
    /// The preset.
    pub quality_preset: Option<String>,
    /// The number of images of the run.
    pub num_images: usize,
    /// The index of this image, from 0.
    pub image_index: usize,
    /// The image's file name.
    pub filename: String,
    /// The device of the run.
    pub device: String,
    /// The data type of the denoising network's weights.
    pub dtype: String,
    /// The family of the model.
    pub pipeline_type: String,
    /// The memory optimisations in effect.
    pub memory_optimizations: Vec<String>,
    /// The start of the run in local time, to the nanosecond. It identifies the images of a run.
    pub started: String,
    /// Seconds from the start of the run until this image was ready to be saved.
    pub generation_time: f64,
    /// The parts that failed and were left out.
    pub failures: Vec<Failure>,
    /// The warnings of the run.
    pub warnings: Vec<Warning>,
    /// Memory over the run.
    pub memory: MemoryReport,
    /// The program and its version.
    pub version: String,
}

/// A file of textual inversion that was added.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EmbeddingRecord {
    /// The word that stands for its vectors.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// The first twelve digits of the file's SHA-256, as stable-diffusion-webui has them, if it could be read.
    pub hash: Option<String>,
}

/// A LoRA that was added.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoraRecord {
    /// The name that the user gave it.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// Its scale in the denoising network.
    pub scale: f64,
    /// Its scale in the text encoders.
    pub text_scale: f64,
    /// The first twelve digits of its hash, as stable-diffusion-webui computes it, if the file could be read.
    pub hash: Option<String>,
}

impl LoraRecord {
    /// The record of `choice`, whose file has the `hash`.
    pub fn new(choice: &LoraChoice, hash: Option<String>) -> Self {
        Self {
            name: choice.name.clone(),
            file: choice.file.clone(),
            scale: choice.scale,
            text_scale: choice.text_scale,
            hash,
        }
    }

    /// Its scales as they follow a name: one for both, or one for the text encoders and one for the denoising
    /// network.
    pub fn scales(&self) -> String {
        if self.scale == self.text_scale {
            self.scale.to_string()
        } else {
            format!("{}:{}", self.text_scale, self.scale)
        }
    }
}

/// The settings of a refiner.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RefinerSettings {
    /// The fraction of the denoising at which it took over the latents; None if it refined the finished
    /// image.
    pub switch: Option<f64>,
    /// Its denoising steps, of which the strength left a part.
    pub steps: usize,
    /// The strength of its image-to-image pass.
    pub strength: Strength,
}

/// The memory of a run up to the saving of the image.
#[derive(Debug, Clone, Default, Serialize)]
pub struct MemoryReport {
    /// The budget of the run, if there is one.
    pub budget: Option<Bytes>,
    /// The predicted peak, if there is a plan.
    pub predicted_peak: Option<Bytes>,
    /// The peak of resident memory.
    pub measured_peak: Bytes,
    /// Bytes of weights that were read.
    pub weights_read: Bytes,
    /// The memory readings.
    pub timeline: Vec<Reading>,
    /// The stages with their peaks; the last is still running.
    pub stages: Vec<Stage>,
}

impl MemoryReport {
    /// The report of `timeline` for a run with this budget and prediction.
    pub fn new(budget: Option<Bytes>, predicted_peak: Option<Bytes>, timeline: Timeline) -> Self {
        Self {
            budget,
            predicted_peak,
            measured_peak: timeline.peak,
            weights_read: timeline.weights_read(),
            timeline: timeline.readings,
            stages: timeline.stages,
        }
    }
}

#[cfg(test)]
pub(super) fn example() -> Metadata {
    Metadata {
        prompt: "a red circle".into(),
        negative_prompt: String::new(),
        seed: 42,
        rng: NoiseSource::default(),
        steps: 20,
        guidance_scale: GuidanceScale(4.5),
        guidance_rescale: 0.0,
        size: ImageSize::new(256, 128).unwrap(),
        sampler: SamplerKind::FlowEuler,
        schedule: ScheduleKind::Normal,
        choices: Choices::default(),
        clip_skip: 0,
        img2img: None,
        style: None,
        model: "demo".into(),
        model_sha256: None,
        lora: Vec::new(),
        loras: Vec::new(),
        embeddings: Vec::new(),
        controlnet: None,
        upscale: None,
        upscale_method: None,
        refiner: None,
        refiner_settings: None,
        quality_preset: None,
        num_images: 1,
        image_index: 0,
        filename: String::new(),
        device: "cpu".into(),
        dtype: "bf16".into(),
        pipeline_type: "stable-diffusion-3".into(),
        memory_optimizations: Vec::new(),
        started: String::new(),
        generation_time: 1.5,
        failures: Vec::new(),
        warnings: Vec::new(),
        memory: MemoryReport::default(),
        version: "sd-generate 0.0.0".into(),
    }
}
