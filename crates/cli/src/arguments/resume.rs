//! The arguments of `generate resume`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use sd_catalog::parse;
use sd_pipeline::Bytes;

use super::threads::threads;
use crate::preview::PreviewChoice;
use crate::printer::Printer;
use crate::run::Show;

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
    #[arg(short, long, value_name = "DIR", conflicts_with = "discard")]
    pub(crate) output: Option<PathBuf>,

    /// Discard the run instead; saved images stay
    #[arg(long)]
    pub(crate) discard: bool,

    /// Write an HTML page with the run's memory over time; replaces an earlier one
    #[arg(long, value_name = "FILE", conflicts_with = "discard")]
    pub(crate) profile: Option<PathBuf>,

    /// Print one JSON event per line
    #[arg(long)]
    pub(crate) json: bool,

    /// Print only image paths, warnings and errors
    #[arg(long)]
    pub(crate) quiet: bool,

    /// Print every reading of the memory, not only those that say something new
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,

    /// Show the image while it forms, in terminals with images: kitty, iterm2 or sixel [default: auto]
    #[arg(long, value_name = "PROTOCOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "auto", conflicts_with = "discard", value_parser = PreviewChoice::named)]
    preview: Option<PreviewChoice>,

    /// Open the first image in the system's viewer at the end
    #[arg(long, conflicts_with = "discard")]
    open: bool,
}

impl ResumeArguments {
    /// How messages are printed.
    pub(crate) fn printer(&self) -> Printer {
        Printer {
            json: self.json,
            quiet: self.quiet,
            verbose: self.verbose,
        }
    }

    /// How the run is shown.
    pub(crate) fn show(&self) -> Show<'_> {
        Show {
            printer: self.printer(),
            profile: self.profile.as_deref(),
            preview: self.preview,
            opens: self.open,
        }
    }
}
