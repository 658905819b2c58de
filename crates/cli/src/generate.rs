//! `generate PROMPT` and `generate plan PROMPT`: from the command line to images, or to the printed plan.

use crate::arguments::Arguments;
use crate::configuration::Configuration;
use crate::control::ControlInput;
use crate::hint::Failure;
use crate::printer::Printer;
use crate::{control, fetch_missing, json, presets, progress, request, run, sampler, terminal};

/// Prints a list that was asked for, or else fetches what is missing, then plans or draws.
///
/// # Errors
/// The command line cannot be obeyed, something that it names cannot be had, or the run failed.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let configuration = Configuration::of_user()?;
    if let Some(list) = sampler::list(arguments).or_else(|| presets::list(arguments, &configuration)) {
        terminal::print(&list);
        return Ok(());
    }
    if !arguments.has_prompt() {
        return Err(Failure::no_prompt());
    }
    sd_pipeline::device::compute_with(arguments.threads)?;
    let printer = arguments.printer();
    let named = control::without_idle(arguments, presets::named(arguments, &configuration)?);
    // What can never be drawn is refused before gigabytes are fetched for it.
    sampler::chosen(&named)?;
    control::check_options(arguments)?;
    request::check_pictures(arguments)?;
    if !arguments.plan {
        control::check_unfetched(arguments, &named)?;
        fetch_missing::fetch_named(&named, arguments.prompt(), printer)?;
    }
    let settled = presets::settled(arguments, &configuration)?;
    // The default ControlNet depends on the model, which is here from now on.
    let inputs = control::inputs(arguments, &settled.settings)?;
    if !arguments.plan {
        fetch_missing::fetch_controlnets(&inputs, printer)?;
    }
    let controls: Result<_, _> = inputs.iter().map(ControlInput::choice).collect();
    let request = request::request(arguments, &settled, controls?)?;
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

/// Prints where each byte of the run would be, as JSON or as a table.
fn print_plan(request: &sd_pipeline::Request, printer: Printer) -> Result<(), Failure> {
    let (recipe, plan) = sd_pipeline::planned(request)?;
    if printer.json {
        json::plan(&plan);
    } else {
        printer.note(&progress::settings(&recipe));
        terminal::print(&plan.to_string());
    }
    Ok(())
}
