//! The `generate` command: arguments, terminal, progress and exit codes.
//!
//! [`arguments`] reads the command line into an [`Invocation`], which one module each carries out:
//! [`generate`], [`again`], [`show`], [`resume`], [`models`], [`convert`], [`login`], [`doctor`], [`serve`],
//! and `worker` with the feature `cluster`; [`devices`] starts a process of [`share`] for each of several
//! devices. Results and messages go
//! through [`terminal`], [`progress`] or [`json`]; [`activity`] shows that work goes on, [`preview`] the image while it
//! forms; [`hint`] turns an error into a message, a hint and an exit code.

mod activity;
mod again;
mod arguments;
mod byte_progress;
mod completions;
mod convert;
mod cuda_program;
mod devices;
mod doctor;
mod download_progress;
mod escaping;
mod generate;
mod hint;
mod json;
mod lists;
mod log;
mod login;
mod models;
mod preview;
mod printer;
mod progress;
mod prompts;
mod repeated;
mod resume;
mod run;
mod serve;
mod share;
mod show;
mod signals;
mod status_line;
mod stdout_image;
mod terminal;
mod ticker;
mod viewer;
#[cfg(feature = "cluster")]
mod worker;
mod wrapping;

use std::process::ExitCode;

use arguments::Invocation;
use sd_pipeline::device::leave_threads_to_rayon;
use sd_pipeline::memory::{CountingAllocator, keep_heap_small};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    if let Some(code) = cuda_program::hand_over() {
        return code;
    }
    keep_heap_small();
    leave_threads_to_rayon();
    log::begin();
    let (json, outcome) = match arguments::parse() {
        Invocation::Generate(arguments) => (arguments.display.json, generate::run(&arguments)),
        Invocation::Share => (true, share::run()),
        Invocation::Again(again) => (again.arguments.display.json, again::run(*again)),
        Invocation::Show(arguments) => (arguments.json, show::run(&arguments)),
        Invocation::Resume(arguments) => (arguments.display.json, resume::run(&arguments)),
        Invocation::Models(arguments) => (arguments.json, models::run(&arguments)),
        Invocation::Login(arguments) => (arguments.json, login::run(&arguments)),
        Invocation::Doctor(arguments) => {
            doctor::run(&arguments);
            (arguments.json, Ok(()))
        }
        Invocation::Convert(arguments) => (arguments.json, convert::run(&arguments)),
        Invocation::Serve(arguments) => (false, serve::run(*arguments)),
        #[cfg(feature = "cluster")]
        Invocation::Worker(arguments) => (false, worker::run(*arguments)),
        Invocation::Ps(arguments) => (arguments.json, serve::list(&arguments)),
        Invocation::Completions(arguments) => {
            completions::completions(&arguments);
            (false, Ok(()))
        }
        Invocation::Man(arguments) => (false, completions::man(&arguments)),
        Invocation::Text(text) => {
            terminal::print(&text);
            (false, Ok(()))
        }
        Invocation::Invalid { failure, json } => (json, Err(failure)),
    };
    match outcome {
        Ok(()) => match terminal::failure_of_stdout() {
            None => ExitCode::SUCCESS,
            Some(error) => hint::unread(error),
        },
        Err(failure) => failure.report(json.then_some(&json::error)),
    }
}
