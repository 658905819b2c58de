//! `generate PROMPT` and `generate plan PROMPT`.

use sd_catalog::presets::DEMO;
use sd_catalog::{Catalog, Configuration, FetchObserver, Layered, Layers, Resolved};
use sd_pipeline::{Engine, PlannedRequest, Request};

use crate::arguments::Arguments;
use crate::download_progress::DownloadProgress;
use crate::hint::Failure;
use crate::printer::Printer;
use crate::{json, lists, progress, run, terminal};

/// Prints a list, or resolves and downloads what the command line names, then plans or generates.
///
/// # Errors
/// The command line is invalid, something that it names is missing, or the run failed.
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
        // An error of the plan is left to the run, which meets it again and reports it.
        if let Ok(plan) = sd_pipeline::plan(&request) {
            printer.note_lines(&format!(
                "Stable Diffusion 3.5 Large needs at least {}, and {} without streaming; this run:\n{plan}",
                plan.smallest_budget, plan.resident_budget
            ));
        }
    }
    run::execute(printer, arguments.profile.as_deref(), |observer, interrupt| {
        Engine::new().run(&request, observer, interrupt)
    })
}

/// Layers the settings, resolves what they name and downloads what is missing. A plan downloads nothing.
fn request(
    arguments: &Arguments,
    configuration: &Configuration,
    printer: Printer,
) -> Result<Request, Failure> {
    let catalog = Catalog::new(configuration);
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

/// Prints which preset was chosen.
fn note_preset(layered: &Layered, printer: Printer) {
    printer.note(&match layered.preset.as_deref() {
        Some(DEMO) | None => {
            "Generating with the small built-in model `demo`; `generate models pull fast` downloads a real one, --model names another."
                .to_owned()
        }
        Some(name) => format!(
            "Generating with the preset `{name}`: the best on this machine that fits into its memory."
        ),
    });
}

/// Prints the plan of the run, as JSON or as a table, and why no GPU computes, if that has a reason.
fn print_plan(request: &Request, printer: Printer) -> Result<(), Failure> {
    let PlannedRequest {
        recipe,
        plan,
        fallback,
    } = sd_pipeline::planned(request)?;
    if printer.json {
        json::plan(&plan, fallback.as_deref());
    } else {
        if let Some(fallback) = fallback {
            printer.note(&format!("warning: {fallback}"));
        }
        printer.note(&progress::settings(&recipe));
        terminal::print(&plan.to_string());
    }
    Ok(())
}
