//! The files of a repository at a revision.

use serde::Deserialize;

use crate::client::{Client, Subject, Want, bad_reply, interrupted};
use crate::digest::Listed;
use crate::reference::{is_path, is_word};
use crate::retry::with_retries;
use crate::{Error, Hub, Reference, RepositoryId, Result};

/// The files of a repository at a revision.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The repository.
    pub id: RepositoryId,
    /// The requested revision.
    pub revision: String,
    /// The commit that the revision points to.
    pub commit: String,
    /// The files, sorted by path.
    pub files: Vec<RemoteFile>,
}

/// A file on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// The path in the repository.
    pub path: String,
    /// The size in bytes, where the listing has it.
    pub size: Option<u64>,
    /// The SHA-256, which is listed for files in LFS storage.
    pub sha256: Option<String>,
    /// The name of the blob in the cache, where the listing has it.
    pub(crate) blob: Option<String>,
    /// The listed hash.
    pub(crate) listed: Listed,
}

/// The fields of the hub's reply that are used.
#[derive(Deserialize)]
struct Repository {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Listing {
    /// Parses the reply `text` of the hub to the request of `reference` at `url`. Names become paths in the
    /// cache, so names that would leave the cache are refused.
    ///
    /// # Errors
    /// The reply is not a listing, or has a commit or a file with an invalid name.
    pub fn parse(url: &str, text: &[u8], reference: &Reference) -> Result<Self> {
        let bad = |reason: String| bad_reply(url, &reason);
        let repository: Repository = serde_json::from_slice(text).map_err(|error| bad(error.to_string()))?;
        if !is_word(&repository.sha) {
            return Err(bad(format!("`{}` is no commit", repository.sha)));
        }
        let mut files = Vec::with_capacity(repository.siblings.len());
        for sibling in repository.siblings {
            let Sibling {
                rfilename: path,
                size,
                blob_id,
                lfs,
            } = sibling;
            let listed = match &lfs {
                Some(lfs) => Listed::Sha256(lfs.sha256.to_ascii_lowercase()),
                None => Listed::of_blob(blob_id.as_deref()),
            };
            let blob = lfs.as_ref().map(|lfs| lfs.sha256.clone()).or(blob_id);
            if !is_path(&path) || !blob.as_deref().is_none_or(is_word) {
                return Err(bad(format!("`{path}` is no path of a file")));
            }
            files.push(RemoteFile {
                path,
                size: lfs.as_ref().map(|lfs| lfs.size).or(size),
                sha256: lfs.map(|lfs| lfs.sha256),
                blob,
                listed,
            });
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(Self {
            id: reference.id.clone(),
            revision: reference.revision().to_owned(),
            commit: repository.sha,
            files,
        })
    }

    /// The paths of the files.
    pub fn paths(&self) -> Vec<&str> {
        self.files.iter().map(|file| file.path.as_str()).collect()
    }

    /// The file at `path`.
    ///
    /// # Errors
    /// The repository has no such file.
    pub fn file(&self, path: &str) -> Result<&RemoteFile> {
        let found = self.files.iter().find(|file| file.path == path);
        found.ok_or_else(|| Error::NoFile {
            id: self.id.clone(),
            file: path.to_owned(),
        })
    }

    pub(crate) fn subject<'a>(&'a self, file: &'a str) -> Subject<'a> {
        Subject {
            id: &self.id,
            revision: &self.revision,
            file: Some(file),
        }
    }
}

impl Hub {
    /// Lists the files of the repository that `reference` names. Transient failures are retried.
    ///
    /// # Errors
    /// The program is offline, the hub cannot be reached, the repository or the revision does not exist, or
    /// the response cannot be understood.
    pub fn list(&self, reference: &Reference, is_stopped: &dyn Fn() -> bool) -> Result<Listing> {
        let revision = reference.revision();
        // To the hub a revision is one part of the path, also where there are slashes in it.
        let path = format!(
            "api/models/{}/revision/{}",
            reference.id,
            revision.replace('/', "%2F")
        );
        let url = format!("{}/{path}?blobs=true", self.client.endpoint());
        let subject = Subject {
            id: &reference.id,
            revision,
            file: None,
        };
        let text = self.checked_text(&url, subject, &Listed::Nothing, is_stopped)?;
        Listing::parse(&url, &text, reference)
    }

