//! What can be set beside the prompt: on the command line, by a preset, and by the user's defaults, in the same words and
//! with the same ranges.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser};
use sd_pipeline::presets::Preset;
use sd_pipeline::styles::{self, Style};
use sd_pipeline::{Bytes, DeviceChoice, ImageSize, TypeChoice};

/// Most threads that compute.
const MOST_THREADS: usize = 4096;
/// Most pictures of one run.
const MOST_IMAGES: u64 = 10_000;
/// Most denoising steps.
const MOST_STEPS: u64 = 1000;
/// The layer of CLIP, counted from the last, that the prompt can be taken from at the most.
const MOST_CLIP_SKIP: u64 = 12;

/// Settings of a run. What one layer of them leaves open is as the next has it.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub(crate) struct Settings {
    /// What it should not show
    #[arg(long, value_name = "TEXT", help_heading = "Picture")]
    pub(crate) negative_prompt: Option<String>,

    /// anime, fantasy, scifi or realism: words for the prompt, and what not to show where nothing is said of it
    #[arg(long, value_name = "NAME", help_heading = "Picture", value_parser = style)]
    pub(crate) style: Option<&'static Style>,

    /// Width and height in pixels, multiples of 16 [default: the model's own]
    #[arg(long, value_name = "WxH", help_heading = "Picture")]
    pub(crate) size: Option<ImageSize>,

    /// Make it 2 or 4 times as large in the end
    #[arg(long, value_name = "N", help_heading = "Picture", value_parser = upscale)]
    pub(crate) upscale: Option<usize>,

    /// The network of Real-ESRGAN that does, a .pth or .safetensors file or an id [default: ai-forever/Real-ESRGAN where it
    /// is in the cache, else Lanczos resampling]
    #[arg(long, value_name = "REF", help_heading = "Picture")]
    pub(crate) upscaler: Option<String>,

    /// How many pictures; picture i uses seed + i [default: 1]
    #[arg(long, value_name = "N", help_heading = "Picture",
          allow_negative_numbers = true, value_parser = |text: &str| whole(text, 1, MOST_IMAGES))]
    pub(crate) n: Option<u64>,

    /// The same seed draws the same picture [default: 42]
    #[arg(long, value_name = "N", help_heading = "Picture",
          allow_negative_numbers = true, value_parser = |text: &str| whole(text, 0, u64::MAX))]
    pub(crate) seed: Option<u64>,

    /// A preset, `help` lists them; what is said beside it wins [default: auto, the best on this machine that fits]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub(crate) quality: Option<String>,

    /// `demo`, a folder in the layout of diffusers, or the id of a model on the hub, which is fetched
    #[arg(long, value_name = "REF", help_heading = "Model")]
    pub(crate) model: Option<String>,

    /// Denoising steps [default: the model's own]
    #[arg(long, value_name = "N", help_heading = "Model",
          allow_negative_numbers = true, value_parser = |text: &str| whole(text, 1, MOST_STEPS))]
    pub(crate) steps: Option<u64>,

    /// How strongly the prompt is followed, 1 for no guidance [default: the model's own]
    #[arg(long, value_name = "SCALE", help_heading = "Model", allow_negative_numbers = true, value_parser = guidance)]
    pub(crate) cfg: Option<f64>,

    /// How far guided predictions are scaled back to the spread of the prompt's own, 0 to 1; 0.7 for models that were trained
    /// down to no signal [default: 0]
    #[arg(long, value_name = "X", help_heading = "Model", allow_negative_numbers = true, value_parser = rescale)]
    pub(crate) guidance_rescale: Option<f64>,

    /// A LoRA file that is added to the model, with how much of it, or with REF:TE:UNET how much to the text encoders and to the
    /// network; may be given several times
    #[arg(long, value_name = "REF[:SCALE]", help_heading = "Model")]
    pub(crate) lora: Vec<String>,

    /// How strongly they are followed: once for all, or once for each in their order [default: 1]
    #[arg(long, value_name = "S", help_heading = "Control", allow_negative_numbers = true, value_parser = control_scale)]
    pub(crate) control_scale: Vec<f64>,

    /// The ControlNet, a folder or an id: one for all, or one for each in their order [default: with Stable Diffusion 1.5
    /// lllyasviel's for each]
    #[arg(long, value_name = "REF", help_heading = "Control")]
    pub(crate) controlnet: Vec<String>,

    /// A second model that goes over the picture, of any family
    #[arg(long, value_name = "REF", help_heading = "Model")]
    pub(crate) refiner: Option<String>,

    /// Where the refiner takes the latents over, 0 to 1, for one that shares them with the model [default: it goes over the
    /// finished picture]
    #[arg(long, value_name = "S", help_heading = "Model", value_parser = strength)]
    pub(crate) refiner_switch: Option<f64>,

    /// How the picture is led from noise, `help` lists them [default: the model's own]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub(crate) sampler: Option<String>,

    /// Through which noise levels, `help` lists them [default: the sampler's own]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub(crate) scheduler: Option<String>,

    /// CLIP's last layers that are left out, 2 for many models of anime [default: 1]
    #[arg(long, value_name = "N", help_heading = "Model",
          allow_negative_numbers = true, value_parser = |text: &str| whole(text, 1, MOST_CLIP_SKIP))]
    pub(crate) clip_skip: Option<u64>,

    /// Memory that the run may have, 8GB say; with a GPU the GPU's [default: what is available, less a margin]
    #[arg(long, value_name = "SIZE", help_heading = "Machine", value_parser = memory)]
    pub(crate) memory: Option<Bytes>,

    /// The same of the machine's own memory beside a GPU: streamed weights stay there where they fit
    #[arg(long, value_name = "SIZE", help_heading = "Machine", value_parser = memory)]
    pub(crate) host_memory: Option<Bytes>,

    /// auto, cpu, cuda, cuda:N or metal [default: auto]
    #[arg(long, value_name = "DEVICE", help_heading = "Machine", value_parser = device)]
    pub(crate) device: Option<DeviceChoice>,

    /// Type that weights are held in: auto (as stored), f32 or bf16 [default: auto]
    #[arg(long, value_name = "TYPE", help_heading = "Machine", value_parser = weight_type)]
    pub(crate) dtype: Option<TypeChoice>,

    /// Folder for the pictures; made if missing [default: ./outputs]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) output: Option<PathBuf>,

    /// Fail where a LoRA, a ControlNet, a refiner or an upscaler is of no use, rather than go on without
    #[arg(long, help_heading = "Output")]
    pub(crate) strict: bool,
}

