//! The command line as typed, validated: an [`Invocation`]. Nothing here looks at the machine.

mod again;
mod aliases;
mod completions;
mod convert;
mod display;
mod doctor;
mod foreign_options;
mod invocation;
mod login;
mod models;
mod reserved_words;
mod resume;
mod serve;
mod settings;
mod show;
mod threads;
mod usage;

pub(crate) use again::AgainArguments;
pub(crate) use completions::{CompletionsArguments, ManArguments};
pub(crate) use convert::ConvertArguments;
use display::DisplayFlags;
pub(crate) use doctor::DoctorArguments;
pub(crate) use invocation::{Invocation, command, parse};
pub(crate) use login::LoginArguments;
pub(crate) use models::{ModelsArguments, ModelsTask};
pub(crate) use resume::ResumeArguments;
#[cfg(feature = "cluster")]
pub(crate) use serve::{ClusterArguments, WorkerArguments};
pub(crate) use serve::{EngineArguments, PsArguments, ServeArguments};
pub(crate) use show::ShowArguments;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, FromArgMatches};
use sd_catalog::presets::PRO;
use sd_catalog::{ControlImage, Inputs, Settings, parse};
use sd_pipeline::save::ImageFormat;
use sd_pipeline::{ControlKind, ImageSize, InitImage, SizeChoice, Strength};
use settings::SettingFlags;
use threads::threads;

use crate::hint::Failure;

/// The value of an option that prints the list of its names.
const HELP: &str = "help";

/// The arguments of `generate PROMPT`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What the image shows
    // Not required here: `--sampler help` and the other lists need no prompt.
    #[arg(value_name = "PROMPT")]
    positional_prompt: Option<String>,

    /// What the image shows, for a prompt that looks like an option
    #[arg(
        long = "prompt",
        value_name = "PROMPT",
        allow_hyphen_values = true,
        conflicts_with = "positional_prompt",
        id = "prompt_option"
    )]
    prompt_option: Option<String>,

    /// File with a prompt a line, each for a run of its own, or options as the command line has them; `-` for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["positional_prompt", "prompt_option"])]
    prompt_file: Option<PathBuf>,

    #[command(flatten)]
    settings: SettingFlags,

    /// Width in pixels, together with --height
    #[arg(
        long,
        value_name = "W",
        help_heading = "Image",
        requires = "height",
        conflicts_with = "size"
    )]
    width: Option<usize>,

    /// Height in pixels, together with --width
    #[arg(
        long,
        value_name = "H",
        help_heading = "Image",
        requires = "width",
        conflicts_with = "size"
    )]
    height: Option<usize>,

    /// Initial image for image-to-image
    #[arg(long, value_name = "IMG", help_heading = "Image")]
    init_image: Option<PathBuf>,

    /// Strength of image-to-image, 0 to 1 [default: 0.75, with a mask 1]
    #[arg(long, value_name = "S", help_heading = "Image", requires = "init_image",
          allow_negative_numbers = true, value_parser = parse::strength)]
    strength: Option<f64>,

    /// Mask for inpainting: white where the initial image is regenerated
    #[arg(long, value_name = "IMG", help_heading = "Image", requires = "init_image")]
    mask: Option<PathBuf>,

    /// SD 3.5 Large at its best: 28 steps, guidance 4.5, 1024x1024
    #[arg(long, help_heading = "Model", conflicts_with = "quality")]
    pub(crate) pro: bool,

    /// OpenPose image for a ControlNet
    #[arg(long, value_name = "IMG", help_heading = "Control")]
    pose: Vec<PathBuf>,

    /// Depth map for a ControlNet
    #[arg(long, value_name = "IMG", help_heading = "Control")]
    depth: Vec<PathBuf>,

    /// Photo for a ControlNet that follows its Canny edges
    #[arg(long, value_name = "IMG", help_heading = "Control")]
    canny: Vec<PathBuf>,

    /// Control image that is used as it is, for the network of --controlnet
    #[arg(long, value_name = "IMG", help_heading = "Control")]
    control: Vec<PathBuf>,

    /// The images of the four options above, in the order of the command line.
    #[arg(skip)]
    control_images: Vec<ControlImage>,

    /// The settings of the image that is generated again. Those of the command line override them.
    #[arg(skip)]
    pub(crate) image_settings: Option<Box<Settings>>,

    /// Print the memory plan without generating; `generate plan "PROMPT"` does the same
    #[arg(long, help_heading = "Machine", conflicts_with_all = display::OF_AN_IMAGE)]
    pub(crate) plan: bool,

    /// CPU threads; their number changes no image [default: the CPUs that the process may use]
    #[arg(long, value_name = "N", help_heading = "Machine", value_parser = threads)]
    pub(crate) threads: Option<NonZeroUsize>,

    #[command(flatten)]
    pub(crate) display: DisplayFlags,
}

