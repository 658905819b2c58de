//! How an image was made: the JSON file beside it.

use std::path::PathBuf;

use sd_memory::{Bytes, Reading, Stage, Timeline};
use serde::Serialize;

use crate::scheduler::{SamplerKind, ScheduleKind};
use crate::{ControlChoice, Failure, GuidanceScale, ImageSize, Img2Img, LoraChoice, Strength, Warning};

/// Everything that went into one image, in the names that scripts read.
#[derive(Debug, Clone, Serialize)]
pub struct Metadata {
    /// What the image shows.
    pub prompt: String,
    /// What it should not show.
    pub negative_prompt: String,
    /// This image's own seed.
    pub seed: u64,
    /// Denoising steps.
    pub steps: usize,
    /// Guidance.
    pub guidance_scale: GuidanceScale,
    /// How far guided predictions were scaled back to the spread of the prompt's own.
    pub guidance_rescale: f64,
    /// Pixels from left to right and from top to bottom.
    #[serde(flatten)]
    pub size: ImageSize,
    /// The sampler.
    pub sampler: SamplerKind,
    /// Its schedule, never automatic.
    pub schedule: ScheduleKind,
    /// How many more of CLIP's last layers were left out.
    pub clip_skip: usize,
    /// The settings of image-to-image, if it was made so.
    #[serde(rename = "over")]
    pub img2img: Option<Img2Img>,
    /// The style that was added to the prompt.
    pub style: Option<String>,
    /// The model, as the user called it.
    pub model: String,
    /// SHA-256 of the weights of its denoising network, where that is known without reading them.
    pub model_sha256: Option<String>,
    /// LoRAs, with their scales: one for all networks, or the text encoders' and the denoising network's.
    pub lora: Vec<String>,
    /// The same, each with everything that is known of it.
    pub loras: Vec<LoraRecord>,
    /// The control network.
    pub controlnet: Option<Vec<ControlChoice>>,
    /// The factor of the upscaling.
    pub upscale: Option<usize>,
    /// How it was upscaled.
    pub upscale_method: Option<String>,
    /// The refiner.
    pub refiner: Option<String>,
    /// How it was used.
    pub refiner_settings: Option<RefinerSettings>,
    /// The preset.
    pub quality_preset: Option<String>,
    /// How many images the run drew.
    pub num_images: usize,
    /// Which of them this is, from 0.
    pub image_index: usize,
    /// The image's file name.
    pub filename: String,
    /// The device that drew it.
    pub device: String,
    /// The type that the transformer's weights were held in.
    pub dtype: String,
    /// The family of the model.
    pub pipeline_type: String,
    /// What was done to need less memory.
    pub memory_optimizations: Vec<String>,
    /// When the run began, in local time, to the nanosecond. Its images are recognised by it.
    pub started: String,
    /// Seconds that the run took until this image was ready to be saved.
    pub generation_time: f64,
    /// What failed and was left out.
    pub failures: Vec<Failure>,
    /// What the user was warned of.
    pub warnings: Vec<Warning>,
    /// Memory over the run.
    pub memory: MemoryReport,
    /// The program and its version.
    pub version: String,
}

/// A LoRA that was added.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoraRecord {
    /// As the user calls it.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// How much of it was added to the denoising network.
    pub scale: f64,
    /// How much of it was added to the text encoders.
    pub text_scale: f64,
    /// The first twelve digits of its hash, as stable-diffusion-webui takes it, where the file could be read.
    pub hash: Option<String>,
}

impl LoraRecord {
    /// Of `choice`, whose file has the `hash`.
    pub fn new(choice: &LoraChoice, hash: Option<String>) -> Self {
        Self {
            name: choice.name.clone(),
            file: choice.file.clone(),
            scale: choice.scale,
            text_scale: choice.text_scale,
            hash,
        }
    }

    /// Its scales as they are written behind a name: one for both, or the text encoders' and the denoising network's.
    pub fn scales(&self) -> String {
        if self.scale == self.text_scale {
            self.scale.to_string()
        } else {
            format!("{}:{}", self.text_scale, self.scale)
        }
    }
}

/// How a refiner was used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RefinerSettings {
    /// Where it took the latents over, from 0 to 1; without it, it went over the finished image.
    pub switch: Option<f64>,
    /// Its denoising steps, of which it took those that the strength left.
    pub steps: usize,
    /// How much of the image it changed.
    pub strength: Strength,
}

/// A run's memory, up to the moment the image was saved.
#[derive(Debug, Clone, Default, Serialize)]
pub struct MemoryReport {
    /// What the run was allowed, where a budget was given.
    pub budget: Option<Bytes>,
    /// What it was predicted to need, where a plan was made.
    pub predicted_peak: Option<Bytes>,
    /// The most that was resident.
    pub measured_peak: Bytes,
    /// Bytes of weights that were read.
    pub weights_read: Bytes,
    /// The readings.
    pub timeline: Vec<Reading>,
    /// The stages, each with its peaks; the last is still at work.
    pub stages: Vec<Stage>,
}

impl MemoryReport {
    /// What `timeline` measured of a run that was allowed `budget` and predicted to need `predicted_peak`.
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
        steps: 20,
        guidance_scale: GuidanceScale(4.5),
        guidance_rescale: 0.0,
        size: ImageSize::new(256, 128).unwrap(),
        sampler: SamplerKind::FlowEuler,
        schedule: ScheduleKind::Normal,
        clip_skip: 0,
        img2img: None,
        style: None,
        model: "demo".into(),
        model_sha256: None,
        lora: Vec::new(),
        loras: Vec::new(),
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
