//! The arguments of `generate models`.

use clap::{Args, Subcommand};

use crate::printer::Printer;

/// Lists the models on this machine, downloads models from the hub, checks and removes models
#[derive(Debug, Args)]
#[command(override_usage = "generate models [COMMAND] [OPTIONS]")]
pub(crate) struct ModelsArguments {
    #[command(subcommand)]
    pub(crate) task: Option<ModelsTask>,

    /// Print one JSON event per line
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Print only results and errors
    #[arg(long, global = true)]
    pub(crate) quiet: bool,
}

/// The subcommands of `generate models`.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsTask {
    /// Lists the Hugging Face cache and the folders of models_path: what each file is, its size, and the
    /// memory that a model needs
    List,
    /// Downloads the models of a preset, or the model of an id; resumes an interrupted download
    Pull {
        /// Preset, or hub id as `owner/name[@revision][:file]`
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
    /// Checks files of the cache against their hashes, all or those of NAME; prints the SHA-256 of other files
    Verify {
        /// Hub id as `owner/name[@revision][:file]`, file or folder, or name below models_path
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Removes a model from the cache; files that another revision shares stay
    Rm {
        /// Hub id as `owner/name[@revision]`
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
    },
}

impl ModelsArguments {
    /// How messages are printed.
    pub(crate) fn printer(&self) -> Printer {
        Printer {
            json: self.json,
            quiet: self.quiet,
            verbose: false,
        }
    }
}
