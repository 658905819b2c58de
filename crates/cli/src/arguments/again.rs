//! The arguments of `generate again`: a picture, and every option of `generate PROMPT`.

use std::path::PathBuf;

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches};
use sd_catalog::{GenerationParameters, Given};
use sd_pipeline::Strength;

use super::{Arguments, PromptSource, aliases};
use crate::hint::Failure;

/// The arguments of `generate again`.
#[derive(Debug)]
pub(crate) struct AgainArguments {
    /// The picture.
    pub(crate) picture: PathBuf,
    /// The options, which override the settings of the picture.
    pub(crate) arguments: Arguments,
    /// The names of the options that were typed, without their dashes.
    given: Vec<String>,
}

impl FromArgMatches for AgainArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut arguments = Arguments::from_matches(matches)?;
        let picture = arguments.positional_prompt.take().unwrap_or_default();
        let is_typed = |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
        let ids = matches.ids().filter(is_typed);
        Ok(Self {
            picture: picture.into(),
            arguments,
            given: ids.map(|id| id.as_str().replace('_', "-")).collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for AgainArguments {
    fn augment_args(command: Command) -> Command {
        aliases::added_to(Arguments::augment_args(command))
            .about(
                "Generates the image of a PNG, JPEG, WebP or .json file again; options override its settings",
            )
            .long_about(None)
            .override_usage("generate again PICTURE [OPTIONS]")
            .after_help(
                "Examples:\n  \
                 generate again lighthouse.png --seed random\n  \
                 generate again lighthouse.png --prompt \"a lighthouse in winter\" -o winter.png\n\n\
                 What no option sets is as the picture has it, and not as the defaults above say.",
            )
            .mut_args(|argument| match argument.get_id().as_str() {
                "positional_prompt" => argument
                    .value_name("PICTURE")
                    .help("Image of this program, of stable-diffusion-webui or of ComfyUI, or its .json file")
                    .required(true),
                "prompt_option" => argument
                    .conflicts_with(Resettable::Reset)
                    .help("Prompt in place of the picture's"),
                "prompt_file" => argument
                    .conflicts_with(Resettable::Reset)
                    .conflicts_with("prompt_option"),
                // The picture may have the initial image.
                "strength" | "mask" => argument.requires(Resettable::Reset),
                _ => argument,
            })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl AgainArguments {
    /// What the command line has in place of the picture's parameters.
    pub(crate) fn given<'a>(&self, settings: &'a sd_catalog::Settings) -> Given<'a> {
        Given {
            settings,
            prompt: self.has_prompt(),
            control_images: self.arguments.control_images.len(),
        }
    }

    /// Whether `option`, without its dashes, was typed.
    pub(crate) fn is_given(&self, option: &str) -> bool {
        match option {
            "prompt" => self.has_prompt(),
            "size" => self.given.iter().any(|given| given == "size" || given == "width"),
            _ => self.given.iter().any(|given| given == option),
        }
    }

    fn has_prompt(&self) -> bool {
        self.arguments.prompt_source() != PromptSource::None
    }

    /// The arguments of `generate PROMPT` for the picture with these `parameters`: what was not typed is the picture's.
    ///
    /// # Errors
    /// An option needs an initial image, and neither the command line nor the picture names one.
    pub(crate) fn over(self, parameters: GenerationParameters) -> Result<Arguments, Failure> {
        let has_prompt = self.has_prompt();
        let mut arguments = self.arguments;
        if !has_prompt {
            arguments.prompt_option = Some(parameters.prompt.clone());
        }
        if arguments.control_images.is_empty() {
            arguments.control_images.clone_from(&parameters.control_images);
        }
        let strength = parameters.strength();
        match parameters.init {
            Some(init) if arguments.init_image.is_none() => {
                arguments.init_image = Some(init.image);
                arguments.mask = arguments.mask.or(init.mask);
                arguments.strength = arguments
                    .strength
                    .or(init.strength.map(|Strength(strength)| strength));
            }
            _ if arguments.init_image.is_some() => arguments.strength = arguments.strength.or(strength),
            _ if arguments.strength.is_some() => return Err(Failure::together("--strength", "--init-image")),
            _ if arguments.mask.is_some() => return Err(Failure::together("--mask", "--init-image")),
            _ => {}
        }
        arguments.image_settings = Some(Box::new(parameters.settings));
        Ok(arguments)
    }
}
