//! The arguments of `generate convert`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use sd_pipeline::convert::{Encoding, FileLayout};

use crate::printer::Printer;

/// Converts a model to another form: a file, a folder, GGUF; in 16 bits or quantised
#[derive(Debug, Args)]
#[command(override_usage = "generate convert MODEL -o PATH [OPTIONS]")]
pub(crate) struct ConvertArguments {
    /// Model: `demo`, a file, a folder in the diffusers layout, or a hub id that is on this machine
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,

    /// File or folder to write
    #[arg(long, short, value_name = "PATH")]
    pub(crate) output: PathBuf,

    /// Data type of the large tensors [default: as stored]
    #[arg(long, value_name = "TYPE", value_parser = encoding)]
    pub(crate) to: Option<Encoding>,

    /// Form of the output [default: by the ending of PATH: .safetensors is single, .gguf is gguf, others are diffusers]
    #[arg(long, value_name = "FORM")]
    layout: Option<Layout>,

    /// Replace what is at PATH
    #[arg(long)]
    pub(crate) force: bool,

    /// Print one JSON event per line
    #[arg(long)]
    pub(crate) json: bool,

    /// Print only the path and errors
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// The forms of a model's files.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Layout {
    Diffusers,
    Single,
    Gguf,
}

/// A data type by name.
fn encoding(name: &str) -> Result<Encoding, String> {
    let found = Encoding::CHOICES.into_iter().find(|choice| choice.name() == name);
    found.ok_or_else(|| {
        let names = Encoding::CHOICES.map(Encoding::name);
        format!("the types are {}", names.join(", "))
    })
}

impl ConvertArguments {
    /// How messages are printed.
    pub(crate) fn printer(&self) -> Printer {
        Printer {
            json: self.json,
            quiet: self.quiet,
            verbose: false,
        }
    }

    /// The form of the output.
    pub(crate) fn layout(&self) -> FileLayout {
        match self.layout {
            Some(Layout::Diffusers) => FileLayout::Diffusers,
            Some(Layout::Single) => FileLayout::Single,
            Some(Layout::Gguf) => FileLayout::Gguf,
            None => by_ending(&self.output),
        }
    }
}

fn by_ending(output: &Path) -> FileLayout {
    match output.extension().and_then(|ending| ending.to_str()) {
        Some("safetensors") => FileLayout::Single,
        Some("gguf") => FileLayout::Gguf,
        _ => FileLayout::Diffusers,
    }
}
