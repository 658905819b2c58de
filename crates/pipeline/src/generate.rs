//! One run, from a request to saved images.

use crate::Result;
use crate::event::{Event, Interrupt, Observer, SavedImage};
use crate::memory::{self, cleanup_memory};
use crate::plan::Plan;
use crate::recipe::Recipe;
use crate::request::{ModelChoice, Request};
use crate::resume::ClaimedRun;
use crate::run::{Looked, Planned, Run};
use crate::user_dirs::UserDirs;

/// Generates the images of `request` and saves them. `observer` is told what happens; `interrupt` stops the run
/// between two pieces of work.
///
/// # Errors
/// Anything that [`crate::Error`] lists. Images that were saved before stay, and nothing is half-written. What
/// is worth going on with is kept for [`resume()`], and the observer told so.
pub fn generate(
    request: &Request,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Vec<SavedImage>> {
    run(request, None, observer, interrupt)
}

/// Goes on with a run that was interrupted, as [`generate()`] would have, and gives all of its images, also those
/// that were saved before. `models` are those that [`ClaimedRun::models`] names.
///
/// # Errors
/// As [`generate()`], and where a model or the device is no longer what it was when the run began.
///
/// # Panics
/// There are not as many models as the run names.
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

/// The plan that a run of `request` would follow. No weight is read.
///
/// # Errors
/// The model or the request is wrong, something that was asked for cannot be had, or the budget is too small.
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
    // Whatever the run held is gone by now, also after an error.
    cleanup_memory(true);
    observer.observe(&Event::Measured {
        timeline: &monitor.timeline(),
    });
    // Its curve is the last that the run holds.
    drop(monitor);
    cleanup_memory(true);
    outcome
}
