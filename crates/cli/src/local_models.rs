//! Models on this machine by their names on the hub: what the cache of Hugging Face holds.

use std::path::{Path, PathBuf};

use sd_hub::{Cache, Reference, Settings};
use sd_pipeline::bundle::{Choice, Kind};
use sd_pipeline::{adapter_settings, presets};

use crate::hint::Failure;

/// What names of files end with. A name that ends so is a path, also where it reads like an id.
const ENDINGS: [&str; 5] = [".safetensors", ".pth", ".ckpt", ".bin", ".gguf"];
/// What says of a model which parts it has.
pub(crate) const INDEX: &str = "model_index.json";
/// The longest of these that is read; usual are a thousand bytes.
const LONGEST_INDEX: u64 = 1 << 20;

/// The cache of the user.
pub(crate) fn cache() -> Cache {
    Cache::new(Settings::of_user().cache)
}

/// What `name` means on the hub, under the id that it has there today, if it reads like an id rather than like a path.
pub(crate) fn reference(name: &str) -> Option<Reference> {
    let reference: Reference = name.parse().ok()?;
    let is_path = reference.file.is_none() && ENDINGS.iter().any(|ending| name.ends_with(ending));
    if is_path {
        return None;
    }
    let id = presets::moved(reference.id.as_str()).parse().ok()?;
    Some(Reference { id, ..reference })
}

/// The folder of what `reference` names, or its file, as far as it is in the cache.
pub(crate) fn locate(reference: &Reference) -> Option<PathBuf> {
    locate_in(&cache(), reference)
}

/// Where that is of which `reference` names one of a `kind`, as far as it is used.
///
/// # Errors
/// It is not in the cache, or only in part: a download, or an update, has not come to its end.
pub(crate) fn whole(kind: Kind, reference: &Reference) -> Result<PathBuf, Failure> {
    let place = locate(reference).ok_or_else(|| Failure::not_installed(kind, reference))?;
    match lacking(&place, Some(kind)).filter(|_| reference.file.is_none()) {
        Some(lacking) => Err(Failure::partly_installed(kind, reference, &lacking)),
        None => Ok(place),
    }
}

/// Whether all that is used of what `reference` names is in the cache, where it is used as a `kind`.
pub(crate) fn is_whole(reference: &Reference, kind: Option<Kind>) -> bool {
    let Some(place) = locate(reference) else {
        return false;
    };
    match reference.file {
        // What says how strongly a LoRA is added may lie beside it.
        Some(_) => adapter_settings(&place).is_none_or(|settings| settings.is_file()),
        None => is_whole_folder(&place, kind),
    }
}

/// Whether `folder` holds all that is used of a `kind`.
pub(crate) fn is_whole_folder(folder: &Path, kind: Option<Kind>) -> bool {
    lacking(folder, kind).is_none()
}

/// What `folder` lacks of what is used of a `kind`, if anything.
fn lacking(folder: &Path, kind: Option<Kind>) -> Option<String> {
    let paths = sd_hub::paths_below(folder);
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let index = sd_files::read_at_most(&folder.join(INDEX), LONGEST_INDEX).ok();
    let used = kind
        .or_else(|| Kind::of(&paths))
        .map(|kind| kind.used(&paths, index.as_deref()));
    match used {
        Some(Choice::Files(_) | Choice::OneOf(_)) => None,
        Some(Choice::Missing(what)) => Some(lost_link(folder).unwrap_or(what)),
        None => Some("what it could be used as".to_owned()),
    }
}

/// The path of a link below `folder` whose bytes are gone.
fn lost_link(folder: &Path) -> Option<String> {
    let links = sd_files::walk(folder).into_iter().filter(|found| found.is_link);
    let mut lost = links.filter(|link| !folder.join(&link.path).exists());
    lost.next().map(|link| link.path)
}

/// Whether something on this machine is called `name`: a file, a folder, or `FOLDER:FILE`.
pub(crate) fn is_here(name: &str) -> bool {
    Path::new(name).exists() || in_folder(name).is_some()
}

/// Where what is called `name` is on this machine, if it is here.
pub(crate) fn place(name: &str) -> PathBuf {
    let place = PathBuf::from(name);
    match in_folder(name) {
        Some(file) if !place.exists() => file,
        _ => place,
    }
}

/// The file in a folder of this machine that `name` means, which reads `FOLDER:FILE`. The file need not be there. A colon
/// may also stand in a name, or behind the letter of a drive: what is in front of it must be a folder.
fn in_folder(name: &str) -> Option<PathBuf> {
    let (folder, file) = name.rsplit_once(':')?;
    let is_named = !file.is_empty() && Path::new(file).is_relative() && Path::new(folder).is_dir();
    is_named.then(|| Path::new(folder).join(file))
}

/// The file at `place`, or in the folder there the one that a repository of the `kind` would be used for. `name` is what the
/// user calls it.
///
/// # Errors
/// There is none, or there are several and none has the usual name.
pub(crate) fn only_file(kind: Kind, name: &str, place: &Path) -> Result<PathBuf, Failure> {
    if place.is_file() {
        return Ok(place.to_owned());
    }
    let entries = place.read_dir().into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = files
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    match kind.wanted(&names, None) {
        Choice::Files(files) => match files.first() {
            Some(file) => Ok(place.join(file)),
            None => Err(Failure::nothing_at(kind, name)),
        },
        Choice::OneOf(files) => Err(Failure::several(name, &files)),
        Choice::Missing(_) => Err(Failure::nothing_at(kind, name)),
    }
}

fn locate_in(cache: &Cache, reference: &Reference) -> Option<PathBuf> {
    let folder = cache.locate(&reference.id, reference.revision())?;
    match &reference.file {
        Some(file) => Some(folder.join(file)).filter(|file| file.is_file()),
        None => Some(folder),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn names_on_the_hub_are_told_from_paths() {
        for name in [
            "stabilityai/stable-diffusion-3.5-large",
            "Lykon/DreamShaper-8@v1",
            "a/b:c/d.pth",
        ] {
            assert_eq!(
                reference(name).map(|found| found.to_string()).as_deref(),
                Some(name)
            );
        }
        for path in [
            "demo",
            "./model",
            "../a",
            "/a/b",
            "a/b/c",
            "loras/mine.safetensors",
            "a/x4.pth",
        ] {
            assert_eq!(reference(path), None, "{path}");
        }
        let moved = reference("runwayml/stable-diffusion-v1-5").unwrap();
        assert_eq!(moved.to_string(), "stable-diffusion-v1-5/stable-diffusion-v1-5");
    }

    #[test]
    fn a_file_is_found_in_its_repository() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let repository = folder.path().join("models--me--mine");
        let locate = |name: &str| locate_in(&cache, &reference(name).unwrap());
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::write(repository.join("refs/main"), "abc\n").unwrap();
        assert_eq!(locate("me/mine"), None);
        let snapshot = repository.join("snapshots/abc");
        fs::create_dir_all(snapshot.join("nets")).unwrap();
        fs::write(snapshot.join("nets/x4.pth"), "").unwrap();
        assert_eq!(locate("me/mine"), Some(snapshot.clone()));
        assert_eq!(locate("me/mine:nets/x4.pth"), Some(snapshot.join("nets/x4.pth")));
        assert_eq!(locate("me/mine:nets"), None);
    }
}
