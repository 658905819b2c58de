//! Checks that everything a request names exists, before anything else is done.

use std::fs;
use std::io;
use std::path::Path;

use crate::bundle::Kind;
use crate::request::Request;
use crate::{Error, Result};

/// Refuses a request that names a missing file or folder. A file that exists may still be invalid: opening it
/// shows that. The model is looked for there too.
///
/// # Errors
/// The first that is missing.
pub(crate) fn check(request: &Request) -> Result<()> {
    for lora in &request.loras {
        must_be(Kind::Lora, &lora.file)?;
    }
    for embedding in &request.embeddings {
        if absence(&embedding.file).is_some() {
            return Err(Error::NoEmbedding {
                path: embedding.file.clone(),
            });
        }
    }
    for control in &request.controls {
        must_be(Kind::ControlNet, &control.folder)?;
        must_be_image(&control.image)?;
    }
    if let Some(init) = &request.init {
        must_be_image(&init.image)?;
        init.mask.as_deref().map_or(Ok(()), must_be_image)?;
    }
    if let Some(refiner) = &request.refiner
        && !refiner.model.files.is_embedded()
    {
        must_be(Kind::Model, refiner.model.files.path())?;
    }
    match &request.upscale {
        // The default upscaler was not named by the user, and may be missing.
        Some(upscale) if !upscale.or_resampled => upscale
            .network
            .as_deref()
            .map_or(Ok(()), |network| must_be(Kind::Upscaler, network)),
        _ => Ok(()),
    }
}

fn must_be(kind: Kind, path: &Path) -> Result<()> {
    match absence(path) {
        Some(_) => Err(Error::NotThere {
            kind,
            path: path.to_owned(),
        }),
        None => Ok(()),
    }
}

fn must_be_image(path: &Path) -> Result<()> {
    match absence(path) {
        Some(error) => Err(Error::BadImage {
            path: path.to_owned(),
            reason: error.to_string(),
        }),
        None => Ok(()),
    }
}

/// The system's error if there is nothing at `path`.
fn absence(path: &Path) -> Option<io::Error> {
    let error = fs::metadata(path).err()?;
    let is_absent = matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    );
    is_absent.then_some(error)
}
