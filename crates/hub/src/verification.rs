//! Checks files against their hashes: those of the cache, whose blobs are called by their hashes, and any other
//! file against a SHA-256 that is known of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::digest::{Hash, Listed};
use crate::{Cache, CachedRepository, Error, Reference, RepositoryId, Result};

/// The size of the pieces that are read, in bytes.
const PIECE: usize = 1 << 20;

/// A file of the cache, or another file, that can be checked.
#[derive(Debug, Clone)]
pub struct CheckedFile {
    /// The file, without links to it.
    pub path: PathBuf,
    /// The length in bytes; 0 if the file is missing.
    pub bytes: u64,
    expected: Listed,
}

/// A file of a cached repository, with its path there.
#[derive(Debug, Clone)]
pub struct CachedFile {
    /// The repository.
    pub id: RepositoryId,
    /// The path in the repository, with `/` as separator.
    pub name: String,
    /// The file.
    pub file: CheckedFile,
}

/// The outcome of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The hash is the expected one.
    Intact,
    /// The hash is another.
    Damaged {
        /// The name of the hash.
        hash: &'static str,
        /// The expected digits.
        wanted: String,
        /// The digits of the file.
        found: String,
    },
    /// The file is missing: a link leads to nothing.
    Missing,
    /// No hash of the file is known.
    Unknown {
        /// The SHA-256 of the file, in hexadecimal digits.
        sha256: String,
    },
}

impl CheckedFile {
    /// The file at `path`, with its SHA-256 in hexadecimal digits if it is known.
    ///
    /// # Errors
    /// It is missing, or no file.
    pub fn with_sha256(path: &Path, sha256: Option<&str>) -> io::Result<Self> {
        let bytes = sd_files::open(path)?.metadata()?.len();
        let expected = sha256.map(|digits| Listed::Sha256(digits.to_ascii_lowercase()));
        Ok(Self {
            path: path.to_owned(),
            bytes,
            expected: expected.unwrap_or(Listed::Nothing),
        })
    }

    /// The file that `path` in the folder of a commit leads to. The name of its blob is its hash.
    fn in_cache(path: &Path) -> Self {
        let Ok(real) = path.canonicalize() else {
            return Self {
                path: path.to_owned(),
                bytes: 0,
                expected: Listed::Nothing,
            };
        };
        // Where links are not allowed the bytes are in the place of the link, and their hash is lost.
        let is_blob = real
            .parent()
            .is_some_and(|folder| folder.file_name().is_some_and(|name| name == "blobs"));
        let name = real.file_name().and_then(|name| name.to_str());
        Self {
            expected: Listed::of_blob_name(name.filter(|_| is_blob)),
            bytes: fs::metadata(&real).map_or(0, |metadata| metadata.len()),
            path: real,
        }
    }

    /// Reads the file and compares its hash. `progress` is called with the bytes of each piece that was read, and
    /// returns whether to go on.
    ///
    /// # Errors
    /// The file cannot be read, or `progress` stopped it ([`Error::Stopped`]).
    pub fn verify(&self, progress: &mut dyn FnMut(u64) -> bool) -> Result<Verdict> {
        let mut file = match sd_files::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Verdict::Missing),
            file => file.map_err(Error::unread(&self.path))?,
        };
        let nothing = Listed::Sha256(String::new());
        let listed = match &self.expected {
            Listed::Nothing => &nothing,
            expected => expected,
        };
        let length = file.metadata().map_err(Error::unread(&self.path))?.len();
        let mut hash = listed.hash(length);
        let mut piece = vec![0; PIECE];
        loop {
            let read = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::unread(&self.path)(error)),
            };
            hash.update(&piece[..read]);
            if !progress(read as u64) {
                return Err(Error::Stopped);
            }
        }
        Ok(verdict(&self.expected, hash))
    }
}

/// Compares `hash` with the `expected` one.
fn verdict(expected: &Listed, hash: Hash) -> Verdict {
    match expected {
        Listed::Nothing => Verdict::Unknown {
            sha256: hash.digits(),
        },
        expected => match expected.difference(hash) {
            None => Verdict::Intact,
            Some((hash, wanted, found)) => Verdict::Damaged { hash, wanted, found },
        },
    }
}

impl Cache {
    /// The files of `reference` in the cache: those of its revision, or of all revisions if it names none, or its
    /// one file. Files that several revisions share are listed once.
    ///
    /// # Errors
    /// The cache has no such repository, revision or file.
    pub fn files_of(&self, reference: &Reference) -> Result<Vec<CachedFile>> {
        let not_cached = || Error::NotCached {
            what: reference.to_string(),
        };
        let repository = self.repository(&reference.id).ok_or_else(not_cached)?;
        let folders: Vec<PathBuf> = match &reference.revision {
            Some(revision) => self.locate(&reference.id, revision).into_iter().collect(),
            None => folders(&repository),
        };
        let mut files = files_in(&reference.id, &folders);
        if let Some(wanted) = &reference.file {
            files.retain(|file| file.name == *wanted);
        }
        match files.is_empty() {
            true => Err(not_cached()),
            false => Ok(files),
        }
    }

