//! The command line as typed: names, defaults and ranges. Nothing here looks at the machine.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use sd_pipeline::styles::{self, Style};
use sd_pipeline::{Bytes, DeviceChoice, ImageSize, TypeChoice};

use crate::hint::Failure;
use crate::resume::ResumeArguments;

/// Most pictures of one run.
const MOST_IMAGES: u64 = 10_000;
/// Most denoising steps.
const MOST_STEPS: u64 = 1000;

/// Most threads that compute.
const MOST_THREADS: usize = 4096;

/// Draws pictures with Stable Diffusion on your own machine.
#[derive(Debug, Parser)]
#[command(
    name = "generate",
    version,
    override_usage = "generate \"PROMPT\" [OPTIONS]",
    after_help = "Each picture's path goes to stdout, progress to stderr. Beside every picture lies a .json file that says \
                  how it was made.\nExit codes: 0 done, 1 failed, 2 bad usage, 3 too little memory, 4 a model is missing, 130 interrupted.",
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    term_width = 100
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// What the picture shows
    // Those beside it may ask for a list in its place.
    #[arg(value_name = "PROMPT", required_unless_present_any = ["prompt_option", "sampler", "scheduler", "quality"])]
    positional_prompt: Option<String>,

    /// What the picture shows, for a prompt that looks like an option
    #[arg(
        long = "prompt",
        value_name = "PROMPT",
        conflicts_with = "positional_prompt",
        id = "prompt_option"
    )]
    prompt_option: Option<String>,

    /// What it should not show
    #[arg(long, value_name = "TEXT", help_heading = "Picture")]
    pub(crate) negative_prompt: Option<String>,

    /// anime, fantasy, scifi or realism: words for the prompt, and what not to show where nothing is said of it
    #[arg(long, value_name = "NAME", help_heading = "Picture", value_parser = style)]
    pub(crate) style: Option<&'static Style>,

    /// Width and height in pixels, multiples of 16 [default: the model's own]
    #[arg(long, value_name = "WxH", help_heading = "Picture")]
    size: Option<ImageSize>,

    /// Width in pixels, together with --height
    #[arg(
        long,
        value_name = "W",
        help_heading = "Picture",
        requires = "height",
        conflicts_with = "size"
    )]
    width: Option<usize>,

    /// Height in pixels, together with --width
    #[arg(
        long,
        value_name = "H",
        help_heading = "Picture",
        requires = "width",
        conflicts_with = "size"
    )]
    height: Option<usize>,

    /// A picture to draw over
    #[arg(long, value_name = "IMG", help_heading = "Picture")]
    pub(crate) init_image: Option<PathBuf>,

    /// How much of it is changed, 0 to 1 [default: 0.75, with a mask 1]
    #[arg(long, value_name = "S", help_heading = "Picture", requires = "init_image", value_parser = strength)]
    pub(crate) strength: Option<f64>,

    /// A picture of its size that is bright where something is drawn
    #[arg(long, value_name = "IMG", help_heading = "Picture", requires = "init_image")]
    pub(crate) mask: Option<PathBuf>,

    /// Make it 2 or 4 times as large in the end
    #[arg(long, value_name = "N", help_heading = "Picture", value_parser = upscale)]
    pub(crate) upscale: Option<usize>,

    /// The network that does, a .pth or .safetensors file of Real-ESRGAN [default: Lanczos resampling]
    #[arg(long, value_name = "REF", help_heading = "Picture", requires = "upscale")]
    pub(crate) upscaler: Option<PathBuf>,

    /// How many pictures; picture i uses seed + i
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Picture",
          value_parser = clap::value_parser!(u64).range(1..=MOST_IMAGES))]
    pub(crate) n: u64,

    /// The same seed draws the same picture
    #[arg(long, value_name = "N", default_value_t = 42, help_heading = "Picture")]
    pub(crate) seed: u64,

    /// SD 3.5 Large at its best: 28 steps, guidance 4.5, 1024x1024
    #[arg(long, help_heading = "Model", conflicts_with = "quality")]
    pub(crate) pro: bool,

    /// A preset, `help` lists them; what is said beside it wins [default: auto, the best on this machine that fits]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub(crate) quality: Option<String>,

    /// `demo`, a folder in the layout of diffusers, or the id of a model in the Hugging Face cache
    #[arg(long, value_name = "REF", help_heading = "Model")]
    pub(crate) model: Option<String>,

    /// Denoising steps [default: the model's own]
    #[arg(long, value_name = "N", help_heading = "Model",
          value_parser = clap::value_parser!(u64).range(1..=MOST_STEPS))]
    pub(crate) steps: Option<u64>,

    /// How strongly the prompt is followed, 1 for no guidance [default: the model's own]
    #[arg(long, value_name = "SCALE", help_heading = "Model", value_parser = guidance)]
    pub(crate) cfg: Option<f64>,

    /// A LoRA file that is added to the model, with how much of it; may be given several times
    #[arg(long, value_name = "REF[:SCALE]", help_heading = "Model")]
    pub(crate) lora: Vec<String>,

    /// A drawn pose to follow, with a ControlNet
    #[arg(long, value_name = "IMG", help_heading = "Control")]
    pub(crate) pose: Option<PathBuf>,

    /// A map of distances to follow
    #[arg(long, value_name = "IMG", help_heading = "Control")]
    pub(crate) depth: Option<PathBuf>,

    /// A photo whose edges are followed
    #[arg(long, value_name = "IMG", help_heading = "Control")]
    pub(crate) canny: Option<PathBuf>,

    /// How strongly they are followed
    #[arg(long, value_name = "S", default_value_t = 1.0, help_heading = "Control")]
    pub(crate) control_scale: f64,

    /// The ControlNet, a folder or an id [default: that of Stable Diffusion 1.5 for each]
    #[arg(long, value_name = "REF", help_heading = "Control")]
    pub(crate) controlnet: Option<String>,

    /// A second model that goes over the picture, of any family
    #[arg(long, value_name = "REF", help_heading = "Model")]
    pub(crate) refiner: Option<String>,

    /// Where the refiner takes the latents over, 0 to 1, for one that shares them with the model [default: it goes over the
    /// finished picture]
    #[arg(long, value_name = "S", help_heading = "Model", requires = "refiner", value_parser = strength)]
    pub(crate) refiner_switch: Option<f64>,

    /// How the picture is led from noise, `help` lists them [default: the model's own]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub(crate) sampler: Option<String>,

    /// Through which noise levels, `help` lists them [default: the sampler's own]
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub(crate) scheduler: Option<String>,

    /// CLIP's last layers that are left out, 2 for many models of anime
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Model",
          value_parser = clap::value_parser!(u64).range(1..=12))]
    pub(crate) clip_skip: u64,

    /// Memory that the run may have, 8GB say; with a GPU the GPU's [default: what is available, less a margin]
    #[arg(long, value_name = "SIZE", help_heading = "Machine", value_parser = memory)]
    pub(crate) memory: Option<Bytes>,

    /// The same of the machine's own memory beside a GPU: streamed weights stay there where they fit
    #[arg(long, value_name = "SIZE", help_heading = "Machine", value_parser = memory)]
    pub(crate) host_memory: Option<Bytes>,

    /// Show where each byte would live and draw nothing; `generate plan "PROMPT"` does the same
    #[arg(long, help_heading = "Machine")]
    pub(crate) plan: bool,

    /// auto, cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "DEVICE", default_value = "auto", help_heading = "Machine", value_parser = device)]
    pub(crate) device: DeviceChoice,

    /// Threads that compute; their number changes no picture [default: the processors that the process may use]
    #[arg(long, value_name = "N", help_heading = "Machine", value_parser = threads)]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Type that weights are held in: auto (as stored), f32 or bf16
    #[arg(long, value_name = "TYPE", default_value = "auto", help_heading = "Machine", value_parser = weight_type)]
    pub(crate) dtype: TypeChoice,

    /// Folder for the pictures; made if missing
    #[arg(
        long,
        value_name = "DIR",
        default_value = "./outputs",
        help_heading = "Output"
    )]
    pub(crate) output: PathBuf,

    /// Fail where a LoRA, a ControlNet, a refiner or an upscaler cannot be had, rather than go on without
    #[arg(long, help_heading = "Output")]
    pub(crate) strict: bool,

    /// Write a page that shows the run's memory over time; replaces an earlier one
    #[arg(long, value_name = "FILE", help_heading = "Output", conflicts_with = "plan")]
    pub(crate) profile: Option<PathBuf>,

    /// Print one JSON event a line
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,

    /// Print only paths and errors
    #[arg(long, help_heading = "Output")]
    pub(crate) quiet: bool,
}

