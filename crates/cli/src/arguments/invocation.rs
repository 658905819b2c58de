//! [`parse`]: from the words of the command line to an [`Invocation`].

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

#[cfg(feature = "cluster")]
use super::WorkerArguments;
use super::{
    AgainArguments, Arguments, CompletionsArguments, ConvertArguments, DoctorArguments, LoginArguments,
    ManArguments, ModelsArguments, PsArguments, ResumeArguments, ServeArguments, ShowArguments, aliases,
    reserved_words, usage,
};
use crate::hint::Failure;
use crate::share;

/// The subcommand of plans.
const PLAN: &str = "plan";

/// Generates images with Stable Diffusion on your own machine.
#[derive(Debug, Parser)]
#[command(
    name = "generate",
    version,
    override_usage = "generate \"PROMPT\" [OPTIONS]",
    after_help = "Examples:\n  \
                  generate \"a red circle\"\n  \
                  generate \"an old lighthouse\" --quality fast --seed 7 -o lighthouse.png\n  \
                  generate \"a castle of ice\" --init-image castle.jpg --strength 0.6\n  \
                  generate plan \"epic landscape\" --pro --memory 8GB\n  \
                  generate again lighthouse.png --steps 40\n\n\
                  The path of each saved image goes to stdout, progress to stderr. Beside each image a .json file holds \
                  its settings.\nDefaults can be set in the configuration file sd-generate/config.toml.\nExit codes: 0 done, 1 failed, 2 bad usage, 3 too little memory, 4 a model is missing, 130 interrupted.",
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true,
    max_term_width = 100
)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    arguments: Arguments,
}

/// The subcommands other than [`plan`] and `help`. A prompt that equals one goes into `--prompt`, or after `--`.
#[derive(Debug, Subcommand)]
enum Command {
    Again(Box<AgainArguments>),
    Show(ShowArguments),
    Resume(ResumeArguments),
    Models(ModelsArguments),
    Login(LoginArguments),
    Doctor(DoctorArguments),
    Convert(ConvertArguments),
    Serve(Box<ServeArguments>),
    #[cfg(feature = "cluster")]
    Worker(Box<WorkerArguments>),
    Ps(PsArguments),
    Completions(CompletionsArguments),
    Man(ManArguments),
}

/// The parsed command line.
pub(crate) enum Invocation {
    /// `generate PROMPT` or `generate plan PROMPT`.
    Generate(Box<Arguments>),
    /// The process of one of several devices.
    Share,
    /// `generate again`.
    Again(Box<AgainArguments>),
    /// `generate show`.
    Show(ShowArguments),
    /// `generate resume`.
    Resume(ResumeArguments),
    /// `generate models`.
    Models(ModelsArguments),
    /// `generate login`.
    Login(LoginArguments),
    /// `generate doctor`.
    Doctor(DoctorArguments),
    /// `generate convert`.
    Convert(ConvertArguments),
    /// `generate serve`.
    Serve(Box<ServeArguments>),
    /// `generate worker`.
    #[cfg(feature = "cluster")]
    Worker(Box<WorkerArguments>),
    /// `generate ps`.
    Ps(PsArguments),
    /// `generate completions`.
    Completions(CompletionsArguments),
    /// `generate man`.
    Man(ManArguments),
    /// The text of `--help` or `--version`.
    Text(String),
    /// A command line that is refused.
    Invalid {
        /// Why.
        failure: Failure,
        /// Whether errors are written as JSON too.
        json: bool,
    },
}

/// The command line as clap has it.
pub(crate) fn command() -> clap::Command {
    aliases::added_to(CommandLine::command()).subcommand(plan())
}

/// The subcommand `plan`, for its help, the manual and completions. What is typed becomes the option `--plan`.
fn plan() -> clap::Command {
    aliases::added_to(Arguments::augment_args(clap::Command::new(PLAN)))
        .about("Prints the memory and the time that each stage of a run needs, without generating")
        .long_about(None)
        .override_usage("generate plan \"PROMPT\" [OPTIONS]")
        .display_order(0)
        .mut_arg("plan", |argument| argument.hide(true))
}

/// Parses the command line.
pub(crate) fn parse() -> Invocation {
    let words = with_commands_as_options(std::env::args_os());
    if words.len() == 2 && words[1] == share::WORD {
        return Invocation::Share;
    }
    invocation(&words)
}

