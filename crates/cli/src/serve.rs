//! `generate serve` and `generate ps`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use sd_catalog::{Configuration, Devices};
use sd_server::{Keys, Limits, ListedJob, Options};
use serde_json::json;

use crate::arguments::{EngineArguments, PsArguments, ServeArguments};
use crate::hint::Failure;
use crate::{signals, terminal};

/// The variable of the environment that has the key, which a command line would show to every user of the machine.
const TOKEN: &str = "SD_GENERATE_TOKEN";

/// Serves until a signal.
///
/// # Errors
/// The server cannot start.
pub(crate) fn run(arguments: ServeArguments) -> Result<(), Failure> {
    let configuration = configuration(&arguments.engine)?;
    let keys = match (
        &arguments.token_file,
        arguments.token.clone().or_else(token_of_environment),
    ) {
        (Some(file), _) => Keys::read(file)?,
        (None, Some(token)) => Keys::one(token)?,
        (None, None) => Keys::none(),
    };
    let address = match arguments.port {
        Some(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        None => arguments.listen,
    };
    let options = Options {
        address,
        folder: folder(arguments.folder)?,
        keys,
        host_names: arguments.host_name,
        origins: arguments.origin,
        models: (!arguments.allow_model.is_empty()).then_some(arguments.allow_model),
        configuration,
        idle_after: arguments.engine.idle_after,
        keep_for: arguments.keep_for,
        keep_bytes: arguments.keep.0,
        limits: Limits {
            images: arguments.most_images,
            waiting: arguments.most_waiting,
            connections: arguments.most_connections,
            per_minute: arguments.most_per_minute,
            uploads: arguments.keep_uploads.0,
            ..Limits::default()
        },
        logs_prompts: arguments.log_prompts,
        #[cfg(feature = "cluster")]
        queue: arguments
            .queue
            .map(|address| queue(address, arguments.cluster, arguments.keep_results)),
    };
    let interrupt = signals::interrupt()?;
    let ready = |address: SocketAddr| {
        // Others wait for this line.
        terminal::print_line(&format!("http://{address}"));
        terminal::note(
            "The page is at this address, the interfaces below /v1, /sdapi and /api. Ctrl-C ends the server.",
        );
    };
    sd_server::serve(options, ready, || interrupt.is_raised())?;
    Ok(())
}

/// What a front end and its workers must agree on.
#[cfg(feature = "cluster")]
pub(crate) fn queue(
    address: String,
    arguments: crate::arguments::ClusterArguments,
    keeps_results: bool,
) -> sd_server::QueueOptions {
    sd_server::QueueOptions {
        address,
        credentials: arguments.queue_credentials,
        results: arguments.results,
        keeps_results,
    }
}

/// Lists the jobs of a server.
///
/// # Errors
/// The folder has no jobs, or they cannot be read.
pub(crate) fn list(arguments: &PsArguments) -> Result<(), Failure> {
    let folder = folder(arguments.folder.clone())?;
    let jobs = sd_server::jobs(&folder, arguments.all)?;
    if arguments.json {
        let jobs: Vec<_> = jobs
            .iter()
            .map(|job| json!({ "id": job.id, "state": job.state, "user": job.user, "model": job.model, "prompt": job.prompt }))
            .collect();
        terminal::print_json(json!({ "event": "jobs", "jobs": jobs }));
        return Ok(());
    }
    if jobs.is_empty() {
        terminal::note("There are no jobs.");
        return Ok(());
    }
    terminal::print_line(&format!(
        "{:8}  {:9}  {:10}  {:20}  PROMPT",
        "ID", "STATE", "USER", "MODEL"
    ));
    for ListedJob {
        id,
        state,
        user,
        model,
        prompt,
    } in &jobs
    {
        let prompt: String = prompt.chars().take(50).collect();
        let id = id.get(..8).unwrap_or(id);
        terminal::print_line(&format!("{id:8}  {state:9}  {user:10}  {model:20}  {prompt}"));
    }
    Ok(())
}

/// The user's configuration with what the command line sets of it. From here on so many threads compute as that says.
///
/// # Errors
/// The configuration is wrong, or there cannot be so many threads.
pub(crate) fn configuration(arguments: &EngineArguments) -> Result<Configuration, Failure> {
    sd_pipeline::device::compute_with(arguments.threads)?;
    let mut configuration = Configuration::of_user()?;
    let defaults = &mut configuration.defaults;
    defaults.memory = arguments.memory.or(defaults.memory);
    defaults.device = arguments.device.map(Devices::One).or(defaults.device.take());
    Ok(configuration)
}

fn token_of_environment() -> Option<String> {
    std::env::var(TOKEN).ok().filter(|token| !token.is_empty())
}

/// The folder of jobs.
fn folder(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let state = || sd_catalog::user_dirs().state.map(|state| state.join("server"));
    let folder = given.or_else(state).ok_or(sd_server::Error::NoStateFolder)?;
    Ok(std::path::absolute(&folder).unwrap_or(folder))
}
