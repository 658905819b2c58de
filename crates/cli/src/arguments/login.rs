//! The arguments of `generate login`.

use clap::Args;

use crate::printer::Printer;

/// Saves a hub token, for gated models whose licence you have accepted
#[derive(Debug, Args)]
#[command(override_usage = "generate login [--token TOKEN] [OPTIONS]")]
pub(crate) struct LoginArguments {
    /// The token [default: prompted for, or read from stdin if that is not a terminal]
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,

    /// Print one JSON event per line
    #[arg(long)]
    pub(crate) json: bool,

    /// Print only errors
    #[arg(long)]
    pub(crate) quiet: bool,
}

impl LoginArguments {
    /// How messages are printed.
    pub(crate) fn printer(&self) -> Printer {
        Printer {
            json: self.json,
            quiet: self.quiet,
            verbose: false,
        }
    }
}