/// Settings with every layer in them: what was typed, then a preset's, then the user's defaults.
pub(crate) struct Settled {
    /// The preset's name, where one is drawn with.
    pub(crate) preset: Option<String>,
    /// The settings.
    pub(crate) settings: Settings,
}

/// Settings alone, as they are read from words that nobody typed.
#[derive(Parser)]
#[command(disable_help_flag = true)]
struct Words {
    #[command(flatten)]
    settings: Settings,
}

impl Settings {
    /// These settings, and what they leave open as `others` have it. LoRA files add up, those of `others` first.
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            negative_prompt: self.negative_prompt.or(others.negative_prompt),
            style: self.style.or(others.style),
            size: self.size.or(others.size),
            upscale: self.upscale.or(others.upscale),
            upscaler: self.upscaler.or(others.upscaler),
            n: self.n.or(others.n),
            seed: self.seed.or(others.seed),
            quality: self.quality.or(others.quality),
            model: self.model.or(others.model),
            steps: self.steps.or(others.steps),
            cfg: self.cfg.or(others.cfg),
            guidance_rescale: self.guidance_rescale.or(others.guidance_rescale),
            lora: [others.lora, self.lora].concat(),
            control_scale: or_all(self.control_scale, others.control_scale),
            controlnet: or_all(self.controlnet, others.controlnet),
            refiner: self.refiner.or(others.refiner),
            refiner_switch: self.refiner_switch.or(others.refiner_switch),
            sampler: self.sampler.or(others.sampler),
            scheduler: self.scheduler.or(others.scheduler),
            clip_skip: self.clip_skip.or(others.clip_skip),
            memory: self.memory.or(others.memory),
            host_memory: self.host_memory.or(others.host_memory),
            device: self.device.or(others.device),
            dtype: self.dtype.or(others.dtype),
            output: self.output.or(others.output),
            strict: self.strict || others.strict,
        }
    }

    /// Reads settings from words as they would be typed.
    ///
    /// # Errors
    /// What is wrong with them, in one line.
    pub(crate) fn from_words(words: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        // The first word is the program's name.
        let words = [OsString::new()].into_iter().chain(words);
        let parsed = Words::command()
            .try_get_matches_from(words)
            .and_then(|matches| Words::from_arg_matches(&matches));
        match parsed {
            Ok(words) => Ok(words.settings),
            Err(error) if error.kind() == ErrorKind::UnknownArgument => {
                Err("this cannot be set: `generate --help` lists the options".to_owned())
            }
            Err(error) => Err(one_line(&error)),
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

/// `values`, or `others` where there are none.
fn or_all<T>(values: Vec<T>, others: Vec<T>) -> Vec<T> {
    if values.is_empty() { others } else { values }
}

/// clap's message in one line, without its heading, its usage and what it says of `--help`. Of its tips those that name a
/// similar word stay.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"))
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let mut message = String::new();
    for line in lines {
        let (between, line) = match line.strip_prefix("tip: ") {
            Some(tip) if tip.contains("similar") => ("; ", tip),
            Some(_) => continue,
            None if message.is_empty() => ("", line),
            None => (" ", line),
        };
        message.push_str(between);
        message.push_str(line);
    }
    message
}

/// A whole number from `least` to `most`.
fn whole(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("it takes a whole number from {least} to {most}"))
}

