//! Removal of repositories and revisions from the cache.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::cache::{bytes_below, paths_below};
use crate::{Cache, Error, MAIN, Reference, RepositoryId, Result};

/// The result of a removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The bytes that were freed.
    pub bytes: u64,
    /// The branches and tags that remain, which keep the blobs that they share.
    pub stays: Vec<String>,
}

impl Cache {
    /// Removes the revision that `reference` names, or without a revision the main branch and all commits
    /// without a branch or tag. Blobs that other revisions share remain.
    ///
    /// # Errors
    /// The revision is not in the cache, or cannot be removed.
    pub fn remove(&self, reference: &Reference) -> Result<Removed> {
        let id = &reference.id;
        let missing = || Error::NotCached {
            what: reference.to_string(),
        };
        let repository = self.repository(id).ok_or_else(missing)?;
        let names = self.names_of(id);
        let (removed_revisions, stays): (Vec<_>, Vec<_>) = match &reference.revision {
            Some(revision) => {
                let folder = self.locate(id, revision).ok_or_else(missing)?;
                repository
                    .revisions
                    .into_iter()
                    .partition(|found| found.folder == folder)
            }
            None => repository
                .revisions
                .into_iter()
                .partition(|found| found.names.iter().all(|name| name == MAIN)),
        };
        let folder = self.folder(id);
        let _locks = self.lock_all(id)?;
        let (before, _) = bytes_below(&folder);
        if stays.is_empty() {
            remove_folder(&folder)?;
            remove_folder(&self.locks(id))?;
            return Ok(Removed {
                bytes: before,
                stays: Vec::new(),
            });
        }
        // A branch may be the same commit as a tag, which keeps it.
        let is_gone = |(name, commit): &&(String, String)| {
            name == reference.revision() || removed_revisions.iter().any(|gone| gone.commit == *commit)
        };
        if !names.iter().any(|named| is_gone(&named)) && removed_revisions.is_empty() {
            return Err(missing());
        }
        for (name, _) in names.iter().filter(is_gone) {
            let name = folder.join("refs").join(name);
            fs::remove_file(&name).map_err(Error::cache(name))?;
        }
        for revision in &removed_revisions {
            remove_folder(&revision.folder)?;
        }
        let shared: BTreeSet<String> = stays
            .iter()
            .flat_map(|revision| blobs_of(&revision.folder))
            .collect();
        self.remove_blobs(id, &shared)?;
        Ok(Removed {
            bytes: before.saturating_sub(bytes_below(&folder).0),
            stays: self.names_of(id).into_iter().map(|(name, _)| name).collect(),
        })
    }

    /// Takes the download locks of all blobs and partial downloads.
    ///
    /// # Errors
    /// A lock is taken, because a file is being downloaded.
    fn lock_all(&self, id: &RepositoryId) -> Result<Vec<File>> {
        let folder = self.folder(id).join("blobs");
        let blobs = sd_files::walk(&folder).into_iter().map(|file| file.path);
        let ending = format!(".{}", Self::PARTIAL);
        let blobs: BTreeSet<String> = blobs
            .map(|name| name.strip_suffix(&ending).map_or(name.clone(), str::to_owned))
            .collect();
        let taken = || Error::BeingFetched { what: id.to_string() };
        blobs
            .iter()
            .map(|blob| self.lock(id, blob, || Err(taken())))
            .collect()
    }

    /// Removes all blobs except those in `shared`.
    fn remove_blobs(&self, id: &RepositoryId, shared: &BTreeSet<String>) -> Result<()> {
        let folder = self.folder(id).join("blobs");
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let is_shared = entry
                .file_name()
                .to_str()
                .is_some_and(|name| shared.contains(name));
            if !is_shared {
                fs::remove_file(entry.path()).map_err(Error::cache(entry.path()))?;
            }
        }
        Ok(())
    }
}

/// The names of the blobs that files below `folder` link to.
fn blobs_of(folder: &Path) -> Vec<String> {
    let blob = |path: String| {
        let target = fs::read_link(folder.join(path)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    };
    paths_below(folder).into_iter().filter_map(blob).collect()
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::cache(folder)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    /// Two commits that share one file of 100 bytes, and have one of 10 each.
    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let id = "me/mine".parse().unwrap();
        fs::create_dir_all(cache.folder(&id).join("blobs")).unwrap();
        for (blob, bytes) in [("shared", 100), ("old", 10), ("new", 10)] {
            fs::write(cache.blob(&id, blob), vec![0; bytes]).unwrap();
        }
        for (commit, own) in [("c1", "old"), ("c2", "new")] {
            cache.link(&id, commit, "a/shared", "shared").unwrap();
            cache.link(&id, commit, "own", own).unwrap();
        }
        (folder, cache)
    }

    fn remove(cache: &Cache, reference: &str) -> Result<Removed> {
        cache.remove(&reference.parse().unwrap())
    }

    #[test]
    fn what_another_revision_shares_stays() {
        let (_folder, cache) = cache();
        let id = "me/mine".parse().unwrap();
        cache.name(&id, "v1", "c1").unwrap();
        cache.name(&id, "main", "c2").unwrap();
        let removed = remove(&cache, "me/mine").unwrap();
        assert_eq!(removed.stays, ["v1"]);
        assert_eq!(removed.bytes, 10 + 2);
        let rest = cache.locate(&id, "v1").unwrap();
        assert_eq!(fs::read(rest.join("a/shared")).unwrap().len(), 100);
        assert_eq!(fs::read(rest.join("own")).unwrap().len(), 10);
        assert_eq!(cache.locate(&id, "main"), None);
        assert!(matches!(remove(&cache, "me/mine"), Err(Error::NotCached { .. })));
        assert_eq!(remove(&cache, "me/mine@v1").unwrap().stays, Vec::<String>::new());
        assert!(cache.repositories().is_empty());
    }

    #[test]
    fn commits_without_a_name_are_removed_with_the_main_branch() {
        let (_folder, cache) = cache();
        let id = "me/mine".parse().unwrap();
        cache.name(&id, "main", "c2").unwrap();
        assert_eq!(remove(&cache, "me/mine").unwrap().bytes, 120 + 2);
        assert!(cache.repositories().is_empty());
        assert!(matches!(remove(&cache, "me/mine"), Err(Error::NotCached { .. })));
    }

    #[test]
    fn a_commit_of_two_names_stays_for_the_other() {
        let (_folder, cache) = cache();
        let id = "me/mine".parse().unwrap();
        for name in ["main", "v1"] {
            cache.name(&id, name, "c2").unwrap();
        }
        fs::remove_dir_all(cache.snapshot(&id, "c1")).unwrap();
        assert_eq!(remove(&cache, "me/mine").unwrap().stays, ["v1"]);
        assert_eq!(
            (cache.locate(&id, "main"), cache.locate(&id, "v1").is_some()),
            (None, true)
        );
    }

    #[test]
    fn one_revision_can_be_named() {
        let (_folder, cache) = cache();
        let id = "me/mine".parse().unwrap();
        cache.name(&id, "main", "c2").unwrap();
        assert!(matches!(
            remove(&cache, "me/mine@v9"),
            Err(Error::NotCached { .. })
        ));
        assert_eq!(remove(&cache, "me/mine@c1").unwrap().bytes, 10);
        assert!(cache.locate(&id, "main").is_some());
    }
}
