//! Local files and folders: what a path means, and whether a folder is complete.

use std::path::{Path, PathBuf};

use sd_files::{below, native};
use sd_hub::Reference;
use sd_pipeline::adapter_settings;
use sd_pipeline::bundle::{Choice, Kind};

use crate::error::{Error, Result};

/// The file that lists the components of a model.
pub(crate) const INDEX: &str = "model_index.json";
/// The longest index that is read, in bytes; about a thousand is typical.
const LONGEST_INDEX: u64 = 1 << 20;

/// The local path that `name` means, if it exists: a file, a folder, or `FOLDER:FILE` in an existing folder.
pub(crate) fn local_path(name: &str) -> Option<PathBuf> {
    let path = native(name);
    if path.exists() {
        Some(path)
    } else {
        in_folder(name)
    }
}

/// The path of `name` with the extension of LoRA files.
pub(crate) fn with_ending(name: &str) -> PathBuf {
    let name = format!("{name}.safetensors");
    local_path(&name).unwrap_or_else(|| native(name))
}

/// The path of `FOLDER:FILE`. The file need not exist. A colon may also be part of a name or follow a drive
/// letter: what precedes it must be a folder.
fn in_folder(name: &str) -> Option<PathBuf> {
    let (folder, file) = name.rsplit_once(':')?;
    let is_named = !file.is_empty() && Path::new(file).is_relative() && Path::new(folder).is_dir();
    is_named.then(|| below(&native(folder), file))
}

/// Whether all used files of `reference` are at its `path` in the cache.
pub(crate) fn is_complete(path: &Path, reference: &Reference, kind: Option<Kind>) -> bool {
    match reference.file {
        // A file beside a LoRA may hold its scale.
        Some(_) => adapter_settings(path).is_none_or(|settings| settings.is_file()),
        None => is_complete_folder(path, kind),
    }
}

/// Whether `folder` holds all used files of a `kind`. Without one its files show the kind.
pub fn is_complete_folder(folder: &Path, kind: Option<Kind>) -> bool {
    first_missing(folder, kind).is_none()
}

/// The first used file of a `kind` that is missing in `folder`.
pub(crate) fn first_missing(folder: &Path, kind: Option<Kind>) -> Option<String> {
    let paths = sd_hub::paths_below(folder);
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let index = sd_files::read_at_most(&folder.join(INDEX), LONGEST_INDEX).ok();
    let used = kind
        .or_else(|| Kind::of(&paths))
        .map(|kind| kind.used(&paths, index.as_deref()));
    match used {
        Some(Choice::Files(_) | Choice::OneOf(_)) => None,
        Some(Choice::Missing(what)) => Some(dangling_link(folder).unwrap_or(what)),
        None => Some("what it could be used as".to_owned()),
    }
}

/// A dangling link below `folder`.
fn dangling_link(folder: &Path) -> Option<String> {
    let links = sd_files::walk(folder).into_iter().filter(|found| found.is_link);
    let mut dangling = links.filter(|link| !folder.join(&link.path).exists());
    dangling.next().map(|link| link.path)
}

/// The file in `folder` that is used for the `kind`. `name` is the user's name of it.
///
/// # Errors
/// There is none, or there are several and none has the default name.
pub(crate) fn only_file(kind: Kind, name: &str, folder: &Path) -> Result<PathBuf> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = files
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let nothing = || Error::NothingAt {
        kind,
        name: name.to_owned(),
        similar: None,
    };
    match kind.wanted(&names, None) {
        Choice::Files(files) => files.first().map(|file| below(folder, file)).ok_or_else(nothing),
        Choice::OneOf(files) => Err(Error::Several {
            name: name.to_owned(),
            files: files.into_iter().map(str::to_owned).collect(),
        }),
        Choice::Missing(_) => Err(nothing()),
    }
}
