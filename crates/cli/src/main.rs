//! The `generate` command: arguments, terminal, progress and exit codes.
//!
//! What was typed ([`arguments`]) becomes a request ([`request`]); the pipeline draws it and tells what happens to a
//! [`progress`] display or to [`json`] lines; an error is shown with a hint ([`hint`]).

mod arguments;
mod demo;
mod hint;
mod json;
mod progress;
mod request;
mod terminal;

use std::process::ExitCode;

use arguments::{Arguments, Typed};
use hint::Failure;
use sd_pipeline::memory::{CountingAllocator, return_large_pieces_at_once};
use sd_pipeline::{Interrupt, Observer};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    return_large_pieces_at_once();
    let arguments = match arguments::parse() {
        Typed::Run(arguments) => *arguments,
        Typed::Show(text) => {
            terminal::print(&text);
            return ExitCode::SUCCESS;
        }
        Typed::Wrong(failure) => return failure.report(None),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(arguments.json.then_some(&json::error)),
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let request = request::request(arguments)?;
    if arguments.plan {
        let plan = sd_pipeline::plan(&request)?;
        terminal::print_line(&if arguments.json {
            json::plan(&plan)
        } else {
            plan.to_string()
        });
        return Ok(());
    }
    let interrupt = Interrupt::default();
    stop_on_signals(&interrupt)?;
    let mut json = json::Lines;
    let mut display = progress::Display::new(arguments.quiet);
    let observer: &mut dyn Observer = if arguments.json { &mut json } else { &mut display };
    let outcome = sd_pipeline::generate(&request, observer, &interrupt);
    display.finish();
    outcome?;
    Ok(())
}

/// The first signal asks the run to stop, the second ends the process.
fn stop_on_signals(interrupt: &Interrupt) -> Result<(), Failure> {
    let interrupt = interrupt.clone();
    let handler = move || {
        if interrupt.is_raised() {
            std::process::exit(i32::from(hint::INTERRUPTED));
        }
        interrupt.raise();
        terminal::note("stopping after this step; once more stops at once");
    };
    ctrlc::set_handler(handler).map_err(|error| Failure::other(format!("cannot listen for signals: {error}")))
}
