//! Saves images with their metadata. Both files are written atomically, and never over an existing file.

mod bare_name;
mod encode;
mod file_names;
mod image;
mod interrupted;
mod metadata;
mod parameters;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::{Builder, NamedTempFile};

pub use encode::ImageFormat;
pub(crate) use file_names::ImageNames;
pub use file_names::{BadTemplate, FileNames, ImagesPart, Template};
pub use image::RgbImage;
pub(crate) use interrupted::remove_temporary_files;
pub use metadata::{EmbeddingRecord, LoraRecord, MemoryReport, Metadata, RefinerSettings};
pub use parameters::parameters_text;

use crate::crash_point::crash_point;
use crate::fsync::sync_folder;
use crate::resume::RunName;
use crate::{Error, Result, SavedImage};

/// The version of the schema of what the program writes as JSON, which docs/json.md describes. It changes when something
/// that programs read is renamed, removed, or gets another meaning.
pub const JSON_SCHEMA: u32 = 1;

/// The content of the file beside an image.
#[derive(Serialize)]
struct Sidecar<'a> {
    schema: u32,
    #[serde(flatten)]
    metadata: &'a Metadata,
}

/// The output folder of a run.
#[derive(Debug)]
pub struct Gallery {
    folder: PathBuf,
    names: ImageNames,
    next: usize,
}

impl Gallery {
    /// Opens `folder`, creates it if missing, and checks that it is writable before any work is done.
    ///
    /// # Errors
    /// The folder cannot be created or written.
    pub(crate) fn open(folder: &Path, names: ImageNames) -> Result<Self> {
        let unwritable = |source| Error::Output {
            path: folder.to_owned(),
            source,
        };
        fs::create_dir_all(folder).map_err(|error| {
            unwritable(match error.kind() {
                // The system's text, "File exists", sounds as if an image were in the way.
                kind @ io::ErrorKind::AlreadyExists => io::Error::new(kind, "it is not a folder"),
                _ => error,
            })
        })?;
        names.check_length().map_err(unwritable)?;
        // An unnamed file, where the system has such: even a killed process leaves nothing behind.
        tempfile::tempfile_in(folder).map_err(unwritable)?;
        Ok(Self {
            folder: folder.to_owned(),
            names,
            next: 1,
        })
    }

    /// Saves `image` with `metadata` under the next free name, by default `output_YYYY-MM-DD_HH-MM-SS_001.png` and the
    /// same with `.json`. The file name and the start of the run are set in `metadata`.
    ///
    /// # Errors
    /// The files cannot be written; then neither exists.
    pub fn save(&mut self, image: &RgbImage, metadata: &mut Metadata) -> Result<SavedImage> {
        let index = metadata.image_index;
        let replaces = self.names.names.replaces;
        let mut attempt = 1;
        loop {
            let number = match (self.names.chosen_number(index), self.names.counts_images()) {
                // Somebody may have taken it since.
                (Some(chosen), _) => chosen + attempt - 1,
                (None, true) => self.next,
                (None, false) => attempt,
            };
            let stem = self.names.stem(index, number);
            let file_name = self.names.image_file(&stem);
            let path = self.folder.join(&file_name);
            let sidecar = self.folder.join(format!("{stem}.json"));
            self.next += 1;
            attempt += 1;
            if !replaces && (path.exists() || sidecar.exists()) {
                continue;
            }
            metadata.filename = file_name;
            metadata.started = self.names.run.started().to_owned();
            let text = parameters_text(metadata);
            let format = self.names.names.format;
            let written_image = self.write(&path, |file| image.write(format, file, &text, &path))?;
            let written_sidecar = self.write_metadata(metadata, &sidecar)?;
            let is_saved = match replaces {
                true => {
                    // The image first: what cannot be replaced keeps its metadata, and a resumed run finds by its
                    // metadata that the image is its own.
                    persist(written_image, &path, true)?;
                    persist(written_sidecar, &sidecar, true)?
                }
                false => persist_both((written_image, &path), (written_sidecar, &sidecar))?,
            };
            if !is_saved {
                continue;
            }
            crash_point();
            sync_folder(&self.folder);
            return Ok(SavedImage {
                image: path,
                metadata: sidecar,
                index,
                seed: metadata.seed,
                number,
            });
        }
    }

