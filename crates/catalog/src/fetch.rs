//! Downloads the used files of repositories into the cache.

use std::path::{Path, PathBuf};

use sd_hub::{Download, Listing, Reference};
use sd_pipeline::adapter_settings;
use sd_pipeline::bundle::{Choice, Kind};

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::local::INDEX;
use crate::wanted::Wanted;

/// Observes downloads, and can stop them.
pub trait FetchObserver: sd_hub::Observer {
    /// Called before the hub is asked for the files of a repository.
    fn listing(&mut self, _reference: &Reference) {}

    /// Called once all repositories are listed, before the first byte of a file is downloaded.
    fn prepared(&mut self, downloads: &[Download]);
}

impl Catalog {
    /// Downloads the missing files of `wanted`, and returns the folder of each.
    ///
    /// # Errors
    /// The hub fails, has no such repository, or has one without the required files.
    pub fn fetch(&self, wanted: &[Wanted], observer: &mut dyn FetchObserver) -> Result<Vec<PathBuf>> {
        let mut downloads = Vec::with_capacity(wanted.len());
        for Wanted { reference, kind } in wanted {
            observer.listing(reference);
            let is_stopped = || observer.is_stopped();
            let listing = self.hub.list(reference, &is_stopped)?;
            let paths = self.used_files(&listing, reference, *kind, &is_stopped)?;
            let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
            downloads.push(self.hub.prepare(&listing, &paths, &is_stopped)?);
        }
        observer.prepared(&downloads);
        Ok(self.hub.fetch(&downloads, observer)?)
    }

    /// The text and path of the first of the small files at `paths` that the repository `reference` has.
    ///
    /// # Errors
    /// The hub fails.
    pub(crate) fn read_remote<'a>(
        &self,
        reference: &Reference,
        paths: &[&'a str],
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Option<(&'a str, Vec<u8>)>> {
        let listing = self.hub.list(reference, is_stopped)?;
        let there = listing.paths();
        match paths.iter().find(|path| there.contains(path)) {
            Some(path) => Ok(Some((path, self.hub.read(&listing, path, is_stopped)?))),
            None => Ok(None),
        }
    }

    /// The paths of the used files of `reference`.
    pub(crate) fn used_files(
        &self,
        listing: &Listing,
        reference: &Reference,
        kind: Option<Kind>,
        is_stopped: &dyn Fn() -> bool,
    ) -> Result<Vec<String>> {
        let paths = listing.paths();
        if let Some(file) = &reference.file {
            // A file beside a LoRA may hold its scale.
            let settings =
                adapter_settings(Path::new(file)).and_then(|path| path.to_str().map(str::to_owned));
            let settings = settings.filter(|path| paths.contains(&path.as_str()));
            return Ok([file.clone()].into_iter().chain(settings).collect());
        }
        let unusable = |what: String| Error::Unusable {
            reference: reference.clone(),
            what,
        };
        let Some(kind) = kind.or_else(|| Kind::of(&paths)) else {
            return Err(unusable(
                "a model, a ControlNet, a LoRA or an upscaler".to_owned(),
            ));
        };
        let index = match kind {
            Kind::Model if paths.contains(&INDEX) => Some(self.hub.read(listing, INDEX, is_stopped)?),
            _ => None,
        };
        match kind.wanted(&paths, index.as_deref()) {
            Choice::Files(files) => Ok(files.into_iter().map(str::to_owned).collect()),
            Choice::OneOf(files) => Err(Error::Several {
                name: reference.to_string(),
                files: files.into_iter().map(str::to_owned).collect(),
            }),
            Choice::Missing(what) => Err(unusable(what)),
        }
    }
}
