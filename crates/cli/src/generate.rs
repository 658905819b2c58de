//! `generate PROMPT` and `generate plan PROMPT`: from the command line to images, or to the printed plan.

use sd_catalog::presets::DEMO;
use sd_catalog::{Catalog, Configuration, FetchObserver, Layered, Layers, Resolved};
use sd_pipeline::Request;

use crate::arguments::Arguments;
use crate::download_progress::DownloadProgress;
use crate::hint::Failure;
use crate::printer::Printer;
use crate::{json, lists, progress, run, terminal};

/// Prints a list that was asked for, or else finds and fetches what the command line names, then plans or
/// generates.
///
/// # Errors
/// The command line cannot be obeyed, something that it names cannot be had, or the run failed.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let configuration = Configuration::of_user()?;
    if let Some(list) = arguments.list() {
        terminal::print(&lists::text(list, &configuration));
        return Ok(());
    }
    if !arguments.has_prompt() {
        return Err(Failure::no_prompt());
    }
    sd_pipeline::device::compute_with(arguments.threads)?;
    let printer = arguments.printer();
    let request = request(arguments, &configuration, printer)?;
    if arguments.plan {
        return print_plan(&request, printer);
    }
    if arguments.pro {
        // The run meets an error of the plan again and reports it.
        if let Ok(plan) = sd_pipeline::plan(&request) {
            printer.note_lines(&format!(
                "Stable Diffusion 3.5 Large needs {} at the least and {} to read nothing twice; this run:\n{plan}",
                plan.smallest_budget, plan.resident_budget
            ));
        }
    }
    run::execute(printer, arguments.profile.as_deref(), |observer, interrupt| {
        sd_pipeline::generate(&request, observer, interrupt)
    })
}

/// Layers the settings, finds what they name and fetches what is missing. A plan fetches nothing.
fn request(
    arguments: &Arguments,
    configuration: &Configuration,
    printer: Printer,
) -> Result<Request, Failure> {
    let catalog = Catalog::of_user();
    let (typed, inputs) = (arguments.typed()?, arguments.inputs());
    let layers = Layers::new(typed, configuration)?;
    // Refuse an unusable model before gigabytes of it are downloaded.
    inputs.check()?;
    let mut progress = DownloadProgress::new(printer);
    let fetches = !arguments.plan;
    let layered = match layers.settled() {
        Some(layered) => layered,
        None => {
            let observer = fetches.then_some(&mut progress as &mut dyn FetchObserver);
            let layered = layers.best_that_fits(&catalog, &inputs, observer)?;
            note_preset(&layered, printer);
            layered
        }
    };
    arguments.check_effects(&layered.settings)?;
    let mut resolved = Resolved::new(&catalog, inputs, layered)?;
    if fetches {
        resolved.fetch(&catalog, &mut progress)?;
    }
    Ok(resolved.request(&catalog)?)
}

/// Says which preset was chosen.
fn note_preset(layered: &Layered, printer: Printer) {
    printer.note(&match layered.preset.as_deref() {
        Some(DEMO) | None => {
            "Generating with the small built-in model `demo`; `generate models pull fast` gets a real one, --model names another."
                .to_owned()
        }
        Some(name) => format!(
            "Generating with the preset `{name}`: the best that is on this machine and fits into its memory."
        ),
    });
}

/// Prints where each byte of the run would be, as JSON or as a table.
fn print_plan(request: &Request, printer: Printer) -> Result<(), Failure> {
    let (recipe, plan) = sd_pipeline::planned(request)?;
    if printer.json {
        json::plan(&plan);
    } else {
        printer.note(&progress::settings(&recipe));
        terminal::print(&plan.to_string());
    }
    Ok(())
}
