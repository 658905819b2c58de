//! Downloads of repository files into the cache.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::client::{Want, bad_reply};
use crate::digest::Listed;
use crate::reference::is_word;
use crate::retry::with_retries;
use crate::{Error, Hub, Listing, RemoteFile, RepositoryId, Result};

/// Files of a repository that are to be downloaded into the cache.
#[derive(Debug, Clone)]
pub struct Download {
    listing: Listing,
    pub(crate) parts: Vec<Part>,
}

/// A file with everything that its download needs.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) path: String,
    pub(crate) size: u64,
    pub(crate) listed: Listed,
    /// The name of its blob in the cache.
    pub(crate) blob: String,
    /// The bytes that were in the cache when the download was prepared.
    there: u64,
}

/// An event of a download.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Bytes were received, or were found in the cache.
    Progress {
        /// The file.
        file: &'a str,
        /// Bytes in the cache, of all files together.
        done: u64,
        /// Bytes of all files.
        total: u64,
    },
    /// This process waits for another one that downloads the file.
    Waiting {
        /// The file.
        file: &'a str,
    },
    /// A request failed and will be retried.
    Retrying {
        /// The file.
        file: &'a str,
        /// The failure.
        reason: &'a str,
        /// The delay before the retry.
        pause: Duration,
    },
}

/// A receiver of download events that can stop the download.
pub trait Observer {
    /// Receives an event. It is called between two chunks.
    fn observe(&mut self, event: &Event<'_>);

    /// Whether the download is to stop before the next chunk.
    fn is_stopped(&self) -> bool;
}

/// The progress of all downloads of one call.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) done: u64,
    total: u64,
}

impl Tally {
    pub(crate) fn tell(&self, file: &str, observer: &mut dyn Observer) {
        observer.observe(&Event::Progress {
            file,
            done: self.done,
            total: self.total,
        });
    }
}

impl Download {
    /// The id of the repository.
    pub fn id(&self) -> &RepositoryId {
        &self.listing.id
    }

    /// The size of all files in bytes.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.size).sum()
    }

    /// The bytes that remain to be downloaded.
    pub fn bytes_left(&self) -> u64 {
        self.parts.iter().map(|part| part.size - part.there).sum()
    }
}

impl Hub {
    /// Checks which of the files at `paths` of `listing` are already in the cache.
    ///
    /// # Errors
    /// A file is not in the listing, or the hub does not report its size.
    pub fn prepare(
        &self,
        listing: &Listing,
        paths: &[&str],
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Download> {
        let part = |path: &&str| {
            let file = listing.file(path)?;
            let mut part = match (&file.blob, file.size) {
                (Some(blob), Some(size)) => Part {
                    path: file.path.clone(),
                    size,
                    listed: file.listed.clone(),
                    blob: blob.clone(),
                    there: 0,
                },
                // Some mirrors of the hub list only names.
                _ => self.identify(listing, file, is_stopped)?,
            };
            part.there = self.bytes_there(listing, &part);
            Ok(part)
        };
        Ok(Download {
            parts: paths.iter().map(part).collect::<Result<_>>()?,
            listing: listing.clone(),
        })
    }

    /// Downloads the missing files of `downloads` and returns the folder of each. The reference of a branch
    /// or tag is updated only after all of its files are in the cache.
    ///
    /// # Errors
    /// The program is offline, the hub cannot be reached or refuses a file, a file does not match its hash,
    /// the disk is full, or the observer stops the download. Partial downloads are kept as `.incomplete`, and
    /// the next call resumes them.
    pub fn fetch(&self, downloads: &[Download], observer: &mut dyn Observer) -> Result<Vec<PathBuf>> {
        let left = downloads.iter().map(Download::bytes_left).sum();
        self.check_room(left)?;
        let mut tally = Tally {
            done: 0,
            total: downloads.iter().map(Download::bytes).sum(),
        };
        let mut folders = Vec::with_capacity(downloads.len());
        for download in downloads {
            let Listing {
                id, revision, commit, ..
            } = &download.listing;
            let folder = self.cache.snapshot(id, commit);
            for part in &download.parts {
                if folder.join(&part.path).exists() {
                    tally.done += part.size;
                    tally.tell(&part.path, observer);
                    continue;
                }
                self.obtain(&download.listing, part, &mut tally, observer)?;
                self.cache.link(id, commit, &part.path, &part.blob)?;
            }
            self.cache.name(id, revision, commit)?;
            folders.push(folder);
        }
        Ok(folders)
    }

    /// Requests the size of `file` and the name of its blob.
    fn identify(&self, listing: &Listing, file: &RemoteFile, is_stopped: &dyn Fn() -> bool) -> Result<Part> {
        let id = &listing.id;
        self.check_online(id.as_str())?;
        let url = self.file_address(listing, &file.path);
        with_retries(is_stopped, || {
            let response = self.client.request(&url, Want::Headers, is_stopped)?;
            if !response.status().is_success() && !response.status().is_redirection() {
                let subject = listing.subject(&file.path);
                return Err(self.client.refusal(&url, &response, subject).into());
            }
            let header = |name: &str| response.headers().get(name)?.to_str().ok();
            // A file in LFS storage is stored on another host, under its hash.
            let linked = header("x-linked-etag");
            let name = linked
                .or_else(|| header("etag"))
                .map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_owned())
                .filter(|name| is_word(name));
            let size = header("x-linked-size").or_else(|| header("content-length"));
            let size = file.size.or_else(|| size?.parse().ok());
            let (Some(blob), Some(size)) = (name, size) else {
                return Err(bad_reply(&url, "it does not say what the file is and how long").into());
            };
            let is_hash = linked.is_some() && blob.len() == 64;
            Ok(Part {
                path: file.path.clone(),
                size,
                listed: match (&file.listed, is_hash) {
                    (Listed::Nothing, true) => Listed::Sha256(blob.to_ascii_lowercase()),
                    (listed, _) => listed.clone(),
                },
                blob,
                there: 0,
            })
        })
    }

    /// The bytes of `part` that are in the cache.
    fn bytes_there(&self, listing: &Listing, part: &Part) -> u64 {
        let bytes = |path: PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
        let linked = self.cache.snapshot(&listing.id, &listing.commit).join(&part.path);
        let blob = self.cache.blob(&listing.id, &part.blob);
        let partial = blob.with_added_extension(crate::Cache::PARTIAL);
        if linked.exists() || bytes(blob) == part.size {
            part.size
        } else {
            bytes(partial).min(part.size)
        }
    }

    /// Checks that the disk has space for `wanted` bytes.
    fn check_room(&self, wanted: u64) -> Result<()> {
        if wanted == 0 {
            return Ok(());
        }
        let root = self.cache.root();
        fs::create_dir_all(root).map_err(Error::cache(root))?;
        match fs4::available_space(root) {
            Ok(free) if free < wanted => Err(Error::DiskFull {
                folder: root.to_owned(),
                wanted,
                free,
            }),
            // Where the free space is unknown, writing to a full disk fails later.
            _ => Ok(()),
        }
    }
}
