//! References to repositories, revisions and files on the hub.

use std::fmt;
use std::str::FromStr;

/// The default branch.
pub const MAIN: &str = "main";

/// The id of a model repository, `owner/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryId(String);

/// A repository with an optional revision and an optional file, written `owner/name[@revision][:file]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The repository.
    pub id: RepositoryId,
    /// A branch, a tag or a commit.
    pub revision: Option<String>,
    /// The path of a file in the repository.
    pub file: Option<String>,
}

/// A text that is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the id of a repository: it reads owner/name, with a revision owner/name@revision")]
pub struct BadReference(String);

impl RepositoryId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the folder of the repository in the cache.
    pub(crate) fn folder_name(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }

    /// The id of the repository whose cache folder is called `name`.
    pub(crate) fn of_folder(name: &str) -> Option<Self> {
        name.strip_prefix("models--")?.replacen("--", "/", 1).parse().ok()
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for RepositoryId {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((owner, name)) if is_word(owner) && is_word(name) => Ok(Self(text.to_owned())),
            _ => Err(BadReference(text.to_owned())),
        }
    }
}

impl Reference {
    /// A reference to the default branch of the repository `id`.
    pub fn to(id: RepositoryId) -> Self {
        Self {
            id,
            revision: None,
            file: None,
        }
    }

    /// The revision, or the default branch.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.id.fmt(formatter)?;
        if let Some(revision) = &self.revision {
            write!(formatter, "@{revision}")?;
        }
        match &self.file {
            Some(file) => write!(formatter, ":{file}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadReference(text.to_owned());
        let (repository, file) = match text.split_once(':') {
            Some((repository, file)) => (repository, Some(file)),
            None => (text, None),
        };
        let (id, revision) = match repository.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (repository, None),
        };
        if !revision.is_none_or(|revision| revision.split('/').all(is_word)) || !file.is_none_or(is_path) {
            return Err(bad());
        }
        Ok(Self {
            id: id.parse().map_err(|_| bad())?,
            revision: revision.map(str::to_owned),
            file: file.map(str::to_owned),
        })
    }
}

/// Whether `text` is valid as a part of an id or of a revision.
pub(crate) fn is_word(text: &str) -> bool {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    !text.is_empty()
        && !text.starts_with('.')
        && !text.contains("--")
        && !text.contains("..")
        && text.chars().all(allowed)
}

/// Whether `text` is a path that does not leave the folder that it is relative to.
pub(crate) fn is_path(text: &str) -> bool {
    let is_name = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', ':', '\0']);
    text.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_distinguished_from_paths() {
        for id in ["stabilityai/stable-diffusion-3.5-large", "Lykon/DreamShaper-8"] {
            let parsed: RepositoryId = id.parse().unwrap();
            assert_eq!(RepositoryId::of_folder(&parsed.folder_name()), Some(parsed));
        }
        for path in [
            "demo", "./model", "../a", "/a/b", "a/b/c", "C:\\a", "a/", "~/a", "a/b--c",
        ] {
            assert!(path.parse::<RepositoryId>().is_err(), "{path}");
        }
    }

    #[test]
    fn a_revision_and_a_file_may_follow() {
        for text in ["a/b", "a/b@v1.0", "a/b@refs/pr/2:x/y.pth", "a/b:net x4.pth"] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        for wrong in [
            "a/b@", "a/b:", "a/b:../x", "a/b:/x", "a/b@../x", "a/b:x//y", "a@b/c",
        ] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
    }
}
