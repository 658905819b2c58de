//! The options that say how a run is shown, which `generate PROMPT` and `generate resume` share.

use std::path::PathBuf;

use clap::Args;

use crate::preview::PreviewChoice;
use crate::printer::Printer;
use crate::run::Show;

/// The flags by their ids, for options that they contradict.
pub(super) const OF_AN_IMAGE: [&str; 3] = ["profile", "preview", "open"];

/// How a run is shown.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct DisplayFlags {
    /// Write an HTML page with the run's memory over time; replaces an earlier one
    #[arg(long, value_name = "FILE")]
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
          default_missing_value = "auto", value_parser = PreviewChoice::named)]
    preview: Option<PreviewChoice>,

    /// Open the first image in the system's viewer at the end
    #[arg(long)]
    open: bool,
}

impl DisplayFlags {
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

    /// Whether any of them was typed.
    pub(super) fn has_any(&self) -> bool {
        let Self {
            profile,
            json,
            quiet,
            verbose,
            preview,
            open,
        } = self;
        profile.is_some() || *json || *quiet || *verbose || preview.is_some() || *open
    }
}
