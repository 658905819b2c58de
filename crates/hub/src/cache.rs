//! The cache that all Hugging Face tools share. Each repository is a folder with the bytes of its files
//! (`blobs`), a folder for each commit with links to them (`snapshots`), and the commits of branches and tags
//! (`refs`).

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sd_files::FoundFile;

use crate::reference::is_word;
use crate::{Error, RepositoryId, Result};

/// The cache folder.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// A repository with files in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedRepository {
    /// The id of the repository.
    pub id: RepositoryId,
    /// The commits with files in the cache.
    pub revisions: Vec<CachedRevision>,
    /// The bytes that it takes on disk.
    pub bytes: u64,
    /// How many of these bytes belong to partial downloads.
    pub partial_bytes: u64,
}

/// A commit with files in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedRevision {
    /// The commit hash.
    pub commit: String,
    /// The branches and tags that point to the commit.
    pub names: Vec<String>,
    /// The folder of the commit's files.
    pub folder: PathBuf,
}

impl Cache {
    /// The file extension of partial downloads.
    pub(crate) const PARTIAL: &str = "incomplete";

    /// The cache in the folder `root`, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder of the cache.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Bytes that are free on the disk of the cache, which need not exist yet; `None` where that is unknown.
    pub fn free_space(&self) -> Option<u64> {
        let root = std::path::absolute(&self.root).ok()?;
        let folder = root.ancestors().find(|folder| folder.exists())?;
        fs4::available_space(folder).ok()
    }

    /// The folder with the cached files of `id` at `revision`, which is a branch, a tag or a commit.
    pub fn locate(&self, id: &RepositoryId, revision: &str) -> Option<PathBuf> {
        let snapshot = |commit: &str| {
            let folder = self.snapshot(id, commit);
            (is_word(commit) && folder.is_dir()).then_some(folder)
        };
        let is_name = revision.split('/').all(is_word);
        let name = self.folder(id).join("refs").join(revision);
        let commit = read_reference(&name).filter(|_| is_name);
        commit
            .and_then(|commit| snapshot(commit.trim()))
            .or_else(|| snapshot(revision))
    }

    /// All model repositories with files in the cache, sorted by id.
    pub fn repositories(&self) -> Vec<CachedRepository> {
        let ids = names(&self.root)
            .into_iter()
            .filter_map(|name| RepositoryId::of_folder(&name));
        let mut found: Vec<CachedRepository> = ids.filter_map(|id| self.repository(&id)).collect();
        found.sort_by(|one, other| one.id.cmp(&other.id));
        found
    }

    /// The repository `id`, if any of its files are in the cache.
    pub fn repository(&self, id: &RepositoryId) -> Option<CachedRepository> {
        let folder = self.folder(id);
        if !folder.is_dir() {
            return None;
        }
        let (bytes, partial_bytes) = bytes_below(&folder);
        let mut commits: BTreeMap<String, Vec<String>> = names(&folder.join("snapshots"))
            .into_iter()
            .map(|commit| (commit, Vec::new()))
            .collect();
        for (name, commit) in self.names_of(id) {
            if let Some(names) = commits.get_mut(&commit) {
                names.push(name);
            }
        }
        let revisions = commits.into_iter().map(|(commit, names)| CachedRevision {
            folder: self.snapshot(id, &commit),
            commit,
            names,
        });
        Some(CachedRepository {
            id: id.clone(),
            revisions: revisions.collect(),
            bytes,
            partial_bytes,
        })
    }

    pub(crate) fn folder(&self, id: &RepositoryId) -> PathBuf {
        self.root.join(id.folder_name())
    }

    pub(crate) fn snapshot(&self, id: &RepositoryId, commit: &str) -> PathBuf {
        self.folder(id).join("snapshots").join(commit)
    }

    pub(crate) fn blob(&self, id: &RepositoryId, name: &str) -> PathBuf {
        self.folder(id).join("blobs").join(name)
    }

    pub(crate) fn locks(&self, id: &RepositoryId) -> PathBuf {
        self.root.join(".locks").join(id.folder_name())
    }