/// What else than drawing and planning can be asked for, as the first word. A prompt that is such a word goes into
/// `--prompt`, or after `--`.
#[derive(Debug, Subcommand)]
enum Command {
    Resume(ResumeArguments),
}

impl Arguments {
    /// Whether a prompt was typed.
    pub(crate) fn has_prompt(&self) -> bool {
        self.positional_prompt.is_some() || self.prompt_option.is_some()
    }

    /// The prompt, typed either way.
    pub(crate) fn prompt(&self) -> &str {
        self.positional_prompt
            .as_deref()
            .or(self.prompt_option.as_deref())
            .unwrap_or_default()
    }

    /// The size, typed either way.
    pub(crate) fn size(&self) -> Result<Option<ImageSize>, Failure> {
        match (self.width, self.height) {
            (Some(width), Some(height)) => ImageSize::new(width, height)
                .map(Some)
                .map_err(|error| Failure::usage(error.to_string())),
            _ => Ok(self.size),
        }
    }
}

/// What the command line asks for.
pub(crate) enum Typed {
    /// A run.
    Run(Box<Arguments>),
    /// Going on with runs that were interrupted.
    Resume(ResumeArguments),
    /// The help or the version, to be shown.
    Show(String),
    /// Nothing that can be done.
    Wrong(Failure),
}