impl Arguments {
    /// The arguments of `matches`, with control images in the order of the command line.
    fn from_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let arguments = Self::from_arg_matches(matches)?;
        let options = [
            ("pose", ControlKind::Pose, &arguments.pose),
            ("depth", ControlKind::Depth, &arguments.depth),
            ("canny", ControlKind::Canny, &arguments.canny),
            ("control", ControlKind::Image, &arguments.control),
        ];
        let mut typed: Vec<(usize, ControlImage)> = Vec::new();
        for (id, kind, images) in options {
            let indices = matches.indices_of(id).into_iter().flatten();
            typed.extend(indices.zip(images).map(|(index, image)| {
                let image = image.clone();
                (index, ControlImage { kind, image })
            }));
        }
        typed.sort_by_key(|(index, _)| *index);
        Ok(Self {
            control_images: typed.into_iter().map(|(_, image)| image).collect(),
            ..arguments
        })
    }

    /// Where the prompt, or the prompts, come from.
    pub(crate) fn prompt_source(&self) -> PromptSource<'_> {
        // A prompt that is a single hyphen can still be typed with --prompt.
        match (&self.prompt_file, &self.positional_prompt, &self.prompt_option) {
            (Some(file), _, _) => PromptSource::File(file),
            (None, Some(text), _) if text == "-" => PromptSource::Stdin,
            (None, Some(text), _) | (None, None, Some(text)) => PromptSource::Text(text),
            (None, None, None) => PromptSource::None,
        }
    }

    /// The output as it was typed.
    pub(crate) fn output(&self) -> Option<&Path> {
        self.settings.output.as_deref()
    }

    /// The options of a line of a file of prompts: its `words`, which have the names of options here, and what was
    /// `typed` for each.
    ///
    /// # Errors
    /// The line is no command line, in one line.
    pub(crate) fn of_line(words: impl Iterator<Item = String>, typed: &[String]) -> Result<Self, String> {
        let program = || std::iter::once("generate".to_owned());
        let words: Vec<_> = program().chain(words).collect();
        let typed: Vec<_> = program().chain(typed.iter().cloned()).collect();
        let command = clap::Command::new("generate").version(env!("CARGO_PKG_VERSION"));
        let command = aliases::added_to(Self::augment_args(command));
        let matches = command.clone().try_get_matches_from(&words);
        matches
            .and_then(|matches| Self::from_matches(&matches))
            .map_err(|error| match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                    "--help and --version are for the command line, not for a line of prompts".to_owned()
                }
                _ => usage::message(&error, &command, &typed),
            })
    }

    /// Whether there is anything beside the prompt and settings.
    pub(crate) fn has_other_than_settings(&self) -> bool {
        self.plan
            || self.pro
            || self.threads.is_some()
            || self.display.has_any()
            || self.init_image.is_some()
            || !self.control_images.is_empty()
    }

    /// The list that `--sampler help`, `--scheduler help` or `--quality help` asks for, if any.
    pub(crate) fn list(&self) -> Option<List> {
        let is_help = |name: &Option<String>| name.as_deref() == Some(HELP);
        if is_help(&self.settings.sampler) {
            Some(List::Samplers)
        } else if is_help(&self.settings.scheduler) {
            Some(List::Schedules)
        } else if is_help(&self.settings.quality) {
            Some(List::Presets)
        } else {
            None
        }
    }

    /// The settings of the command line: the uppermost layer.
    ///
    /// # Errors
    /// The size is invalid, or a flag lacks another that it needs.
    pub(crate) fn typed(&self) -> Result<Settings, Failure> {
        let typed = self.settings_alone()?;
        let idle = match (typed.controlnet.is_empty(), typed.control_scale.is_empty()) {
            _ if !self.control_images.is_empty() => None,
            (false, _) => Some("--controlnet"),
            (true, false) => Some("--control-scale"),
            (true, true) => None,
        };
        match idle {
            Some(flag) => Err(Failure::together(flag, "--pose, --depth, --canny or --control")),
            None => Ok(typed),
        }
    }

    /// The settings of the command line, which may lack what the settings of an image have.
    ///
    /// # Errors
    /// The size is invalid.
    pub(crate) fn settings_alone(&self) -> Result<Settings, Failure> {
        let mut typed = Settings::from(self.settings.clone());
        if let (Some(width), Some(height)) = (self.width, self.height) {
            let size = ImageSize::new(width, height).map_err(|error| Failure::usage(error.to_string()))?;
            typed.size = Some(size.into());
        }
        if self.pro {
            typed.quality = Some(PRO.to_owned());
            typed.size = typed
                .size
                .or(ImageSize::new(1024, 1024).ok().map(SizeChoice::from));
        }
        Ok(typed)
    }

    /// Refuses flags of the command line that have no effect with `settings`, the result of all layers. Defaults of the
    /// configuration may have no effect.
    pub(crate) fn check_effects(&self, settings: &Settings) -> Result<(), Failure> {
        if self.settings.upscaler.is_some() && settings.upscale.is_none() {
            return Err(Failure::together("--upscaler", "--upscale"));
        }
        if self.settings.refiner_switch.is_some() && settings.refiner.is_none() {
            return Err(Failure::together("--refiner-switch", "--refiner"));
        }
        let is_jpeg = |path: &Path| {
            let format = path
                .extension()
                .and_then(|extension| ImageFormat::of_extension(extension.to_str()?));
            matches!(format, Some(ImageFormat::Jpeg { .. }))
        };
        if self.settings.jpeg_quality.is_some() && !settings.output.as_deref().is_some_and(is_jpeg) {
            return Err(Failure::together(
                "--jpeg-quality",
                "an --output that ends in .jpg",
            ));
        }
        Ok(())
    }

    /// `prompt` with the images of the command line.
    pub(crate) fn inputs(&self, prompt: String) -> Inputs {
        Inputs {
            prompt,
            init: self.init_image.as_ref().map(|image| InitImage {
                image: image.clone(),
                strength: self.strength.map(Strength),
                mask: self.mask.clone(),
            }),
            control_images: self.control_images.clone(),
        }
    }
}

