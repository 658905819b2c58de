//! The arguments of `generate doctor`.

use clap::Args;

/// Prints what this machine can do: its devices, memory and budget, its disk, and which presets run here in what time
#[derive(Debug, Args)]
#[command(override_usage = "generate doctor [--json]")]
pub(crate) struct DoctorArguments {
    /// Print one JSON event per line
    #[arg(long)]
    pub(crate) json: bool,
}
