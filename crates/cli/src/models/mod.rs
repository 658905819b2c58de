//! `generate models`: what is on this machine, fetching more, and removing it.

mod list;
mod pull;
mod remove;

use clap::{Args, Subcommand};

use crate::hint::Failure;

/// Models on this machine: lists them, fetches others from the hub, removes them
#[derive(Debug, Args)]
#[command(override_usage = "generate models [list | pull NAME... | rm ID...] [OPTIONS]")]
pub(crate) struct ModelsArguments {
    #[command(subcommand)]
    task: Option<Task>,

    /// Print one JSON event a line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print only results and errors
    #[arg(long, global = true)]
    quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// What is in the cache of Hugging Face, as what it can be used, how large it is, and in which presets
    List,
    /// Fetches all that a preset needs, or what an id names; a download that was interrupted goes on
    Pull {
        /// A preset, or an id as `owner/name[@revision][:file]`
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Removes a model from the cache; what another revision shares stays
    Rm {
        /// An id as `owner/name[@revision]`
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
    },
}

/// Does what was asked for.
pub(crate) fn run(arguments: &ModelsArguments) -> Result<(), Failure> {
    match &arguments.task {
        None | Some(Task::List) => list::run(arguments),
        Some(Task::Pull { names }) => pull::run(names, arguments),
        Some(Task::Rm { ids }) => remove::run(ids, arguments),
    }
}
