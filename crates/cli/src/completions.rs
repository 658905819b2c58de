//! `generate completions SHELL` and `generate man`: what packages install beside the program.

use clap::builder::PossibleValuesParser;
use clap_mangen::Man;
use sd_catalog::presets::ALL;
use sd_catalog::{AUTO, styles};
use sd_pipeline::scheduler::{SamplerKind, ScheduleKind};

use crate::arguments::{CompletionsArguments, ManArguments, command};
use crate::hint::Failure;
use crate::terminal;

/// The program's name.
const PROGRAM: &str = "generate";

/// Prints the script of a shell.
pub(crate) fn completions(arguments: &CompletionsArguments) {
    let mut command = with_values(command());
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, PROGRAM, &mut script);
    terminal::print_bytes(&script);
}

/// `command` with the values of options that have lists of them.
fn with_values(command: clap::Command) -> clap::Command {
    let presets = ALL
        .iter()
        .map(|preset| preset.name.to_owned())
        .chain([AUTO.to_owned()]);
    // As ComfyUI writes them: shells take spaces for the end of a word.
    let plain = |name: &str| name.to_lowercase().replace('+', "p").replace(' ', "_");
    let samplers = SamplerKind::ALL.iter().map(|sampler| plain(sampler.name()));
    let schedules = ScheduleKind::ALL
        .iter()
        .map(|schedule| schedule.name().to_owned());
    let styles = styles::ALL.iter().map(|style| style.name.to_owned());
    let fixed = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    [
        ("quality", presets.collect()),
        ("sampler", samplers.collect()),
        ("scheduler", schedules.collect()),
        ("style", styles.collect()),
        ("device", fixed(&["auto", "cpu", "cuda", "metal"])),
        ("dtype", fixed(&["auto", "f32", "f16", "bf16"])),
        ("rng", fixed(&["torch", "philox"])),
        ("prediction", fixed(&["epsilon", "v", "flow"])),
        ("upscale", fixed(&["2", "4"])),
    ]
    .into_iter()
    .fold(command, |command, (option, values): (_, Vec<String>)| {
        let with_values = |command: clap::Command| {
            command.mut_arg(option, |argument| {
                argument.value_parser(PossibleValuesParser::new(values.clone()))
            })
        };
        ["again", "plan"]
            .into_iter()
            .fold(with_values(command), |command, name| {
                command.mut_subcommand(name, with_values)
            })
    })
}

/// Prints the manual page of a command.
///
/// # Errors
/// There is no such command, or the page cannot be written.
pub(crate) fn man(arguments: &ManArguments) -> Result<(), Failure> {
    let mut named = command();
    named.build();
    for word in &arguments.command {
        let Some(next) = named.find_subcommand(word) else {
            return Err(Failure::usage(format!("there is no command `{word}`")));
        };
        named = next.clone();
    }
    let name = std::iter::once(PROGRAM).chain(arguments.command.iter().map(String::as_str));
    let name = name.collect::<Vec<_>>().join("-");
    let mut page = Vec::new();
    let named = named.name(name).version(env!("CARGO_PKG_VERSION"));
    let written = Man::new(named).render(&mut page);
    written.map_err(|error| Failure::other(format!("cannot write the page: {error}")))?;
    terminal::print_bytes(&page);
    Ok(())
}
