//! Models on this machine by their ids: the cache that programs of Hugging Face share.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the model `id`, `owner/name`, in the cache, if it is there.
pub(crate) fn locate(id: &str) -> Option<PathBuf> {
    locate_in(&cache()?, id)
}

/// Whether `name` reads like a model's id on the hub rather than like a path.
pub(crate) fn is_id(name: &str) -> bool {
    let is_word = |part: &str| {
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
    };
    name.split_once('/')
        .is_some_and(|(owner, model)| is_word(owner) && is_word(model))
}

/// Where the cache is, as the Python tools find it.
fn cache() -> Option<PathBuf> {
    let folder = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    folder("HF_HUB_CACHE")
        .or_else(|| Some(folder("HF_HOME")?.join("hub")))
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("huggingface/hub")))
        .or_else(|| Some(env::home_dir()?.join(".cache/huggingface/hub")))
}

fn locate_in(cache: &Path, id: &str) -> Option<PathBuf> {
    let folder = cache.join(format!("models--{}", id.replace('/', "--")));
    let commit = fs::read_to_string(folder.join("refs/main")).ok()?;
    let snapshot = folder.join("snapshots").join(commit.trim());
    snapshot.is_dir().then_some(snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_paths() {
        for id in ["stabilityai/stable-diffusion-3.5-large", "Lykon/DreamShaper-8"] {
            assert!(is_id(id), "{id}");
        }
        for path in ["demo", "./model", "../a", "/a/b", "a/b/c", "C:\\a", "a/", "~/a"] {
            assert!(!is_id(path), "{path}");
        }
    }

    #[test]
    fn a_model_is_where_its_main_branch_is() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("models--me--mine");
        assert_eq!(locate_in(cache.path(), "me/mine"), None);
        fs::create_dir_all(folder.join("refs")).unwrap();
        fs::write(folder.join("refs/main"), "abc\n").unwrap();
        assert_eq!(locate_in(cache.path(), "me/mine"), None);
        fs::create_dir_all(folder.join("snapshots/abc")).unwrap();
        assert_eq!(
            locate_in(cache.path(), "me/mine"),
            Some(folder.join("snapshots/abc"))
        );
    }
}