/// A number of threads.
pub(crate) fn threads(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(threads) if threads.get() <= MOST_THREADS => Ok(threads),
        _ => Err(format!("a number of threads is from 1 to {MOST_THREADS}")),
    }
}

/// A budget, written like 8GB.
pub(crate) fn memory(text: &str) -> Result<Bytes, String> {
    text.parse::<Bytes>().map_err(|error| error.to_string())
}

fn guidance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if (0.0..=100.0).contains(&scale) => Ok(scale),
        _ => Err("a guidance scale is a number from 0 to 100".to_owned()),
    }
}

fn rescale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rescale) if (0.0..=1.0).contains(&rescale) => Ok(rescale),
        _ => Err("guidance is rescaled by a number from 0 to 1".to_owned()),
    }
}

fn control_scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if (0.0..=10.0).contains(&scale) => Ok(scale),
        _ => Err("a picture is followed by a number from 0 to 10".to_owned()),
    }
}

fn upscale(text: &str) -> Result<usize, String> {
    match text {
        "2" => Ok(2),
        "4" => Ok(4),
        _ => Err("pictures are made 2 or 4 times as large".to_owned()),
    }
}

fn style(text: &str) -> Result<&'static Style, String> {
    let names = styles::ALL.map(|style| style.name).join(", ");
    Style::find(text).ok_or_else(|| format!("the styles are {names}"))
}

fn device(text: &str) -> Result<DeviceChoice, String> {
    match text {
        "auto" => Ok(DeviceChoice::Automatic),
        "cpu" => Ok(DeviceChoice::Cpu),
        "cuda" => Ok(DeviceChoice::Cuda(0)),
        "metal" => Ok(DeviceChoice::Metal),
        other => match other.strip_prefix("cuda:").and_then(|index| index.parse().ok()) {
            Some(index) => Ok(DeviceChoice::Cuda(index)),
            None => Err("the devices are auto, cpu, cuda, cuda:N and metal".to_owned()),
        },
    }
}

fn weight_type(text: &str) -> Result<TypeChoice, String> {
    match text {
        "auto" => Ok(TypeChoice::Automatic),
        "f32" => Ok(TypeChoice::F32),
        "bf16" => Ok(TypeChoice::Bf16),
        _ => Err("the types are auto, f32 and bf16".to_owned()),
    }
}

pub(crate) fn strength(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(strength) if (0.0..=1.0).contains(&strength) => Ok(strength),
        _ => Err("a strength is a number from 0 to 1".to_owned()),
    }
}
