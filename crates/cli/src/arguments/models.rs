//! The arguments of `generate models`.

use clap::{Args, Subcommand};

use crate::printer::Printer;

/// Models on this machine: lists them, fetches others from the hub, removes them
#[derive(Debug, Args)]
#[command(override_usage = "generate models [list | pull NAME... | rm ID...] [OPTIONS]")]
pub(crate) struct ModelsArguments {
    #[command(subcommand)]
    pub(crate) task: Option<ModelsTask>,

    /// Print one JSON event a line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print only results and errors
    #[arg(long, global = true)]
    pub(crate) quiet: bool,
}

/// What can be done with them.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsTask {
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

impl ModelsArguments {
    /// Where messages go.
    pub(crate) fn printer(&self) -> Printer {
        Printer {
            json: self.json,
            quiet: self.quiet,
        }
    }
}