    /// Replaces the metadata of an image that was `saved`. If its file is no longer there, nothing is written.
    ///
    /// # Errors
    /// The file cannot be written; the one before is then unchanged.
    pub(crate) fn replace_metadata(&self, saved: &SavedImage, metadata: &Metadata) -> Result<()> {
        let path = &saved.metadata;
        if !path.exists() {
            return Ok(());
        }
        let written = self.write_metadata(metadata, path)?;
        crash_point();
        match written.persist(path) {
            Ok(_) => {
                sync_folder(&self.folder);
                Ok(())
            }
            Err(refused) => Err(Error::Output {
                path: path.clone(),
                source: refused.error,
            }),
        }
    }

    /// Writes `metadata` into a temporary file. `path` is its name in messages.
    fn write_metadata(&self, metadata: &Metadata, path: &Path) -> Result<NamedTempFile> {
        self.write(path, |file| {
            let sidecar = Sidecar {
                schema: JSON_SCHEMA,
                metadata,
            };
            // Each token would be a write of its own.
            let text = serde_json::to_vec_pretty(&sidecar).map_err(io::Error::from);
            let result = text.and_then(|mut text| {
                text.push(b'\n');
                file.write_all(&text)
            });
            result.map_err(|source| Error::Output {
                path: path.to_owned(),
                source,
            })
        })
    }

    /// Writes a temporary file in the folder and syncs it to the disk. `path` is its name in messages.
    fn write(&self, path: &Path, fill: impl FnOnce(&mut fs::File) -> Result<()>) -> Result<NamedTempFile> {
        let failed = |source| Error::Output {
            path: path.to_owned(),
            source,
        };
        let mut file = self.temporary().map_err(failed)?;
        crash_point();
        fill(file.as_file_mut())?;
        file.as_file().sync_all().map_err(failed)?;
        Ok(file)
    }

    /// A temporary file of the run, which is deleted when dropped.
    fn temporary(&self) -> io::Result<NamedTempFile> {
        temporary(&self.folder, &temporary_prefix(&self.names.run))
    }
}

