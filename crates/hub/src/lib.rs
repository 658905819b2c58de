//! A client for the Hugging Face hub and its local cache.
//!
//! [`Settings`] hold the environment variables that the Python tools read. A [`Cache`] is the folder that all
//! Hugging Face tools share, with the files of each repository by commit. A [`Hub`] lists a repository
//! ([`Listing`]) and downloads selected files ([`Download`]) into the cache. This crate does not know what a
//! model is or which files it consists of.
//!
//! A download resumes a partial one. It is checked against the listed size and hash before it gets its final
//! name. [`CheckedFile`] checks a file of the cache later. Where several processes download the same file, one of them does and the others wait.
//!
//! The crate does not use `hf-hub`. Version 1.0 of `hf-hub` needs an asynchronous runtime and does not
//! compare hashes. Versions 0.x do not resume the download of an earlier process. Neither can be stopped
//! between two chunks. A listing and a file with a byte range are all that is needed of the protocol, so this
//! crate is a thin layer over `ureq`: blocking, with rustls and compiled-in roots, and with support for
//! `HTTPS_PROXY`.

mod account;
mod beginning;
mod blob;
mod cache;
mod client;
mod digest;
mod download;
mod error;
mod listing;
mod pace;
mod reference;
mod removal;
mod retry;
mod settings;
mod stoppable;
mod verification;

pub use cache::{Cache, CachedRepository, CachedRevision, paths_below};
pub use download::{Download, Event, Observer};
pub use error::{Error, Result};
pub use listing::{Listing, RemoteFile};
pub use reference::{BadReference, MAIN, Reference, RepositoryId};
pub use removal::Removed;
pub use settings::{Settings, Token};
pub use verification::{CachedFile, CheckedFile, Verdict};

use client::{Client, Limits};

/// The hub that the settings name.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
    client: Client,
    cache: Cache,
}

impl Hub {
    /// A client for the hub that `settings` name. It sends no request yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            client: Client::new(&settings.endpoint, settings.token(), Limits::default()),
            cache: Cache::new(&settings.cache),
            settings,
        }
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The cache that files are downloaded into.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }
}
