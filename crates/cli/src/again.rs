//! `generate again PICTURE`: generates the image of a file again, with other settings where options name them.

use sd_catalog::{Catalog, Configuration, GenerationParameters};

use crate::arguments::AgainArguments;
use crate::hint::Failure;
use crate::{generate, json};

/// Reads the parameters of the picture, and runs as `generate PROMPT` does.
///
/// # Errors
/// The file does not say how it was generated, it has a setting that cannot be used and that no option replaces,
/// something that it names is missing, or the run failed.
pub(crate) fn run(again: AgainArguments) -> Result<(), Failure> {
    let mut parameters = GenerationParameters::read(&again.picture)?;
    let configuration = Configuration::of_user()?;
    let typed = again.arguments.settings_alone()?;
    parameters.locate(&Catalog::new(&configuration), again.given(&typed))?;
    let unmet = parameters.unmet.iter();
    let unmet = unmet.filter(|unmet| !unmet.options.iter().any(|option| again.is_given(option)));
    if let Some(failure) = Failure::of_unmet(&unmet.collect::<Vec<_>>()) {
        return Err(failure);
    }
    let printer = again.arguments.display.printer();
    if typed.device.is_some() {
        parameters.settings.device = None;
    }
    if let Some(devices) = &parameters.settings.device
        && sd_pipeline::device::open(devices.first()).is_err()
    {
        parameters.settings.device = None;
        json::warn_outside_runs(
            printer,
            "the picture was generated on a device that this machine lacks: the image differs by rounding",
        );
    }
    if !parameters.differences.is_empty() {
        let message = format!(
            "the picture has settings that this program does not have, so the image will differ: {}",
            parameters.differences.join(", ")
        );
        if typed.strict {
            return Err(Failure::usage(message).advising("without --strict it is generated".to_owned()));
        }
        json::warn_outside_runs(printer, &message);
    }
    let arguments = again.over(parameters)?;
    generate::run(&arguments)
}
