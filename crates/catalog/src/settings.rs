//! [`Settings`]: what can be set beside the prompt, on the command line, by a preset and in the user's
//! configuration.

use std::path::PathBuf;

use sd_pipeline::seed::NoiseSource;
use sd_pipeline::{Bytes, Prediction, SizeChoice, TypeChoice};

use crate::devices::Devices;
use crate::parse;
use crate::presets::Preset;
use crate::seed_choice::SeedChoice;
use crate::styles::Style;

/// One layer of settings. Open settings are taken from the layer below.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// The negative prompt.
    pub negative_prompt: Option<String>,
    /// The style.
    pub style: Option<&'static Style>,
    /// Width and height in pixels, or their ratio.
    pub size: Option<SizeChoice>,
    /// The upscaling factor.
    pub upscale: Option<usize>,
    /// The upscaling network.
    pub upscaler: Option<String>,
    /// The number of images.
    pub n: Option<u64>,
    /// The seeds of the images.
    pub seed: Option<SeedChoice>,
    /// The generator of the noise.
    pub rng: Option<NoiseSource>,
    /// The name of a preset; in a preset of the user, that of the extended one.
    pub quality: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The file of the autoencoder, in place of the model's.
    pub vae: Option<PathBuf>,
    /// The file of the text encoder CLIP-L, in place of the model's.
    pub clip_l: Option<PathBuf>,
    /// The file of the text encoder OpenCLIP, in place of the model's.
    pub clip_g: Option<PathBuf>,
    /// The file of the text encoder T5, in place of the model's.
    pub t5xxl: Option<PathBuf>,
    /// What the model predicts, in place of what its files say.
    pub prediction: Option<Prediction>,
    /// Denoising steps.
    pub steps: Option<u64>,
    /// The guidance scale.
    pub cfg: Option<f64>,
    /// The guidance rescale factor.
    pub guidance_rescale: Option<f64>,
    /// LoRA files, each `NAME`, `NAME:SCALE` or `NAME:TEXT_ENCODERS:NETWORK`.
    pub lora: Vec<String>,
    /// Files of textual inversion.
    pub embedding: Vec<PathBuf>,
    /// Conditioning scales of ControlNets, one for all or one for each control image.
    pub control_scale: Vec<f64>,
    /// ControlNets, one for all or one for each control image.
    pub controlnet: Vec<String>,
    /// The refiner.
    pub refiner: Option<String>,
    /// The fraction of the denoising at which the refiner takes over the latents.
    pub refiner_switch: Option<f64>,
    /// The sampler.
    pub sampler: Option<String>,
    /// The noise schedule.
    pub scheduler: Option<String>,
    /// CLIP skip, counted as in stable-diffusion-webui.
    pub clip_skip: Option<u64>,
    /// The memory budget; on a GPU that of the GPU's memory.
    pub memory: Option<Bytes>,
    /// The budget of host memory beside a GPU.
    pub host_memory: Option<Bytes>,
    /// The device, or several.
    pub device: Option<Devices>,
    /// The data type that weights are held in.
    pub dtype: Option<TypeChoice>,
    /// The output folder, or the file of the image.
    pub output: Option<PathBuf>,
    /// Whether existing files are replaced.
    pub overwrite: bool,
    /// The quality of JPEG files.
    pub jpeg_quality: Option<u8>,
    /// Whether a LoRA, a ControlNet, a refiner or an upscaler that fails is an error.
    pub strict: bool,
}

impl Settings {
    /// These settings over `below`. LoRA files and embeddings of both layers add up, those of `below` first.
    pub fn over(self, below: Self) -> Self {
        Self {
            negative_prompt: self.negative_prompt.or(below.negative_prompt),
            style: self.style.or(below.style),
            size: self.size.or(below.size),
            upscale: self.upscale.or(below.upscale),
            upscaler: self.upscaler.or(below.upscaler),
            n: self.n.or(below.n),
            seed: self.seed.or(below.seed),
            rng: self.rng.or(below.rng),
            quality: self.quality.or(below.quality),
            model: self.model.or(below.model),
            vae: self.vae.or(below.vae),
            clip_l: self.clip_l.or(below.clip_l),
            clip_g: self.clip_g.or(below.clip_g),
            t5xxl: self.t5xxl.or(below.t5xxl),
            prediction: self.prediction.or(below.prediction),
            steps: self.steps.or(below.steps),
            cfg: self.cfg.or(below.cfg),
            guidance_rescale: self.guidance_rescale.or(below.guidance_rescale),
            lora: [below.lora, self.lora].concat(),
            embedding: [below.embedding, self.embedding].concat(),
            control_scale: or_all(self.control_scale, below.control_scale),
            controlnet: or_all(self.controlnet, below.controlnet),
            refiner: self.refiner.or(below.refiner),
            refiner_switch: self.refiner_switch.or(below.refiner_switch),
            sampler: self.sampler.or(below.sampler),
            scheduler: self.scheduler.or(below.scheduler),
            clip_skip: self.clip_skip.or(below.clip_skip),
            memory: self.memory.or(below.memory),
            host_memory: self.host_memory.or(below.host_memory),
            device: self.device.or(below.device),
            dtype: self.dtype.or(below.dtype),
            output: self.output.or(below.output),
            overwrite: self.overwrite || below.overwrite,
            jpeg_quality: self.jpeg_quality.or(below.jpeg_quality),
            strict: self.strict || below.strict,
        }
    }