    /// The branches and tags of `id` with the commits that they point to.
    pub(crate) fn names_of(&self, id: &RepositoryId) -> Vec<(String, String)> {
        let root = self.folder(id).join("refs");
        let read = |name: String| {
            // Branches do not start with a dot: this is a temporary file of a killed process.
            let is_name = name.split('/').all(|part| !part.starts_with('.'));
            let commit = read_reference(&root.join(&name)).filter(|_| is_name)?;
            let commit = commit.trim();
            is_word(commit).then(|| (name, commit.to_owned()))
        };
        paths_below(&root).into_iter().filter_map(read).collect()
    }

    /// Atomically records the commit that `revision` points to.
    pub(crate) fn name(&self, id: &RepositoryId, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let name = self.folder(id).join("refs").join(revision);
        if read_reference(&name).is_some_and(|found| found == commit) {
            return Ok(());
        }
        let folder = name.parent().unwrap_or(&name);
        fs::create_dir_all(folder).map_err(Error::cache(folder))?;
        // Not a private temporary file: a cache may be shared.
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let written = folder.join(format!(".{commit}.{}.{number}", std::process::id()));
        fs::write(&written, commit).map_err(Error::cache(&written))?;
        fs::rename(&written, &name).map_err(Error::cache(name))
    }

    /// Links `path` in the folder of `commit` to `blob`.
    pub(crate) fn link(&self, id: &RepositoryId, commit: &str, path: &str, blob: &str) -> Result<()> {
        let link = sd_files::below(&self.snapshot(id, commit), path);
        if link.exists() {
            return Ok(());
        }
        let folder = link.parent().unwrap_or(&link);
        fs::create_dir_all(folder).map_err(Error::cache(folder))?;
        // A dangling link.
        if link.symlink_metadata().is_ok() {
            fs::remove_file(&link).map_err(Error::cache(&link))?;
        }
        let up = "../".repeat(2 + path.split('/').count() - 1);
        // Windows does not follow a link whose target has `/`.
        let target = sd_files::native(format!("{up}blobs/{blob}"));
        match symlink(&target, &link, &self.blob(id, blob)) {
            Err(_) if link.exists() => Ok(()),
            linked => linked.map_err(Error::cache(link)),
        }
    }

    /// Takes the lock that all programs take to download `blob`, and calls `waiting` between attempts.
    ///
    /// # Errors
    /// The lock file cannot be created, or `waiting` fails.
    pub(crate) fn lock(
        &self,
        id: &RepositoryId,
        blob: &str,
        mut waiting: impl FnMut() -> Result<()>,
    ) -> Result<File> {
        let folder = self.locks(id);
        fs::create_dir_all(&folder).map_err(Error::cache(&folder))?;
        let path = folder.join(format!("{blob}.lock"));
        let mut options = File::options();
        options.create(true).truncate(false).write(true);
        loop {
            let file = options.open(&path).map_err(Error::cache(&path))?;
            match file.try_lock() {
                // The previous holder may have removed the file; then others lock a new one.
                Ok(()) if is_at(&file, &path) => return Ok(file),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => waiting()?,
                Err(TryLockError::Error(error)) => {
                    // Two processes may then download the same file at once. The hash shows a corrupted
                    // result.
                    tracing::info!("the disk of the cache knows no locks: {error}");
                    return Ok(file);
                }
            }
        }
    }
}

impl CachedRevision {
    /// The paths of the files, with `/` as separator.
    pub fn paths(&self) -> Vec<String> {
        paths_below(&self.folder)
    }
}

/// The paths of the files below the folder `root`, with `/` as separator. Links are followed only to files of
/// the repository.
pub fn paths_below(root: &Path) -> Vec<String> {
    let is_there = |found: &FoundFile| {
        let path = root.join(&found.path);
        // A link counts as the file that it leads to. Links to folders, out of the repository or to nothing
        // are no files.
        !found.is_link
            || fs::metadata(&path).is_ok_and(|metadata| metadata.is_file())
                && sd_files::outside_of(root, &path).is_ok_and(|outside| outside.is_none())
    };
    let found = sd_files::walk(root).into_iter().filter(is_there);
    found.map(|found| found.path).collect()
}

