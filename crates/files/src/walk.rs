//! Lists the files below a folder.

use std::fs;
use std::io;
use std::path::Path;

/// The maximum depth of nested folders. No layout of a model has more than three.
pub const MOST_DEPTH: usize = 32;

/// A file that a walk found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// The path relative to the folder, with `/` as separator.
    pub path: String,
    /// Whether the file is a symbolic link, which may lead anywhere.
    pub is_link: bool,
}

/// The files and links below the folder `root`, sorted by path. Links are not followed. Names that are not
/// UTF-8, folders that cannot be read, and folders deeper than [`MOST_DEPTH`] are left out.
pub fn walk(root: &Path) -> Vec<FoundFile> {
    let mut found = Vec::new();
    let mut folders = vec![(String::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for (name, kind) in entries(&root.join(&folder)).into_iter().flatten() {
            let path = if folder.is_empty() {
                name
            } else {
                format!("{folder}/{name}")
            };
            if kind.is_dir() {
                if depth < MOST_DEPTH {
                    folders.push((path, depth + 1));
                }
            } else if kind.is_file() || kind.is_symlink() {
                found.push(FoundFile {
                    path,
                    is_link: kind.is_symlink(),
                });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn entries(folder: &Path) -> io::Result<Vec<(String, fs::FileType)>> {
    let entries = fs::read_dir(folder)?.flatten();
    let named =
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.file_type().ok()?)));
    Ok(named.collect())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_named_and_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "").unwrap();
        symlink(".", root.join("again")).unwrap();
        symlink("/", root.join("a/everything")).unwrap();
        let found = walk(root);
        let found: Vec<(&str, bool)> = found
            .iter()
            .map(|file| (file.path.as_str(), file.is_link))
            .collect();
        assert_eq!(
            found,
            [("a/b/file", false), ("a/everything", true), ("again", true)]
        );
        assert!(walk(&root.join("nowhere")).is_empty());
    }

    #[test]
    fn what_lies_too_deep_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x/".repeat(MOST_DEPTH + 2));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "").unwrap();
        assert!(walk(folder.path()).is_empty());
    }
}
