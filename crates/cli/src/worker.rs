//! `generate worker`.

use sd_server::WorkerOptions;

use crate::arguments::WorkerArguments;
use crate::hint::Failure;
use crate::serve::{configuration, queue};
use crate::{signals, terminal};

/// Runs jobs of a queue until a signal.
///
/// # Errors
/// The worker has nothing to run, or cannot use its folder.
pub(crate) fn run(arguments: WorkerArguments) -> Result<(), Failure> {
    let configuration = configuration(&arguments.engine)?;
    let state = || sd_catalog::user_dirs().state.map(|state| state.join("worker"));
    let folder = arguments.folder.or_else(state);
    let folder = folder.ok_or(sd_server::Error::NoStateFolder)?;
    let options = WorkerOptions {
        queue: queue(arguments.queue, arguments.cluster, false),
        folder: std::path::absolute(&folder).unwrap_or(folder),
        models: (!arguments.allow_model.is_empty()).then_some(arguments.allow_model),
        configuration,
        idle_after: arguments.engine.idle_after,
    };
    let interrupt = signals::interrupt()?;
    let ready = |models: &[String]| {
        // Others wait for this line.
        terminal::print_line(&format!("ready: {}", models.join(", ")));
    };
    sd_server::work(options, ready, || interrupt.is_raised())?;
    Ok(())
}