fn invocation(words: &[OsString]) -> Invocation {
    let invalid = |failure| Invocation::Invalid {
        failure,
        json: words.iter().any(|word| word == "--json"),
    };
    let mut command = command();
    if let Some(failure) = usage::of_plan(words) {
        return invalid(failure);
    }
    if let Some(failure) = reserved_words::refused_command(words) {
        return invalid(failure);
    }
    let parsed = command.try_get_matches_from_mut(words).and_then(|matches| {
        if matches.subcommand_name() == Some(PLAN) {
            // The help was not wanted after all: it is the text of a prompt.
            let mut words = words.to_vec();
            words[1] = "--plan".into();
            let matches = command.try_get_matches_from_mut(words)?;
            return Ok(CommandLine {
                command: None,
                arguments: Arguments::from_matches(&matches)?,
            });
        }
        let line = CommandLine::from_arg_matches(&matches)?;
        Ok(CommandLine {
            arguments: Arguments::from_matches(&matches)?,
            ..line
        })
    });
    match parsed {
        Ok(line) => match line.command {
            Some(Command::Again(again)) => Invocation::Again(again),
            Some(Command::Show(show)) => Invocation::Show(show),
            Some(Command::Resume(resume)) => Invocation::Resume(resume),
            Some(Command::Models(models)) => Invocation::Models(models),
            Some(Command::Login(login)) => Invocation::Login(login),
            Some(Command::Doctor(doctor)) => Invocation::Doctor(doctor),
            Some(Command::Convert(convert)) => Invocation::Convert(convert),
            Some(Command::Serve(serve)) => Invocation::Serve(serve),
            #[cfg(feature = "cluster")]
            Some(Command::Worker(worker)) => Invocation::Worker(worker),
            Some(Command::Ps(ps)) => Invocation::Ps(ps),
            Some(Command::Completions(completions)) => Invocation::Completions(completions),
            Some(Command::Man(man)) => Invocation::Man(man),
            None => {
                let prompt = line.arguments.positional_prompt.as_deref();
                match prompt.and_then(|prompt| reserved_words::refused_prompt(prompt, words)) {
                    Some(failure) => invalid(failure),
                    None => Invocation::Generate(Box::new(line.arguments)),
                }
            }
        },
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Invocation::Text(error.render().to_string())
        }
        Err(error) => invalid(usage::failure(&error, words, &command)),
    }
}

/// Turns a leading `plan` into `--plan`, unless its help is wanted, and a leading `help` into `--help` for the words
/// after it.
fn with_commands_as_options(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.collect();
    let is_help = |word: &OsString| word == "--help" || word == "-h";
    match words.get(1).and_then(|word| word.to_str()) {
        Some(PLAN) if words.iter().take_while(|word| *word != "--").any(is_help) => {}
        Some(PLAN) => words[1] = "--plan".into(),
        Some("help") => {
            words.remove(1);
            words.push("--help".into());
        }
        _ => {}
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation_of(words: &[&str]) -> Invocation {
        let words: Vec<OsString> = ["generate"].iter().chain(words).map(OsString::from).collect();
        invocation(&words)
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn a_prompt_can_be_the_word_of_a_command() {
        assert!(matches!(invocation_of(&["resume"]), Invocation::Resume(_)));
        assert!(matches!(
            invocation_of(&["resume", "--last", "--json"]),
            Invocation::Resume(_)
        ));
        for words in [
            &["--", "resume"][..],
            &["--prompt", "resume"],
            &["--prompt", "--resume"],
            &["--seed", "1", "--", "serve"],
            &["resume the game"],
        ] {
            assert!(
                matches!(invocation_of(words), Invocation::Generate(_)),
                "{words:?}"
            );
        }
        for words in [
            &["worker"][..],
            &["serve", "--part", "80"],
            &["--seed", "1", "resume"],
            &["--plan", "doctor"],
            &["ls"],
        ] {
            assert!(
                matches!(invocation_of(words), Invocation::Invalid { .. }),
                "{words:?}"
            );
        }
    }

    #[test]
    fn plans_have_a_help_of_their_own() {
        let Invocation::Text(text) = invocation_of(&["plan", "-h"]) else {
            panic!("no help");
        };
        assert!(text.contains("Usage: generate plan \"PROMPT\""), "{text}");
        let Invocation::Generate(arguments) = invocation_of(&["plan", "--prompt", "-h"]) else {
            panic!("no plan");
        };
        assert!(arguments.plan);
    }

    #[test]
    fn leading_plan_and_help_become_options() {
        let typed = |words: &[&str]| {
            let words = ["generate"].iter().chain(words).map(OsString::from);
            let words = with_commands_as_options(words).into_iter();
            words
                .skip(1)
                .map(|word| word.into_string().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(typed(&["plan", "a cat"]), ["--plan", "a cat"]);
        assert_eq!(typed(&["plan", "--", "-h"]), ["--plan", "--", "-h"]);
        assert_eq!(typed(&["plan", "-h"]), ["plan", "-h"]);
        assert_eq!(typed(&["help"]), ["--help"]);
        assert_eq!(typed(&["help", "models", "pull"]), ["models", "pull", "--help"]);
        assert_eq!(typed(&["--", "help"]), ["--", "help"]);
        assert_eq!(typed(&["help wanted"]), ["help wanted"]);
    }
}
