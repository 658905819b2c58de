//! The arguments of `generate resume`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use sd_catalog::parse;
use sd_pipeline::Bytes;

use super::threads::threads;
use crate::printer::Printer;

/// Goes on with a run that was interrupted, to the very same images; without an ID lists them
#[derive(Debug, Args)]
#[command(override_usage = "generate resume [ID | --last] [OPTIONS]")]
pub(crate) struct ResumeArguments {
    /// The run to go on with; without it the interrupted runs are listed
    #[arg(value_name = "ID", conflicts_with = "last")]
    pub(crate) id: Option<String>,

    /// Go on with the run that was interrupted last
    #[arg(long)]
    pub(crate) last: bool,

    /// Memory that the run may have from here on [default: as it was begun]
    #[arg(long, value_name = "SIZE", value_parser = parse::memory)]
    pub(crate) memory: Option<Bytes>,

    /// Threads that compute; their number changes no image [default: the processors that the process may
    /// use]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Forget the run instead; images that were saved stay
    #[arg(long)]
    pub(crate) discard: bool,

    /// Write a page that shows the run's memory over time; replaces an earlier one
    #[arg(long, value_name = "FILE", conflicts_with = "discard")]
    pub(crate) profile: Option<PathBuf>,

    /// Print one JSON event a line
    #[arg(long)]
    pub(crate) json: bool,

    /// Print only paths, errors, and what is left out
    #[arg(long)]
    pub(crate) quiet: bool,
}

impl ResumeArguments {
    /// Where messages go.
    pub(crate) fn printer(&self) -> Printer {
        Printer {
            json: self.json,
            quiet: self.quiet,
        }
    }
}