    /// The files of all repositories in the cache, each once.
    pub fn files(&self) -> Vec<CachedFile> {
        let repositories = self.repositories().into_iter();
        repositories
            .flat_map(|repository| files_in(&repository.id, &folders(&repository)))
            .collect()
    }
}

/// The folders of the commits of `repository`.
fn folders(repository: &CachedRepository) -> Vec<PathBuf> {
    let revisions = repository.revisions.iter();
    revisions.map(|revision| revision.folder.clone()).collect()
}

/// The files in `folders`, the commits of the repository `id`.
fn files_in(id: &RepositoryId, folders: &[PathBuf]) -> Vec<CachedFile> {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for folder in folders {
        for found in sd_files::walk(folder) {
            let path = sd_files::below(folder, &found.path);
            // A link out of the cache is not the cache's file.
            if found.is_link && !matches!(sd_files::outside_of(folder, &path), Ok(None) | Err(_)) {
                continue;
            }
            let file = CheckedFile::in_cache(&path);
            if seen.insert(file.path.clone()) {
                files.push(CachedFile {
                    id: id.clone(),
                    name: found.path,
                    file,
                });
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'a red circle\n' | sha256sum`, and `… | git hash-object --stdin`.
    const SHA256: &str = "6bdfcd914b89fcca9c3f1c5ab1ebb46918456eb9c4066c72f59adc547d2ec628";
    const GIT: &str = "9f73483948c28aad65138781bf809f965c587847";
    const TEXT: &str = "a red circle\n";

    fn verdict_of(file: &CheckedFile) -> Verdict {
        file.verify(&mut |_| true).unwrap()
    }

    #[cfg(unix)]
    #[test]
    fn blobs_are_compared_with_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let repository = folder.path().join("models--me--mine");
        for part in ["blobs", "snapshots/abc/unet", "snapshots/def", "refs"] {
            fs::create_dir_all(repository.join(part)).unwrap();
        }
        fs::write(repository.join("refs/main"), "abc").unwrap();
        let link = |name: &str, blob: &str| {
            let up = "../".repeat(1 + name.matches('/').count());
            let path = repository.join("snapshots").join(name);
            std::os::unix::fs::symlink(format!("{up}blobs/{blob}"), path).unwrap();
        };
        fs::write(repository.join("blobs").join(SHA256), TEXT).unwrap();
        fs::write(repository.join("blobs").join(GIT), "a red square\n").unwrap();
        link("abc/unet/large", SHA256);
        link("abc/small", GIT);
        link("abc/lost", "0123");
        link("def/large", SHA256);
        fs::write(repository.join("snapshots/def/own"), TEXT).unwrap();
        let verdicts = |name: &str| -> Vec<(String, Verdict)> {
            let files = cache.files_of(&name.parse().unwrap()).unwrap().into_iter();
            files
                .map(|file| (file.name.clone(), verdict_of(&file.file)))
                .collect()
        };
        let small = Verdict::Damaged {
            hash: "its SHA-1 in git",
            wanted: GIT.to_owned(),
            found: "0be1ef51f600790d5860350fa52be79a4e8dbc3b".to_owned(),
        };
        let own = Verdict::Unknown {
            sha256: SHA256.to_owned(),
        };
        assert_eq!(
            verdicts("me/mine"),
            [
                ("lost".to_owned(), Verdict::Missing),
                ("small".to_owned(), small),
                ("unet/large".to_owned(), Verdict::Intact),
                ("own".to_owned(), own),
            ]
        );
        assert_eq!(verdicts("me/mine@def").len(), 2);
        assert_eq!(verdicts("me/mine:unet/large").len(), 1);
        assert_eq!(cache.files().len(), 4);
        for missing in ["me/other", "me/mine@v9", "me/mine:nothing"] {
            assert!(cache.files_of(&missing.parse().unwrap()).is_err(), "{missing}");
        }
    }

    #[test]
    fn any_file_is_compared_with_a_known_hash_and_can_be_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, TEXT).unwrap();
        let with = |sha256| CheckedFile::with_sha256(&path, sha256).unwrap();
        let in_capitals = SHA256.to_uppercase();
        assert_eq!(verdict_of(&with(Some(&in_capitals))), Verdict::Intact);
        assert!(matches!(
            verdict_of(&with(Some(GIT))),
            Verdict::Damaged { found, .. } if found == SHA256
        ));
        assert!(matches!(
            verdict_of(&with(None)),
            Verdict::Unknown { sha256 } if sha256 == SHA256
        ));
        let mut read = 0;
        let stopped = with(None).verify(&mut |bytes| {
            read += bytes;
            false
        });
        assert!(matches!(stopped, Err(Error::Stopped)));
        assert_eq!(read, TEXT.len() as u64);
        assert!(CheckedFile::with_sha256(folder.path(), None).is_err());
    }
}
