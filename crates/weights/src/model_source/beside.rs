//! The search for a network that a model's file does not hold, in files beside it.

use std::fs;
use std::path::{Path, PathBuf};

use super::NetworkKind;
use super::single_file::{Network, SingleFile};
use crate::{Checkpoint, Error, Result};

/// The maximum number of files of a folder that are opened.
const MAXIMUM_FILES: usize = 1 << 10;
/// The endings of files with weights.
const ENDINGS: [&str; 7] = ["safetensors", "sft", "gguf", "ckpt", "pt", "pth", "bin"];

/// The network of `kind` for the model in `file`, from a file in its folder, in the folders of ComfyUI and
/// stable-diffusion-webui around that, or in the `search` paths, where these folders have subfolders. None if
/// there is none.
///
/// Of several text encoders in one folder, which differ in their precision, the largest is taken.
///
/// # Errors
/// Several autoencoders in one folder could be it: files do not tell for which model one is.
pub(super) fn network(
    file: &Path,
    search: &[PathBuf],
    kind: NetworkKind,
    fits: &dyn Fn(&Network) -> bool,
) -> Result<Option<(PathBuf, Network)>> {
    for place in places(file, search, kind) {
        let mut found: Vec<(PathBuf, Network)> = place
            .files()
            .into_iter()
            .filter(|candidate| candidate != file)
            .filter_map(|candidate| Some((candidate.clone(), alone_in(&candidate, kind)?)))
            .filter(|(_, network)| fits(network))
            .collect();
        if kind == NetworkKind::Vae && found.len() > 1 {
            return Err(Error::SeveralNetworks {
                file: file.to_owned(),
                network: kind.title(),
                candidates: found.into_iter().map(|(path, _)| path).collect(),
            });
        }
        found.sort_by_key(|(_, network)| network.checkpoint.bytes());
        if let Some(found) = found.pop() {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A folder that is searched, or a file.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// Whether its subfolders are searched.
    with_subfolders: bool,
}

/// The places that are searched, the nearest first.
fn places(file: &Path, search: &[PathBuf], kind: NetworkKind) -> Vec<Place> {
    let names: &[&str] = match kind {
        NetworkKind::Vae => &["vae", "VAE"],
        _ => &["text_encoders", "clip", "text_encoder"],
    };
    let alone = |path: PathBuf| Place {
        path,
        with_subfolders: false,
    };
    let own = file.parent().unwrap_or(Path::new(""));
    let around = own.join("..");
    let mut places = vec![alone(own.to_owned())];
    for root in [own, &around] {
        places.extend(names.iter().map(|name| alone(root.join(name))));
    }
    for root in search {
        places.extend(names.iter().map(|name| Place {
            path: root.join(name),
            with_subfolders: true,
        }));
    }
    places.extend(search.iter().cloned().map(alone));
    places
}

impl Place {
    /// Its files with weights, sorted by path. The place itself, if it is such a file.
    fn files(&self) -> Vec<PathBuf> {
        let has_weights = |path: &Path| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            ending.is_some_and(|ending| ENDINGS.contains(&ending.to_ascii_lowercase().as_str()))
                && path.is_file()
        };
        let folder = &self.path;
        if has_weights(folder) {
            return vec![folder.to_owned()];
        }
        let paths: Box<dyn Iterator<Item = PathBuf>> = match self.with_subfolders {
            true => {
                let found = sd_files::walk(folder).into_iter();
                Box::new(found.map(|found| sd_files::below(folder, &found.path)))
            }
            false => {
                let entries = fs::read_dir(folder).into_iter().flatten().flatten();
                Box::new(entries.map(|entry| entry.path()))
            }
        };
        let mut files: Vec<PathBuf> = paths
            .filter(|path| has_weights(path))
            .take(MAXIMUM_FILES)
            .collect();
        files.sort();
        files
    }
}

/// The network of `kind` in `file`, unless that holds a whole model or cannot be read.
fn alone_in(file: &Path, kind: NetworkKind) -> Option<Network> {
    let opened = SingleFile::open(file).ok()?;
    if opened.denoiser().is_some() {
        return None;
    }
    opened.network(kind).cloned()
}

/// The network of `kind` in the file or folder `named` that the user named for it, and its configuration.
///
/// # Errors
/// It is missing or damaged, or holds something else.
pub(super) fn named(named: &Path, kind: NetworkKind) -> Result<Network> {
    if named.is_dir() {
        return in_folder(named, kind);
    }
    let other = |found| Error::OtherNetwork {
        file: named.to_owned(),
        wanted: kind.title(),
        found,
    };
    let opened = match SingleFile::open(named) {
        Err(Error::NoModel { what, .. }) => return Err(other(what)),
        opened => opened?,
    };
    match opened.network(kind) {
        Some(network) => Ok(network.clone()),
        None => Err(other(opened.content())),
    }
}

/// The network of `kind` in a folder as diffusers has one for each network.
fn in_folder(folder: &Path, kind: NetworkKind) -> Result<Network> {
    use super::ModelSource;
    let (around, component) = super::ModelFolder::around(folder);
    let config = around.config(&component)?.json()?;
    let checkpoint: Checkpoint = around.checkpoint(&component)?;
    Ok(Network {
        kind,
        checkpoint,
        config,
    })
}