/// Reads the command line.
pub(crate) fn parse() -> Typed {
    let parsed = Arguments::command()
        .try_get_matches_from(with_subcommands_as_options(std::env::args_os()))
        .and_then(|matches| Arguments::from_arg_matches(&matches));
    match parsed {
        Ok(arguments) => match arguments.command {
            Some(Command::Resume(resume)) => Typed::Resume(resume),
            None => Typed::Run(Box::new(arguments)),
        },
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Typed::Show(error.render().to_string())
        }
        Err(error) => Typed::Wrong(Failure::usage(one_line(&error))),
    }
}

/// Turns a word that is a command, where it comes first, into the option that means it: `plan` into `--plan`.
fn with_subcommands_as_options(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.collect();
    if let Some(word) = words.get_mut(1).filter(|word| *word == "plan") {
        *word = "--plan".into();
    }
    words
}

/// A budget, written like 8GB.
pub(crate) fn memory(text: &str) -> Result<Bytes, String> {
    text.parse::<Bytes>().map_err(|error| error.to_string())
}

/// A number of threads.
pub(crate) fn threads(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(threads) if threads.get() <= MOST_THREADS => Ok(threads),
        _ => Err(format!("a number of threads is from 1 to {MOST_THREADS}")),
    }
}

/// clap's message without its heading and its usage, in one line.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let lines = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

fn guidance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if (0.0..=100.0).contains(&scale) => Ok(scale),
        _ => Err("a guidance scale is a number from 0 to 100".to_owned()),
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

fn strength(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(strength) if (0.0..=1.0).contains(&strength) => Ok(strength),
        _ => Err("a strength is a number from 0 to 1".to_owned()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_prompt_can_be_the_word_of_a_command() {
        let parse = |words: &[&str]| Arguments::try_parse_from([&["generate"], words].concat()).unwrap();
        assert!(parse(&["resume"]).command.is_some());
        assert!(parse(&["resume", "--last", "--json"]).command.is_some());
        for words in [
            &["--", "resume"][..],
            &["--prompt", "resume"],
            &["--seed", "1", "resume"],
            &["resume the game"],
        ] {
            let arguments = Arguments::try_parse_from([&["generate"], words].concat());
            assert!(
                arguments.is_ok_and(|arguments| arguments.command.is_none()),
                "{words:?}"
            );
        }
    }

    #[test]
    fn prompt_and_size_can_be_typed_either_way() {
        let parse = |words: &[&str]| Arguments::try_parse_from([&["generate"], words].concat());
        let first = parse(&["a cat", "--size", "64x32"]).unwrap();
        let second = parse(&["--prompt", "a cat", "--width", "64", "--height", "32"]).unwrap();
        for arguments in [first, second] {
            assert_eq!(arguments.prompt(), "a cat");
            assert_eq!(arguments.size().ok(), Some(ImageSize::new(64, 32).ok()));
        }
        for wrong in [
            &["a cat", "--prompt", "a dog"][..],
            &[],
            &["a cat", "--width", "64"],
            &["a cat", "--cfg", "nan"],
            &["a cat", "--n", "0"],
            &["a cat", "--steps", "0"],
            &["a cat", "--threads", "0"],
            &["a cat", "--device", "tpu"],
            &["a cat", "--seed", "-1"],
            &["a cat", "resume"],
            &["resume", "k7f3x9qa", "--last"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
