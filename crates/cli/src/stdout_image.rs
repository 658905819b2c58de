//! `--output -`: the image goes to stdout, in place of its path.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::PathBuf;

use sd_pipeline::SavedImage;
use tempfile::TempDir;

use crate::hint::Failure;
use crate::terminal;

/// The value of `--output`.
const STDOUT: &str = "-";

/// A run whose image goes to stdout. It is saved in a folder of its own first, so that nothing is written of an image
/// that is not finished.
pub(crate) struct StdoutImage(TempDir);

impl StdoutImage {
    /// Whether `output` means stdout.
    pub(crate) fn is_named(output: Option<&std::path::Path>) -> bool {
        output.is_some_and(|output| output == std::path::Path::new(STDOUT))
    }

    /// The run's folder.
    ///
    /// # Errors
    /// Stdout is a terminal, which shows no image, or the folder cannot be made.
    pub(crate) fn new() -> Result<Self, Failure> {
        if io::stdout().is_terminal() {
            return Err(
                Failure::usage("stdout is a terminal, which shows no image".to_owned())
                    .advising("redirect it: `generate \"a red circle\" -o - > circle.png`".to_owned()),
            );
        }
        let folder = tempfile::tempdir()
            .map_err(|error| Failure::other(format!("cannot make a temporary folder: {error}")))?;
        Ok(Self(folder))
    }

    /// The file that the image is saved as.
    pub(crate) fn file(&self) -> PathBuf {
        self.0.path().join("image.png")
    }

    /// Writes `image` to stdout. An error of stdout decides the exit code at the end.
    pub(crate) fn write(&self, image: &SavedImage) {
        match fs::read(&image.image) {
            Ok(bytes) => terminal::print_bytes(&bytes),
            Err(error) => terminal::note(&format!("error: the image is gone: {error}")),
        }
    }
}