/// Where prompts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PromptSource<'a> {
    /// They were typed.
    Text(&'a str),
    /// The text of stdin is the prompt.
    Stdin,
    /// A file, or `-` for stdin, holds a prompt a line.
    File(&'a Path),
    /// There is none.
    None,
}

/// A list that is printed instead of generating.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// Of samplers.
    Samplers,
    /// Of noise schedules.
    Schedules,
    /// Of presets.
    Presets,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_images_keep_the_order_of_the_command_line() {
        let words = "generate x --control a --pose b --control c --depth d --controlnet n --controlnet m";
        let matches = command().try_get_matches_from(words.split(' ')).unwrap();
        let arguments = Arguments::from_matches(&matches).unwrap();
        let typed: Vec<(ControlKind, &str)> = arguments
            .control_images
            .iter()
            .map(|control| (control.kind, control.image.to_str().unwrap()))
            .collect();
        let expected = [
            (ControlKind::Image, "a"),
            (ControlKind::Pose, "b"),
            (ControlKind::Image, "c"),
            (ControlKind::Depth, "d"),
        ];
        assert_eq!(typed, expected);
        assert_eq!(arguments.typed().unwrap().controlnet, ["n", "m"]);
    }

    #[test]
    fn prompt_and_size_can_be_typed_either_way() {
        let parse = |words: &[&str]| {
            let matches = command().try_get_matches_from([&["generate"], words].concat())?;
            Arguments::from_matches(&matches)
        };
        let first = parse(&["a cat", "--size", "64x32"]).unwrap();
        let second = parse(&["--prompt", "a cat", "--width", "64", "--height", "32"]).unwrap();
        for arguments in [first, second] {
            assert_eq!(arguments.prompt_source(), PromptSource::Text("a cat"));
            assert_eq!(
                arguments.typed().unwrap().size,
                ImageSize::new(64, 32).ok().map(SizeChoice::from)
            );
        }
        for invalid in [
            &["a cat", "--prompt", "a dog"][..],
            &["a cat", "--width", "64"],
            &["a cat", "--cfg", "nan"],
            &["a cat", "--guidance-rescale", "1.5"],
            &["a cat", "--guidance-rescale", "-0.1"],
            &["a cat", "--n", "0"],
            &["a cat", "--steps", "0"],
            &["a cat", "--threads", "0"],
            &["a cat", "--device", "tpu"],
            &["a cat", "--seed", "-2"],
            &["a cat", "resume"],
            &["resume", "k7f3x9qa", "--last"],
        ] {
            assert!(parse(invalid).is_err(), "{invalid:?}");
        }
    }
}
