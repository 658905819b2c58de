//! Writes a full-size model folder with random weights, in the layout of the real model, to measure memory
//! and speed. Its images are noise.
//!
//! ```text
//! cargo run --release -p sd-models --example synthesize -- --arch sd3.5-large DIR
//! ```
//!
//! With `--zeros` every weight is zero, and the files take no room on most disks: enough to count memory, not to measure speed.
//! With `--zeros-fp8` matrices are in 8 bits.

#![allow(clippy::print_stderr)]

mod architecture;
mod networks;
mod shards;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use architecture::{ARCHITECTURES, Architecture};
use shards::Contents;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (architecture, contents, folder) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        ["--arch", name, folder] => (architecture::named(name), Contents::Random, PathBuf::from(folder)),
        ["--arch", name, "--zeros", folder] => {
            (architecture::named(name), Contents::Zeros, PathBuf::from(folder))
        }
        ["--arch", name, "--zeros-fp8", folder] => (
            architecture::named(name),
            Contents::ZerosInFp8,
            PathBuf::from(folder),
        ),
        _ => (None, Contents::Random, PathBuf::new()),
    };
    let Some(architecture) = architecture else {
        eprintln!(
            "usage: synthesize --arch {} [--zeros|--zeros-fp8] DIR",
            ARCHITECTURES.join("|")
        );
        return ExitCode::from(2);
    };
    match write(&architecture, contents, &folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot write `{}`: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

/// Writes every component into a folder of its own, unless it is there, and last the index that makes the
/// folder a model.
fn write(architecture: &Architecture, contents: Contents, folder: &Path) -> io::Result<()> {
    for (path, contents) in &architecture.texts {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
        std::fs::write(path, contents)?;
    }
    for component in &architecture.components {
        if shards::are_there(&folder.join(component.folder), component) {
            continue;
        }
        let bytes = shards::write(&folder.join(component.folder), component, contents)?;
        eprintln!(
            "{}: {:.2} GB",
            folder.join(component.folder).display(),
            bytes as f64 / f64::from(1 << 30)
        );
    }
    match &architecture.index {
        Some(index) => std::fs::write(folder.join("model_index.json"), index),
        None => Ok(()),
    }
}
