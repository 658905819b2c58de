//! The page's file, which is written atomically and replaces only an earlier profile.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::fsync::sync_folder;
use crate::save::temporary;
use crate::{Error, Result};

/// The marker in the head of every page, early enough to find it without reading the whole file.
pub(super) const GENERATOR: &str = "sd-generate";

/// The prefix of temporary files.
const PREFIX: &str = ".generate-profile-";

/// A path that a page can be written to.
#[derive(Debug)]
pub(super) struct PageFile {
    path: PathBuf,
    folder: PathBuf,
    /// Whether there is an earlier profile at this path.
    replaces: bool,
}

impl PageFile {
    /// Checks that a page can be written at `path`, without writing one.
    ///
    /// # Errors
    /// Its folder is missing or not writable, or there is a file of another kind.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let unwritable = |source| Error::Profile {
            path: path.to_owned(),
            source,
        };
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let replaces = match fs::symlink_metadata(path) {
            Ok(found) if found.is_file() && is_profile(path).map_err(unwritable)? => true,
            Ok(_) => return Err(unwritable(taken())),
            Err(error) if error.kind() == io::ErrorKind::NotFound && path.file_name().is_some() => false,
            Err(error) => return Err(unwritable(error)),
        };
        temporary(&folder, PREFIX).map_err(unwritable)?;
        Ok(Self {
            path: path.to_owned(),
            folder,
            replaces,
        })
    }

    /// Writes `page`.
    ///
    /// # Errors
    /// The disk is full or broken, or another file has appeared at the path.
    pub(super) fn write(self, page: &str) -> Result<()> {
        self.try_write(page).map_err(|source| Error::Profile {
            path: self.path.clone(),
            source,
        })
    }

    fn try_write(&self, page: &str) -> io::Result<()> {
        let mut file = temporary(&self.folder, PREFIX)?;
        file.write_all(page.as_bytes())?;
        file.as_file().sync_all()?;
        let placed = if self.replaces {
            file.persist(&self.path)
        } else {
            file.persist_noclobber(&self.path)
        };
        if let Err(refused) = placed {
            return Err(refused.error);
        }
        sync_folder(&self.folder);
        Ok(())
    }
}

fn taken() -> io::Error {
    io::Error::new(
        io::ErrorKind::AlreadyExists,
        "there is something of that name already, and it is no profile",
    )
}

/// Whether the file at `path` is a profile page, by its first bytes.
fn is_profile(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    sd_files::open(path)?.take(512).read_to_end(&mut head)?;
    Ok(String::from_utf8_lossy(&head).contains(&format!("name=\"generator\" content=\"{GENERATOR}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    #[test]
    fn only_an_earlier_profile_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.html");
        let page = Profile::default().page();
        PageFile::open(&path).unwrap().write(&page).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), page);
        PageFile::open(&path)
            .unwrap()
            .write(&format!("{page}<!-- again -->"))
            .unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with("again -->"));

        let mine = folder.path().join("model.safetensors");
        fs::write(&mine, "mine").unwrap();
        for path in [mine.as_path(), folder.path()] {
            let error = PageFile::open(path).unwrap_err();
            assert!(
                matches!(&error, Error::Profile { source, .. } if source.kind() == io::ErrorKind::AlreadyExists)
            );
        }
        assert_eq!(fs::read_to_string(&mine).unwrap(), "mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_name_that_is_taken_meanwhile_is_not_taken_from_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.html");
        let file = PageFile::open(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        assert!(matches!(file.write("page"), Err(Error::Profile { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unwritable_path_is_found_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [
            file.join("run.html"),
            folder.path().join("missing/run.html"),
            PathBuf::new(),
        ] {
            assert!(
                matches!(PageFile::open(&path), Err(Error::Profile { .. })),
                "{path:?}"
            );
        }
    }
}
