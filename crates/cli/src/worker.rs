//! `generate worker`.

#[cfg(feature = "cluster")]
use crate::arguments::ClusterArguments;
use crate::arguments::WorkerArguments;
use crate::hint::Failure;

/// Runs jobs of a queue until a signal.
///
/// # Errors
/// The worker has nothing to run, or cannot use its folder.
#[cfg(feature = "cluster")]
pub(crate) fn run(arguments: WorkerArguments) -> Result<(), Failure> {
    use crate::{signals, terminal};
    use sd_catalog::Configuration;
    use sd_server::WorkerOptions;

    sd_pipeline::device::compute_with(arguments.threads)?;
    let mut configuration = Configuration::of_user()?;
    let defaults = &mut configuration.defaults;
    defaults.memory = arguments.memory.or(defaults.memory);
    defaults.device = arguments.device.or(defaults.device);
    let state = || sd_catalog::user_dirs().state.map(|state| state.join("worker"));
    let folder = arguments.folder.or_else(state);
    let folder = folder.ok_or(sd_server::Error::NoStateFolder)?;
    let options = WorkerOptions {
        queue: queue(arguments.queue, arguments.cluster, false),
        folder: std::path::absolute(&folder).unwrap_or(folder),
        models: (!arguments.allow_model.is_empty()).then_some(arguments.allow_model),
        configuration,
        idle_after: arguments.idle_after,
    };
    let interrupt = signals::interrupt()?;
    let ready = |models: &[String]| {
        // Others wait for this line.
        terminal::print_line(&format!("ready: {}", models.join(", ")));
    };
    sd_server::work(options, ready, || interrupt.is_raised())?;
    Ok(())
}

/// What a front end and its workers must agree on.
#[cfg(feature = "cluster")]
pub(crate) fn queue(
    address: String,
    arguments: ClusterArguments,
    keeps_results: bool,
) -> sd_server::QueueOptions {
    sd_server::QueueOptions {
        address,
        credentials: arguments.queue_credentials,
        results: arguments.results,
        keeps_results,
    }
}

/// Refuses the command, which this program was built without.
#[cfg(not(feature = "cluster"))]
pub(crate) fn run(_: WorkerArguments) -> Result<(), Failure> {
    Err(not_built())
}

/// Says that this program was built without the queue.
#[cfg(not(feature = "cluster"))]
pub(crate) fn not_built() -> Failure {
    let failure = Failure::usage("this program was built without workers and their queue".to_owned());
    failure.advising("`cargo build --release --features cluster` builds one with them".to_owned())
}