/// Reads the commit that the file of a branch or tag points to.
fn read_reference(file: &Path) -> Option<String> {
    /// A commit hash has 40 characters.
    const LONGEST: u64 = 1 << 10;
    sd_files::read_text_at_most(file, LONGEST).ok()
}

/// The names in `folder` that are UTF-8.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// The bytes of the files below `folder`, without following links, and the bytes of partial downloads among
/// them.
pub(crate) fn bytes_below(folder: &Path) -> (u64, u64) {
    let (mut bytes, mut partial) = (0, 0);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() {
                bytes += metadata.len();
                if entry
                    .path()
                    .extension()
                    .is_some_and(|ending| ending == Cache::PARTIAL)
                {
                    partial += metadata.len();
                }
            }
        }
    }
    (bytes, partial)
}

/// Whether `file` is what is found at `path`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(one), Ok(other)) => inode(one) == inode(other),
        _ => false,
    }
}

/// A file that is open cannot be removed there.
#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> bool {
    true
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path, _bytes: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Where links are not allowed, as for most users of Windows, the bytes move to where the link would be, as
/// the Python tools have it.
#[cfg(not(unix))]
fn symlink(target: &Path, link: &Path, bytes: &Path) -> std::io::Result<()> {
    #[cfg(windows)]
    if std::os::windows::fs::symlink_file(target, link).is_ok() {
        return Ok(());
    }
    let _ = target;
    fs::rename(bytes, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache, RepositoryId) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        (folder, cache, "me/mine".parse().unwrap())
    }

    #[test]
    fn several_threads_can_name_a_commit() {
        let (_folder, cache, id) = cache();
        std::thread::scope(|scope| {
            let name = || (0..200).try_for_each(|_| cache.name(&id, "main", "abc"));
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(name)).collect();
            for thread in threads {
                thread.join().unwrap().unwrap();
            }
        });
        let refs = cache.folder(&id).join("refs");
        assert_eq!(fs::read_dir(refs).unwrap().count(), 1);
    }

    #[test]
    fn a_revision_is_where_its_name_says() {
        let (_folder, cache, id) = cache();
        assert_eq!(cache.locate(&id, "main"), None);
        cache.name(&id, "main", "abc").unwrap();
        assert_eq!(cache.locate(&id, "main"), None);
        fs::create_dir_all(cache.snapshot(&id, "abc")).unwrap();
        let folder = cache.root().join("models--me--mine/snapshots/abc");
        for revision in ["main", "abc"] {
            assert_eq!(cache.locate(&id, revision), Some(folder.clone()), "{revision}");
        }
        assert_eq!(cache.locate(&id, "../snapshots"), None);
        fs::write(cache.folder(&id).join("refs/main"), "../../x").unwrap();
        assert_eq!(cache.locate(&id, "main"), None);
        cache.name(&id, "refs/pr/1", "abc").unwrap();
        assert_eq!(cache.locate(&id, "refs/pr/1"), Some(folder));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_linked_to_is_counted_once() {
        let (_folder, cache, id) = cache();
        fs::create_dir_all(cache.folder(&id).join("blobs")).unwrap();
        fs::write(cache.blob(&id, "b1"), [0; 100]).unwrap();
        fs::write(cache.blob(&id, "b2.incomplete"), [0; 10]).unwrap();
        for commit in ["c1", "c2"] {
            cache.link(&id, commit, "unet/x", "b1").unwrap();
            cache.link(&id, commit, "unet/x", "b1").unwrap();
        }
        cache.name(&id, "main", "c2").unwrap();
        let [found] = cache.repositories().try_into().unwrap();
        // With the name of the branch.
        assert_eq!((found.partial_bytes, found.bytes), (10, 100 + 10 + 2));
        let names: Vec<_> = found
            .revisions
            .iter()
            .map(|revision| revision.names.clone())
            .collect();
        assert_eq!(names, [vec![], vec!["main".to_owned()]]);
        let first = &found.revisions[0];
        assert_eq!(first.paths(), ["unet/x"]);
        assert_eq!(fs::read(first.folder.join("unet/x")).unwrap(), [0; 100]);
    }
}
