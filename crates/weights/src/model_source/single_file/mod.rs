//! A model, or networks of one, in a single file: which networks it holds, and their configurations.
//!
//! Such a file has no configurations. They are derived from the names and shapes of its tensors, and from the
//! few settings that some programs write beside them. A network is recognised by its tensors, never by the
//! name of its file.

mod clip;
mod content;
mod controlnet;
mod dimensions;
mod mmdit;
mod other_families;
mod prefixes;
mod schedule;
mod t5;
mod unet;
mod vae;

use std::path::Path;

use serde_json::Value;

pub(super) use clip::with_projection;
pub(crate) use content::{Network, network_kind};
pub(super) use controlnet::controlnet;
pub(super) use schedule::Evidence;
pub use schedule::Prediction;
pub(super) use vae::set_scale;

use super::{FileContent, NetworkKind, SavedTexts};
use crate::{Checkpoint, Error, Result};

/// The networks of a file.
#[derive(Debug)]
pub(crate) struct SingleFile {
    /// All tensors under their own names.
    pub(crate) checkpoint: Checkpoint,
    /// The networks.
    pub(crate) networks: Vec<Network>,
    /// What the file says of its training.
    pub(super) evidence: Evidence,
    /// Configurations and vocabularies that this program wrote into the file.
    pub(super) texts: SavedTexts,
}

/// What `checkpoint` holds, by the names of its tensors: of several networks the one that predicts noise, else
/// the first.
///
/// # Errors
/// It holds a model of a family that is not supported, or a tensor has a wrong shape.
pub fn checkpoint_content(checkpoint: &Checkpoint) -> Result<FileContent> {
    let networks = match content::networks(checkpoint) {
        Err(Error::NoModel { what, .. }) => return Ok(what),
        networks => networks?,
    };
    let denoiser = networks.iter().find(|network| network.kind.is_denoiser());
    let first = denoiser.or(networks.first());
    Ok(first.map_or(FileContent::Unknown, |network| FileContent::Network(network.kind)))
}

/// The configuration of a network, as diffusers and transformers write it.
pub(crate) type Settings = serde_json::Map<String, Value>;

impl SingleFile {
    /// Opens the file at `path` and finds its networks. Nothing but headers and a few small tensors is read.
    ///
    /// # Errors
    /// The file is missing or damaged, or holds none of the supported networks: then the error says what it
    /// holds.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::open_file(path)?;
        let networks = content::networks(&checkpoint)?;
        let texts = SavedTexts::of(checkpoint.metadata()?);
        let evidence = Evidence::of(path, &checkpoint, &networks)?;
        Ok(Self {
            checkpoint,
            networks,
            evidence,
            texts,
        })
    }

    /// The network that predicts noise, if the file has one.
    pub(super) fn denoiser(&self) -> Option<&Network> {
        let mut networks = self.networks.iter();
        networks.find(|network| matches!(network.kind, NetworkKind::UNet(_) | NetworkKind::Mmdit))
    }

    /// The network of `kind`, if the file has one.
    pub(super) fn network(&self, kind: NetworkKind) -> Option<&Network> {
        self.networks.iter().find(|network| network.kind == kind)
    }

    /// The only one of CLIP's text encoders in the file, as one of `kind`: that of a family with a single
    /// text encoder, whatever its size is.
    pub(super) fn only_clip(&self, kind: NetworkKind) -> Option<Network> {
        let is_clip = |kind| matches!(kind, NetworkKind::ClipL | NetworkKind::ClipH | NetworkKind::ClipG);
        let mut clips = self.networks.iter().filter(|network| is_clip(network.kind));
        match (clips.next(), clips.next()) {
            (Some(clip), None) if is_clip(kind) => Some(Network {
                kind,
                config: clip::config(&clip.checkpoint, kind),
                checkpoint: clip.checkpoint.clone(),
            }),
            _ => None,
        }
    }

    /// A network of the file with the configuration that this program wrote into the file, if it did.
    pub(super) fn configured(&self, network: &Network) -> Network {
        let saved = self.texts.config(network.kind.component());
        let config = saved.and_then(|text| serde_json::from_str(text).ok());
        Network {
            config: config.unwrap_or_else(|| network.config.clone()),
            ..network.clone()
        }
    }

    /// What the file holds, as a message names it.
    pub(super) fn content(&self) -> FileContent {
        let first = self.networks.first();
        first.map_or(FileContent::Unknown, |network| FileContent::Network(network.kind))
    }

    /// The error of a file that holds no model, but something else.
    pub(crate) fn no_model(&self) -> Error {
        Error::NoModel {
            file: self.checkpoint.place().to_owned(),
            what: self.content(),
        }
    }
}
