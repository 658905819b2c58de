//! The files of an interrupted run in the output folder: its saved images, and its temporary files.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Gallery, TEMPORARY_SUFFIX, remove, temporary_prefix};
use crate::resume::RunName;
use crate::{Error, Result, SavedImage};

/// The part of an image's metadata that identifies its run.
#[derive(Deserialize)]
struct Origin {
    started: String,
    image_index: usize,
    seed: u64,
}

/// The longest metadata file that is read: it holds the timeline of a run.
const LONGEST_METADATA: u64 = 256 << 20;

impl Gallery {
    /// Finds the images that this run has saved in other processes, and removes their unfinished files. New
    /// names continue after `known`, the number of images that are known to be saved.
    ///
    /// # Errors
    /// The folder cannot be read, or a file in it cannot be removed.
    pub(crate) fn recover(&mut self, known: usize) -> Result<Vec<SavedImage>> {
        self.next = self.next.saturating_add(known);
        remove_temporary_files(&self.folder, &self.names.run)?;
        let mut saved = Vec::new();
        for metadata in files(&self.folder)? {
            if metadata.extension() != Some(OsStr::new("json")) || !self.may_be_ours(&metadata) {
                continue;
            }
            // Other runs may have started in the same second, and such a file need not be metadata.
            let origin = sd_files::read_at_most(&metadata, LONGEST_METADATA)
                .ok()
                .and_then(|text| serde_json::from_slice::<Origin>(&text).ok())
                .filter(|origin| origin.started == self.names.run.started());
            let Some(Origin {
                image_index, seed, ..
            }) = origin
            else {
                continue;
            };
            let stem = metadata.file_stem().unwrap_or_default().to_string_lossy();
            let Some(number) = self.names.number_of(&stem, image_index) else {
                continue;
            };
            let image = metadata.with_file_name(self.names.image_file(&stem));
            if image.exists() {
                saved.push(SavedImage {
                    image,
                    metadata,
                    index: image_index,
                    seed,
                    number,
                });
            } else {
                // The process was killed after it had written the metadata and before the image.
                remove(&metadata)?;
            }
        }
        Ok(saved)
    }

    /// Whether `metadata`, a file in the folder, may be of this run: by its name, or by its age if the user names files.
    fn may_be_ours(&self, metadata: &Path) -> bool {
        if self.names.names.template.is_some() {
            let changed = fs::metadata(metadata).and_then(|metadata| metadata.modified());
            let started = self.names.run.moment();
            return changed
                .ok()
                .zip(started)
                .is_none_or(|(changed, started)| changed >= started);
        }
        let stem = metadata.file_stem().and_then(OsStr::to_str);
        stem.is_some_and(|stem| self.names.run.number_of(stem).is_some())
    }
}

/// Removes the temporary files of `run` in `folder`. No process of the run may be running.
///
/// # Errors
/// The folder cannot be read, or a file in it cannot be removed.
pub(crate) fn remove_temporary_files(folder: &Path, run: &RunName) -> Result<()> {
    for file in files(folder)? {
        if is_between(&file, &temporary_prefix(run), TEMPORARY_SUFFIX) {
            remove(&file)?;
        }
    }
    Ok(())
}

/// Whether the file's name starts with `start` and ends with `end`.
fn is_between(file: &Path, start: &str, end: &str) -> bool {
    let name = file.file_name().and_then(OsStr::to_str);
    name.is_some_and(|name| name.starts_with(start) && name.ends_with(end))
}

/// The files in `folder`; none if it does not exist.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| Error::Output {
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
}

#[cfg(test)]
mod tests {
    use jiff::ZonedDateTime;

    use super::super::{FileNames, ImageNames, RgbImage, metadata};
    use super::*;

    fn names(folder: &Path) -> Vec<PathBuf> {
        let mut names = files(folder).unwrap();
        names.sort();
        names
    }

    fn names_of(run: &RunName) -> ImageNames {
        ImageNames {
            names: FileNames::default(),
            run: run.clone(),
            seeds: 42.into(),
            model: "demo".to_owned(),
            images: 2,
        }
    }

    #[test]
    fn a_run_finds_its_own_images_and_clears_its_own_traces() {
        let folder = tempfile::tempdir().unwrap();
        // Two runs of the same second, whose file names collide.
        let now = ZonedDateTime::now();
        let (run, other) = (
            RunName::new(&now),
            RunName::new(&(now + std::time::Duration::from_nanos(1))),
        );
        let image = RgbImage::new(1, 1, vec![1, 2, 3]);
        let save = |run: &RunName, index: usize| {
            let mut metadata = metadata::example();
            metadata.image_index = index;
            let mut gallery = Gallery::open(folder.path(), names_of(run)).unwrap();
            gallery.save(&image, &mut metadata).unwrap()
        };
        let (first, theirs, half) = (save(&run, 0), save(&other, 0), save(&run, 1));
        fs::remove_file(&half.image).unwrap();
        let stray = |run: &RunName| {
            let path = folder.path().join(format!("{}abc.part", temporary_prefix(run)));
            fs::write(&path, "half an image").unwrap();
            path
        };
        let (ours, not_ours) = (stray(&run), stray(&other));
        fs::write(
            folder.path().join(format!("{}_009.json", run.file_stem())),
            "no metadata",
        )
        .unwrap();

        let mut gallery = Gallery::open(folder.path(), names_of(&run)).unwrap();
        assert_eq!(gallery.recover(0).unwrap(), std::slice::from_ref(&first));
        let left = names(folder.path());
        assert!(
            !left.contains(&ours) && !left.contains(&half.metadata),
            "{left:?}"
        );
        assert!(
            left.contains(&not_ours) && left.contains(&theirs.metadata),
            "{left:?}"
        );
        assert_eq!(left.len(), 6, "{left:?}");
        assert_eq!(gallery.recover(1).unwrap(), [first]);
    }
}