    /// The settings of these that change no image: memory, device, output.
    pub(crate) fn of_machine(&self) -> Self {
        Self {
            memory: self.memory,
            host_memory: self.host_memory,
            device: self.device.clone(),
            output: self.output.clone(),
            overwrite: self.overwrite,
            jpeg_quality: self.jpeg_quality,
            strict: self.strict,
            ..Self::default()
        }
    }

    /// Sets `name`, an option of the command line without its dashes, to `text`.
    ///
    /// # Errors
    /// The name is unknown, it has a value already, or `text` is invalid, in one line.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), String> {
        let outcome = match name {
            "negative-prompt" => once(&mut self.negative_prompt, Ok(text.to_owned())),
            "style" => once(&mut self.style, parse::style(text)),
            "size" => once(&mut self.size, parse::size(text)),
            "upscale" => once(&mut self.upscale, parse::upscale(text)),
            "upscaler" => once(&mut self.upscaler, Ok(text.to_owned())),
            "n" => once(&mut self.n, parse::images(text)),
            "seed" => once(&mut self.seed, parse::seed(text)),
            "rng" => once(&mut self.rng, parse::rng(text)),
            "quality" => once(&mut self.quality, Ok(text.to_owned())),
            "model" => once(&mut self.model, Ok(text.to_owned())),
            "vae" => once(&mut self.vae, Ok(PathBuf::from(text))),
            "clip-l" => once(&mut self.clip_l, Ok(PathBuf::from(text))),
            "clip-g" => once(&mut self.clip_g, Ok(PathBuf::from(text))),
            "t5xxl" => once(&mut self.t5xxl, Ok(PathBuf::from(text))),
            "prediction" => once(&mut self.prediction, parse::prediction(text)),
            "steps" => once(&mut self.steps, parse::steps(text)),
            "cfg" => once(&mut self.cfg, parse::guidance_scale(text)),
            "guidance-rescale" => once(&mut self.guidance_rescale, parse::guidance_rescale(text)),
            "lora" => {
                self.lora.push(text.to_owned());
                Ok(())
            }
            "embedding" => {
                self.embedding.push(PathBuf::from(text));
                Ok(())
            }
            "control-scale" => parse::control_scale(text).map(|scale| self.control_scale.push(scale)),
            "controlnet" => {
                self.controlnet.push(text.to_owned());
                Ok(())
            }
            "refiner" => once(&mut self.refiner, Ok(text.to_owned())),
            "refiner-switch" => once(&mut self.refiner_switch, parse::strength(text)),
            "sampler" => once(&mut self.sampler, Ok(text.to_owned())),
            "scheduler" => once(&mut self.scheduler, Ok(text.to_owned())),
            "clip-skip" => once(&mut self.clip_skip, parse::clip_skip(text)),
            "memory" => once(&mut self.memory, parse::memory(text)),
            "host-memory" => once(&mut self.host_memory, parse::memory(text)),
            "device" => once(&mut self.device, parse::devices(text)),
            "dtype" => once(&mut self.dtype, parse::weight_type(text)),
            "output" => once(&mut self.output, Ok(PathBuf::from(text))),
            "jpeg-quality" => once(&mut self.jpeg_quality, parse::jpeg_quality(text)),
            "strict" | "overwrite" => Err("it takes true or false".to_owned()),
            _ => return Err("this cannot be set".to_owned()),
        };
        outcome.map_err(|reason| format!("invalid value '{text}': {reason}"))
    }

    /// Sets the flag `name` to `value`.
    ///
    /// # Errors
    /// It is no flag, in one line.
    pub(crate) fn set_flag(&mut self, name: &str, value: bool) -> Result<(), String> {
        match name {
            "strict" => {
                self.strict = value;
                Ok(())
            }
            "overwrite" => {
                self.overwrite = value;
                Ok(())
            }
            _ => Err("true and false are no values of it".to_owned()),
        }
    }
}

/// Puts `value` into `slot`, which must be empty.
fn once<T>(slot: &mut Option<T>, value: Result<T, String>) -> Result<(), String> {
    match slot {
        Some(_) => Err("it takes one value".to_owned()),
        None => {
            *slot = Some(value?);
            Ok(())
        }
    }
}

impl From<&Preset> for Settings {
    fn from(preset: &Preset) -> Self {
        Self {
            model: Some(preset.model.to_owned()),
            steps: Some(preset.steps as u64),
            cfg: preset.guidance_scale,
            sampler: preset.sampler.map(|sampler| sampler.to_string()),
            lora: preset.lora.map(str::to_owned).into_iter().collect(),
            refiner: preset.refiner.map(str::to_owned),
            upscale: preset.upscale,
            ..Self::default()
        }
    }
}

/// `values`, or `others` if there are none.
fn or_all<T>(values: Vec<T>, others: Vec<T>) -> Vec<T> {
    if values.is_empty() { others } else { values }
}
