//! The hub of Hugging Face and its cache on this machine: names, files, downloads.
//!
//! Four nouns and how they meet: [`Settings`] are what the environment says (the variables of the Python tools); a
//! [`Cache`] is the folder that all programs of Hugging Face share, with the files of repositories by their commits; a
//! [`Hub`] lists a repository ([`Listing`]) and fetches those of its files that are wanted ([`Download`]) into the cache.
//! What a model is, and which files of a repository it is made of, is the business of others.
//!
//! A download goes on where an earlier one stopped, is checked against the size and the hash that the hub lists, and
//! gets its name only then. Several processes may fetch the same file: one does, the others wait for it.
//!
//! Why the `hf-hub` crate is not used: its 1.0 brings an asynchronous runtime and Xet's client, and takes files' names on
//! trust (it does not compare hashes); its 0.x does not go on with a download of an earlier process. Neither can be
//! stopped between two pieces. What is needed of the protocol is a listing and a file with a range, so this is a thin
//! layer over `ureq`: blocking, with rustls and compiled-in roots, `HTTPS_PROXY` obeyed.

mod account;
mod blob;
mod cache;
mod client;
mod digest;
mod download;
mod error;
mod listing;
mod reference;
mod removal;
mod retry;
mod settings;
mod stoppable;

pub use cache::{Cache, CachedRepository, CachedRevision, paths_below};
pub use download::{Download, Event, Observer};
pub use error::{Error, Result};
pub use listing::{Listing, RemoteFile};
pub use reference::{BadReference, MAIN, Reference, RepositoryId};
pub use removal::Removed;
pub use settings::{Settings, Token};

use client::{Client, Limits};

/// The hub, as the settings reach it.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
    client: Client,
    cache: Cache,
}

impl Hub {
    /// The hub that `settings` name. Nothing is asked of it yet.
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

    /// The cache that files are fetched into.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }
}