    /// Reads a small file of `listing` without storing it in the cache.
    ///
    /// # Errors
    /// The hub cannot be reached, or refuses the file.
    pub fn read(&self, listing: &Listing, path: &str, is_stopped: &dyn Fn() -> bool) -> Result<Vec<u8>> {
        let url = self.file_address(listing, path);
        let listed = listing.file(path).ok().map(|file| &file.listed);
        self.checked_text(
            &url,
            listing.subject(path),
            listed.unwrap_or(&Listed::Nothing),
            is_stopped,
        )
    }

    /// The URL of the file at `path`.
    pub(crate) fn file_address(&self, listing: &Listing, path: &str) -> String {
        let path = format!("{}/resolve/{}/{path}", listing.id, listing.commit);
        self.client.address(&path)
    }

    /// Downloads the text at `url` and compares its hash with the listed one.
    fn checked_text(
        &self,
        url: &str,
        subject: Subject<'_>,
        listed: &Listed,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>> {
        self.check_online(subject.id.as_str())?;
        with_retries(is_stopped, || {
            let response = self.client.request(url, Want::Text, is_stopped)?;
            if !response.status().is_success() {
                return Err(self.client.refusal(url, &response, subject).into());
            }
            let text = Client::text(url, response, is_stopped)?;
            let mut hash = listed.hash(text.len() as u64);
            hash.update(&text);
            match listed.difference(hash) {
                None => Ok(text),
                Some((what, wanted, found)) => Err(interrupted(
                    url,
                    &format!("it was corrupted: {what} is {found}, the hub lists {wanted}"),
                )),
            }
        })
    }

    /// Refuses a request of `what` when the program is offline.
    pub(crate) fn check_online(&self, what: &str) -> Result<()> {
        if self.settings.offline {
            return Err(Error::Offline {
                what: what.to_owned(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Listing> {
        Listing::parse("http://hub", text.as_bytes(), &"a/b".parse().unwrap())
    }

    #[test]
    fn files_are_listed_with_what_is_known_of_them() {
        let text = r#"{"sha": "c0ffee", "siblings": [
            {"rfilename": "unet/x.safetensors", "size": 5, "blobId": "b1", "lfs": {"sha256": "5a", "size": 70}},
            {"rfilename": "README.md", "size": 3, "blobId": "b2"},
            {"rfilename": "plain"}]}"#;
        let listing = parse(text).unwrap();
        assert_eq!(listing.paths(), ["README.md", "plain", "unet/x.safetensors"]);
        let file = listing.file("unet/x.safetensors").unwrap();
        assert_eq!(
            (file.size, file.sha256.as_deref(), file.blob.as_deref()),
            (Some(70), Some("5a"), Some("5a"))
        );
        let file = listing.file("README.md").unwrap();
        assert_eq!(
            (file.size, &file.sha256, file.blob.as_deref()),
            (Some(3), &None, Some("b2"))
        );
        assert!(matches!(listing.file("x"), Err(Error::NoFile { .. })));
    }

    #[test]
    fn names_that_would_leave_the_cache_are_refused() {
        for text in [
            r#"{"sha": "../x"}"#,
            r#"{"sha": "c0", "siblings": [{"rfilename": "../x"}]}"#,
            r#"{"sha": "c0", "siblings": [{"rfilename": "/x"}]}"#,
            r#"{"sha": "c0", "siblings": [{"rfilename": "a\\..\\x"}]}"#,
            r#"{"sha": "c0", "siblings": [{"rfilename": "x", "blobId": "../../x"}]}"#,
            "<html>",
        ] {
            assert!(matches!(parse(text), Err(Error::BadReply { .. })), "{text}");
        }
    }
}
