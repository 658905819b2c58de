//! The arguments of `generate resume`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use sd_catalog::parse;
use sd_pipeline::Bytes;

use super::display::{DisplayFlags, OF_AN_IMAGE};
use super::threads::threads;

/// Resumes an interrupted run to exactly the same images; without an ID lists the interrupted runs
#[derive(Debug, Args)]
#[command(override_usage = "generate resume [ID | --last] [OPTIONS]")]
pub(crate) struct ResumeArguments {
    /// Run to resume; without it the interrupted runs are listed
    #[arg(value_name = "ID", conflicts_with = "last")]
    pub(crate) id: Option<String>,

    /// Resume the run that was interrupted last
    #[arg(long)]
    pub(crate) last: bool,

    /// Memory budget from here on [default: the budget of the interrupted run]
    #[arg(long, value_name = "SIZE", value_parser = parse::memory)]
    pub(crate) memory: Option<Bytes>,

    /// CPU threads; their number changes no image [default: the CPUs that the process may use]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Folder for the images that are not saved yet [default: that of the interrupted run]
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,

    /// Discard the run instead; saved images stay
    #[arg(long, conflicts_with = "output", conflicts_with_all = OF_AN_IMAGE)]
    pub(crate) discard: bool,

    #[command(flatten)]
    pub(crate) display: DisplayFlags,
}