/// A temporary file in `folder`, which is deleted when dropped. Its name starts with `prefix`.
pub(crate) fn temporary(folder: &Path, prefix: &str) -> io::Result<NamedTempFile> {
    let mut builder = Builder::new();
    builder.prefix(prefix).suffix(TEMPORARY_SUFFIX);
    // Temporary files are private by default; saved files get the default permissions.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

const TEMPORARY_SUFFIX: &str = ".part";

/// The prefix of the names of the temporary files of `run`.
fn temporary_prefix(run: &RunName) -> String {
    format!(".generate-{run}-")
}

/// Renames an image and its metadata, unless a file exists under one of the names; then neither is there. The image is
/// renamed last: whoever sees it finds its metadata.
fn persist_both(image: (NamedTempFile, &Path), sidecar: (NamedTempFile, &Path)) -> Result<bool> {
    if !persist(sidecar.0, sidecar.1, false)? {
        return Ok(false);
    }
    let outcome = persist(image.0, image.1, false);
    if !matches!(outcome, Ok(true)) {
        remove(sidecar.1)?;
    }
    outcome
}

/// Renames a file to `path`. If that exists, `replaces` says whether it is replaced; the result says whether the file
/// was renamed.
fn persist(file: NamedTempFile, path: &Path, replaces: bool) -> Result<bool> {
    crash_point();
    let persisted = match replaces {
        true => file.persist(path),
        false => file.persist_noclobber(path),
    };
    match persisted {
        Ok(_) => Ok(true),
        Err(refused) if !replaces && refused.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(refused) => Err(Error::Output {
            path: path.to_owned(),
            source: refused.error,
        }),
    }
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(|source| Error::Output {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use jiff::civil::DateTime;
    use jiff::tz::TimeZone;

    use super::*;

    fn names(names: FileNames) -> ImageNames {
        let now = DateTime::constant(2026, 5, 4, 3, 2, 1, 0);
        ImageNames {
            names,
            run: RunName::new(&now.to_zoned_datetime(TimeZone::UTC).unwrap()),
            seeds: 42.into(),
            model: "demo".to_owned(),
            images: 1,
        }
    }

    fn run() -> ImageNames {
        names(FileNames::default())
    }

    fn example() -> (RgbImage, Metadata) {
        (
            RgbImage::new(2, 1, vec![255, 0, 0, 0, 0, 255]),
            metadata::example(),
        )
    }

    #[test]
    fn numbers_skip_names_that_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("output_2026-05-04_03-02-01_001.json"), "mine").unwrap();
        let (image, mut metadata) = example();
        let saved = Gallery::open(folder.path(), run())
            .unwrap()
            .save(&image, &mut metadata)
            .unwrap();
        assert!(saved.image.ends_with("output_2026-05-04_03-02-01_002.png"));
        let again = Gallery::open(folder.path(), run())
            .unwrap()
            .save(&image, &mut metadata)
            .unwrap();
        assert!(again.image.ends_with("output_2026-05-04_03-02-01_003.png"));
        let mine = fs::read_to_string(folder.path().join("output_2026-05-04_03-02-01_001.json")).unwrap();
        assert_eq!(mine, "mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
        let sidecar: serde_json::Value = serde_json::from_slice(&fs::read(&saved.metadata).unwrap()).unwrap();
        assert_eq!(sidecar["filename"], "output_2026-05-04_03-02-01_002.png");
    }

    #[test]
    fn what_cannot_be_replaced_keeps_its_metadata() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("cat.png")).unwrap();
        fs::write(folder.path().join("cat.json"), "mine").unwrap();
        let (image, mut metadata) = example();
        let replacing = names(FileNames {
            template: Some("cat".parse().unwrap()),
            replaces: true,
            ..FileNames::default()
        });
        let saved = Gallery::open(folder.path(), replacing)
            .unwrap()
            .save(&image, &mut metadata);
        assert!(matches!(saved, Err(Error::Output { .. })), "{saved:?}");
        assert_eq!(
            fs::read_to_string(folder.path().join("cat.json")).unwrap(),
            "mine"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn names_that_are_too_long_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let of = |length: usize| {
            names(FileNames {
                template: Some("n".repeat(length).parse().unwrap()),
                ..FileNames::default()
            })
        };
        assert!(Gallery::open(folder.path(), of(240)).is_ok());
        assert!(Gallery::open(folder.path(), of(250)).is_err());
    }

    #[test]
    fn a_folder_that_cannot_be_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Gallery::open(&file.join("below"), run()).unwrap_err();
        assert!(matches!(error, Error::Output { .. }), "{error:?}");
    }

    #[test]
    fn a_named_file_is_kept_or_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (image, mut metadata) = example();
        let mut save = |replaces: bool, format: ImageFormat| {
            let template = Some("cat".parse().unwrap());
            let names = names(FileNames {
                template,
                format,
                replaces,
                ..FileNames::default()
            });
            let mut gallery = Gallery::open(folder.path(), names).unwrap();
            let saved = gallery.save(&image, &mut metadata).unwrap();
            saved.file_name().to_str().unwrap().to_owned()
        };
        assert_eq!(save(false, ImageFormat::Png), "cat.png");
        assert_eq!(save(false, ImageFormat::Png), "cat_2.png");
        assert_eq!(save(true, ImageFormat::Png), "cat.png");
        // Its metadata would replace that of the PNG.
        assert_eq!(save(false, ImageFormat::WebP), "cat_3.webp");
        assert_eq!(save(false, ImageFormat::Jpeg { quality: 90 }), "cat_4.jpg");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 8);
    }
}
