//! Conversion of models between their forms: a folder of diffusers, a single file, a GGUF file; in 16 or 32
//! bits, or quantised.
//!
//! Tensors are read, converted and written a stretch at a time, so that memory does not depend on the size of
//! the model. A file or folder appears whole or not at all.

mod encoding;
mod folder;
mod gguf_file;
mod input;
mod names;
mod output;
mod safetensors_file;
mod whole;

use std::path::{Path, PathBuf};

pub use encoding::Encoding;
use input::Input;

use crate::{Error, ModelFiles, Result};

/// The form of a model's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileLayout {
    /// A folder with one folder a network, as diffusers and transformers write them.
    Diffusers,
    /// One safetensors file with the names of the original programs.
    Single,
    /// One GGUF file with the same names, as stable-diffusion.cpp writes it. A file with a denoising network
    /// alone has bare names and an architecture, as ComfyUI-GGUF reads it.
    Gguf,
}

/// A conversion of a model.
#[derive(Debug, Clone)]
pub struct Conversion {
    /// The model, or a file with some networks of one.
    pub from: ModelFiles,
    /// The file or folder to write.
    pub to: PathBuf,
    /// Its form.
    pub layout: FileLayout,
    /// The data type of its large tensors; that of the source where it is left out.
    pub encoding: Option<Encoding>,
    /// Whether a file or folder that is there is replaced.
    pub replace: bool,
}

/// What a conversion did.
#[derive(Debug, Clone, Default)]
pub struct ConversionReport {
    /// The tensors that were written.
    pub tensors: usize,
    /// The bytes of all files.
    pub bytes: u64,
    /// The data types, each with the bytes of its tensors, the most first.
    pub types: Vec<(String, u64)>,
    /// The tensors of the source that no network reads, under their names there. They were left out.
    pub dropped: Vec<String>,
    /// What the new form cannot hold.
    pub lost: Vec<String>,
}

/// The progress of a conversion.
#[derive(Debug, Clone, Copy)]
pub struct ConversionProgress {
    /// The values that were written.
    pub written: u64,
    /// The values of all tensors.
    pub values: u64,
}

impl Conversion {
    /// Converts the model. `observe` is called after each stretch, and ends the conversion where it returns
    /// false.
    ///
    /// # Errors
    /// The model cannot be read, the target is there, a file cannot be written, or `observe` ended it
    /// ([`Error::Interrupted`]). Then nothing was written.
    pub fn run(&self, observe: &mut dyn FnMut(ConversionProgress) -> bool) -> Result<ConversionReport> {
        if self.to.exists() && !self.replace {
            return Err(Error::TargetExists {
                target: self.to.clone(),
            });
        }
        if self.layout != FileLayout::Gguf
            && let Some(encoding) = self.encoding.filter(|encoding| encoding.is_quantized())
        {
            return Err(Error::UnfitEncoding {
                encoding: encoding.name(),
            });
        }
        let input = Input::open(&self.from)?;
        whole::sweep(&self.to);
        let mut report = ConversionReport {
            dropped: input.dropped.clone(),
            ..ConversionReport::default()
        };
        let mut progress = Progress {
            written: 0,
            values: input.values(),
            observe,
        };
        match self.layout {
            FileLayout::Diffusers => folder::write(&input, self, &mut report, &mut progress)?,
            FileLayout::Single => safetensors_file::write(&input, self, &mut report, &mut progress)?,
            FileLayout::Gguf => gguf_file::write(&input, self, &mut report, &mut progress)?,
        }
        report.types.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        Ok(report)
    }
}

impl ConversionReport {
    fn count(&mut self, name: &str, bytes: u64) {
        self.tensors += 1;
        match self.types.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += bytes,
            None => self.types.push((name.to_owned(), bytes)),
        }
    }
}

/// Counts values and tells the caller.
struct Progress<'a> {
    written: u64,
    values: u64,
    observe: &'a mut dyn FnMut(ConversionProgress) -> bool,
}

impl Progress<'_> {
    /// Adds `values` that were written.
    ///
    /// # Errors
    /// The caller ends the conversion.
    fn add(&mut self, values: usize) -> Result<()> {
        self.written += values as u64;
        let progress = ConversionProgress {
            written: self.written,
            values: self.values,
        };
        match (self.observe)(progress) {
            true => Ok(()),
            false => Err(Error::Interrupted),
        }
    }
}

/// The error of a file that cannot be written.
fn unwritable(file: &Path) -> impl Fn(std::io::Error) -> Error {
    let file = file.to_owned();
    move |source| Error::Write {
        file: file.clone(),
        source,
    }
}
