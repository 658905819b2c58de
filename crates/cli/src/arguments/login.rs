//! The arguments of `generate login`.

use clap::Args;

/// Keeps a token of the hub, so that models can be had whose licence you have accepted
#[derive(Debug, Args)]
#[command(override_usage = "generate login [--token TOKEN] [OPTIONS]")]
pub(crate) struct LoginArguments {
    /// The token [default: it is asked for, or read from stdin where that is no terminal]
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,

    /// Print one JSON event a line
    #[arg(long)]
    pub(crate) json: bool,

    /// Print only errors
    #[arg(long)]
    pub(crate) quiet: bool,
}
