//! `--upscaler`: from names to networks that make pictures larger, and those that are used without being named.

use std::path::PathBuf;

use sd_pipeline::bundle::Kind;

use crate::hint::Failure;
use crate::local_models;
use crate::settings::Settings;

/// A network on the hub that is used where none is named and it is in the cache.
pub(crate) struct KnownUpscaler {
    /// What it is called.
    pub(crate) name: &'static str,
    /// By how much it enlarges.
    factor: usize,
}

/// Real-ESRGAN as ai-forever trained it.
pub(crate) const KNOWN: [KnownUpscaler; 2] = [
    KnownUpscaler {
        name: "ai-forever/Real-ESRGAN:RealESRGAN_x2.pth",
        factor: 2,
    },
    KnownUpscaler {
        name: "ai-forever/Real-ESRGAN:RealESRGAN_x4.pth",
        factor: 4,
    },
];

/// The one that enlarges by `factor`.
pub(crate) fn known(factor: usize) -> Option<&'static KnownUpscaler> {
    KNOWN.iter().find(|known| known.factor == factor)
}

/// The file of the network that pictures are made larger with, if one does.
pub(crate) fn chosen(settings: &Settings) -> Result<Option<PathBuf>, Failure> {
    let Some(factor) = settings.upscale else {
        return Ok(None);
    };
    match &settings.upscaler {
        Some(name) => file(name).map(Some),
        None => Ok(known(factor)
            .and_then(|known| local_models::reference(known.name))
            .and_then(|reference| local_models::locate(&reference))),
    }
}

/// The file that `name` means: a file, one in a folder (`FOLDER:FILE`), or the only one of its kind in a folder or a repository.
fn file(name: &str) -> Result<PathBuf, Failure> {
    let place = match local_models::reference(name) {
        Some(reference) if !local_models::is_here(name) => local_models::whole(Kind::Upscaler, &reference)?,
        _ => local_models::place(name),
    };
    local_models::only_file(Kind::Upscaler, name, &place)
}
