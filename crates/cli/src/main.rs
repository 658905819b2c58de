//! The `generate` command: arguments, terminal, progress and exit codes.
//!
//! What was typed ([`arguments`]), over a preset ([`quality`]) and the user's [`configuration`], becomes a request
//! ([`request`]), or names a run that was interrupted ([`resume`]); what it names and is not here is fetched ([`missing`]);
//! the pipeline draws it and tells what happens to a [`progress`] display or to [`json`] lines; an error is shown with
//! a hint ([`hint`]).

mod arguments;
mod arrivals;
mod configuration;
mod control;
mod demo;
mod fetching;
mod hint;
mod installed;
mod json;
mod log;
mod login;
mod lora;
mod missing;
mod models;
mod progress;
mod quality;
mod request;
mod resume;
mod sampler;
mod settings;
mod signals;
mod terminal;
mod upscaler;

use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;

use arguments::{Arguments, Typed};
use configuration::Configuration;
use control::Followed;
use hint::Failure;
use sd_pipeline::device::leave_threads_to_rayon;
use sd_pipeline::memory::{CountingAllocator, keep_heap_small};
use sd_pipeline::profile::profiled;
use sd_pipeline::{Event, Interrupt, Observer, SavedPicture};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    keep_heap_small();
    leave_threads_to_rayon();
    log::begin();
    let (json, outcome) = match arguments::parse() {
        Typed::Run(arguments) => (arguments.json, run(&arguments)),
        Typed::Resume(arguments) => (arguments.json, resume::run(&arguments)),
        Typed::Models(arguments) => (arguments.json, models::run(&arguments)),
        Typed::Login(arguments) => (arguments.json, login::run(&arguments)),
        Typed::Show(text) => {
            terminal::print(&text);
            (false, Ok(()))
        }
        Typed::Wrong { failure, json } => (json, Err(failure)),
    };
    match outcome {
        Ok(()) => match terminal::failure_of_stdout() {
            None => ExitCode::SUCCESS,
            Some(error) => hint::unread(error),
        },
        Err(failure) => failure.report(json.then_some(&json::error)),
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let configuration = Configuration::of_user()?;
    if let Some(list) = sampler::list(arguments).or_else(|| quality::list(arguments, &configuration)) {
        terminal::print(&list);
        return Ok(());
    }
    if !arguments.has_prompt() {
        return Err(Failure::no_prompt());
    }
    compute_with(arguments.threads)?;
    let telling = Telling {
        json: arguments.json,
        quiet: arguments.quiet,
        profile: arguments.profile.as_deref(),
    };
    let named = control::without_idle(arguments, quality::named(arguments, &configuration)?);
    // What cannot be drawn in any case is better said before a model is looked for, and gigabytes are fetched.
    sampler::chosen(&named)?;
    control::check_options(arguments)?;
    request::check_pictures(arguments)?;
    if !arguments.plan {
        control::check_unfetched(arguments, &named)?;
        missing::fetch_named(&named, arguments.prompt(), &telling)?;
    }
    let settled = quality::settled(arguments, &configuration)?;
    // Which ControlNet is the usual one is known once the model is here.
    let followed = control::followed(arguments, &settled.settings)?;
    if !arguments.plan {
        missing::fetch_controlnets(&followed, &telling)?;
    }
    let controls: Result<_, _> = followed.iter().map(Followed::choice).collect();
    let request = request::request(arguments, &settled, controls?)?;
    if arguments.pro && !arguments.quiet && !arguments.json && !arguments.plan {
        // An error is met again, and told, where the run begins.
        if let Ok(plan) = sd_pipeline::plan(&request) {
            terminal::note_lines(&format!(
                "Stable Diffusion 3.5 Large needs {} at the least and {} to read nothing twice; this run:\n{plan}",
                plan.smallest_budget, plan.resident_budget
            ));
        }
    }
    if arguments.plan {
        let (recipe, plan) = sd_pipeline::planned(&request)?;
        if arguments.json {
            json::plan(&plan);
        } else {
            if !arguments.quiet {
                terminal::note(&progress::settings(&recipe));
            }
            terminal::print(&plan.to_string());
        }
        return Ok(());
    }
    draw(&telling, |observer, interrupt| {
        sd_pipeline::generate(&request, observer, interrupt)
    })
}

/// Has so many threads compute, or as many as there are processors for this process.
fn compute_with(threads: Option<NonZeroUsize>) -> Result<(), Failure> {
    Ok(sd_pipeline::device::compute_with(threads)?)
}

/// How a run is told of.
struct Telling<'a> {
    /// In JSON lines, for a program.
    json: bool,
    /// With paths and errors alone.
    quiet: bool,
    /// And on a page, in the end.
    profile: Option<&'a Path>,
}

/// Has `pipeline` work, tells what happens, and stops it when a signal asks for that.
fn draw(
    telling: &Telling<'_>,
    pipeline: impl FnOnce(&mut dyn Observer, &Interrupt) -> sd_pipeline::Result<Vec<SavedPicture>>,
) -> Result<(), Failure> {
    let interrupt = signals::interrupt()?;
    let mut lines = json::Lines;
    let mut display = progress::Display::new(telling.quiet);
    let shown: &mut dyn Observer = if telling.json { &mut lines } else { &mut display };
    let mut kept = None;
    let mut observer = |event: &Event<'_>| {
        if let Event::Kept { run } = event {
            kept = Some((*run).to_owned());
        }
        shown.observe(event);
    };
    let outcome = match telling.profile {
        Some(path) => profiled(path, &mut observer, |observer| pipeline(observer, interrupt)),
        None => pipeline(&mut observer, interrupt),
    };
    display.finish();
    match outcome {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::of_run(error, kept.as_deref())),
    }
}
