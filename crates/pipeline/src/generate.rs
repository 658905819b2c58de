//! The entry points: generate images, resume a run, plan a run.

use crate::Result;
use crate::event::{Event, Interrupt, Observer, SavedImage};
use crate::memory::{self, cleanup_memory};
use crate::plan::Plan;
use crate::recipe::Recipe;
use crate::request::{ModelChoice, Request};
use crate::resume::ClaimedRun;
use crate::run::{Looked, Planned, Run};
use crate::user_dirs::UserDirs;

/// Generates the images of `request` and saves them. `observer` receives the events; `interrupt` stops the
/// run between two pieces of work.
///
/// # Errors
/// Any of [`crate::Error`]. Images that were saved before stay, and no file is half-written. A run that is
/// worth continuing is kept for [`resume()`], and the observer is notified.
pub fn generate(
    request: &Request,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Vec<SavedImage>> {
    run(request, None, observer, interrupt)
}

/// Resumes an interrupted run, and returns all of its images, also those that were saved before. `models` are
/// those that [`ClaimedRun::models`] names.
///
/// # Errors
/// As [`generate()`], and if a model or the device is not the same as when the run began.
///
/// # Panics
/// The number of models differs from that of the run.
pub fn resume(
    claimed: ClaimedRun,
    models: Vec<ModelChoice>,
    user_dirs: &UserDirs,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Vec<SavedImage>> {
    let request = claimed.request(models, user_dirs);
    run(&request, Some(claimed), observer, interrupt)
}

/// The plan of a run of `request`. No weight is read.
///
/// # Errors
/// The model or the request is wrong, something that it names is missing, or the budget is too small.
pub fn plan(request: &Request) -> Result<Plan> {
    Ok(planned(request)?.1)
}

/// The recipe of `request` and the plan of its run. No weight is read.
///
/// # Errors
/// As [`plan`].
pub fn planned(request: &Request) -> Result<(Recipe, Plan)> {
    let strict = Request {
        strict: true,
        ..request.clone()
    };
    let planned = Planned::of(&strict, Looked::AtHeaders)?;
    Ok((planned.passes[0].recipe.clone(), planned.plan()))
}

fn run(
    request: &Request,
    claimed: Option<ClaimedRun>,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Vec<SavedImage>> {
    let monitor = memory::monitor();
    let outcome = Run::open(request, claimed, &monitor, observer, interrupt).and_then(|mut run| {
        let outcome = run.generate();
        run.end(outcome)
    });
    // The run has dropped everything by now, also after an error.
    cleanup_memory(true);
    observer.observe(&Event::Measured {
        timeline: &monitor.timeline(),
    });
    // The timeline is the last thing that the run holds.
    drop(monitor);
    cleanup_memory(true);
    outcome
}
