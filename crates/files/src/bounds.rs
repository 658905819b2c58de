//! Checks that a path does not leave its folder.

use std::io;
use std::path::{Component, Path, PathBuf};

/// Whether the relative `path`, with `/` as separator, stays inside the folder that it is relative to: it is
/// not absolute, has no `..` and no empty component.
pub fn stays_inside(path: &str) -> bool {
    let is_name = |part: &str| {
        let mut parts = Path::new(part).components();
        matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none()
    };
    path.split('/')
        .all(|part| is_name(part) && !part.contains(['\\', ':', '\0']))
}

/// The real path of the file at `path` if links lead it out of `folder`, else `None`. Blobs of the Hugging
/// Face cache never count as outside, because the files of a cached model are links to them.
///
/// # Errors
/// The file or the folder does not exist.
pub fn outside_of(folder: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let here = Path::new(".");
    let folder = if folder.as_os_str().is_empty() {
        here
    } else {
        folder
    };
    let (folder, target) = (folder.canonicalize()?, path.canonicalize()?);
    if target.starts_with(&folder) || is_blob(&target) || is_blob_of(&folder, &target) {
        return Ok(None);
    }
    Ok(Some(target))
}

/// Whether `target` has the form `…/models--owner--name/blobs/hash`.
fn is_blob(target: &Path) -> bool {
    let name = |path: Option<&Path>| Some(path?.file_name()?.to_str()?.to_owned());
    let folder = target.parent();
    name(folder).is_some_and(|name| name == "blobs")
        && name(folder.and_then(Path::parent)).is_some_and(|name| name.starts_with("models--"))
}

/// Whether `target` is a blob of the repository that `folder` is a commit of, wherever the blobs are stored.
fn is_blob_of(folder: &Path, target: &Path) -> bool {
    // `folder` is the folder of a commit, or of a component in it.
    let snapshots = folder.ancestors().skip(1).take(2);
    let repository = snapshots
        .filter(|above| above.file_name().is_some_and(|name| name == "snapshots"))
        .find_map(Path::parent);
    repository
        .and_then(|repository| repository.join("blobs").canonicalize().ok())
        .is_some_and(|blobs| target.starts_with(blobs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_up_or_away_do_not_stay_inside() {
        for path in ["a", "a/b.c", "..a/b..", "a b/c"] {
            assert!(stays_inside(path), "{path}");
        }
        for path in [
            "", "/", "/a", "a/", "a//b", ".", "./a", "..", "a/../b", "../a", "a\\..\\b", "C:a", "a\0",
        ] {
            assert!(!stays_inside(path), "{path}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_folder_is_found() {
        use std::os::unix::fs::symlink;

        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let write = |path: &str| {
            std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            std::fs::write(at(path), "").unwrap();
        };
        write("hub/models--me--mine/blobs/b1");
        write("hub/models--me--mine/snapshots/c1/plain");
        write("elsewhere/secret");
        write("model/own");
        let outside = |folder: &str, link: &str, target: &str| {
            symlink(target, at(link)).unwrap();
            outside_of(&at(folder), &at(link)).unwrap()
        };
        let snapshot = "hub/models--me--mine/snapshots/c1";
        assert_eq!(
            outside(snapshot, &format!("{snapshot}/x"), "../../blobs/b1"),
            None
        );
        // What older tools put into a folder of the user's own.
        let blob = at("hub/models--me--mine/blobs/b1");
        assert_eq!(outside("model", "model/blob", blob.to_str().unwrap()), None);
        assert_eq!(outside("model", "model/same", "own"), None);
        let secret = at("elsewhere/secret").canonicalize().unwrap();
        assert_eq!(
            outside("model", "model/x", "../elsewhere/secret"),
            Some(secret.clone())
        );
        assert_eq!(
            outside(snapshot, &format!("{snapshot}/y"), secret.to_str().unwrap()),
            Some(secret.clone())
        );
        // A folder that is a link itself is what the user named.
        symlink(at("model"), at("named")).unwrap();
        assert_eq!(outside_of(&at("named"), &at("named/own")).unwrap(), None);
        assert!(outside_of(&at("model"), &at("model/nothing")).is_err());
        // The bytes of a cache may be kept on another disk.
        std::fs::rename(at("hub/models--me--mine/blobs"), at("disk")).unwrap();
        symlink(at("disk"), at("hub/models--me--mine/blobs")).unwrap();
        assert_eq!(
            outside_of(&at(snapshot), &at(&format!("{snapshot}/x"))).unwrap(),
            None
        );
    }
}
