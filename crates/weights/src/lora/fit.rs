//! Matches the layers of a LoRA file with the tensors of a model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::file::LoraFile;
use super::key_map::{KeyMap, Piece};
use super::layer::Layer;
use super::{LoraNetwork, ModelPart, key::flat};
use crate::{Checkpoint, Error, ModelFamily, Result};

/// A LoRA file matched with a model.
#[derive(Debug, Clone)]
pub struct Fit {
    pub(super) file: Arc<LoraFile>,
    /// The updated tensors of each network.
    pub(super) changes: BTreeMap<ModelPart, Vec<Change>>,
    matched: usize,
    unmatched: Vec<String>,
}

/// The tensors, or rows of tensors, that a layer of the file updates.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) layer: usize,
    pub(super) pieces: Vec<Piece>,
}

impl Fit {
    /// The file.
    pub fn file(&self) -> &Arc<LoraFile> {
        &self.file
    }

    /// The number of layers that match the model.
    pub fn matched(&self) -> usize {
        self.matched
    }

    /// The layers that are missing in the model or have another shape there, with underscores for dots.
    pub fn unmatched(&self) -> &[String] {
        &self.unmatched
    }
}

impl LoraFile {
    /// Matches the layers of the file with the tensors of a model, which consists of `networks`.
    ///
    /// # Errors
    /// No layer matches, or the file is for another model family ([`Error::LoraDoesNotFit`]); or a layer has
    /// magnitudes for its inputs, and is several layers in the model ([`Error::UnsupportedLora`]).
    pub fn fit<'a>(self: &Arc<Self>, networks: &[impl Into<LoraNetwork<'a>> + Copy]) -> Result<Fit> {
        let networks: Vec<LoraNetwork<'_>> = networks.iter().map(|&network| network.into()).collect();
        let key_maps: Vec<(ModelPart, KeyMap)> = networks
            .iter()
            .map(|network| (network.part, KeyMap::of(network)))
            .collect();
        let mut changes: BTreeMap<ModelPart, Vec<Change>> = BTreeMap::new();
        let (mut matched, mut unmatched) = (0, Vec::new());
        let mut changed = BTreeSet::new();
        for (index, layer) in self.layers().iter().enumerate() {
            let place = key_maps
                .iter()
                .filter(|(part, _)| layer.part.is_none_or(|wanted| wanted == *part))
                .find_map(|(part, key_map)| Some((*part, fitting(key_map, layer)?)));
            if let Some((_, pieces)) = &place {
                self.check_magnitudes(layer, pieces)?;
            }
            match place {
                // A layer that the file has under two names is updated once.
                Some((part, pieces)) if changed.insert((part, pieces.clone())) => {
                    matched += 1;
                    let change = Change { layer: index, pieces };
                    changes.entry(part).or_default().push(change);
                }
                _ => unmatched.push(layer.module.clone()),
            }
        }
        let model = networks
            .iter()
            .find(|network| network.part == ModelPart::Denoiser)
            .and_then(|network| family_of(network.checkpoint));
        let family = self.family();
        let another = family
            .zip(model)
            .is_some_and(|(family, model)| family.contradicts(model));
        if matched == 0 || another {
            return Err(Error::LoraDoesNotFit {
                file: self.path().to_owned(),
                matched,
                layers: self.layer_count(),
                family,
                model,
            });
        }
        Ok(Fit {
            file: self.clone(),
            changes,
            matched,
            unmatched,
        })
    }
}

impl LoraFile {
    /// Refuses magnitudes whose norms are over more than one tensor.
    fn check_magnitudes(&self, layer: &Layer, pieces: &[Piece]) -> Result<()> {
        let of_inputs = layer.magnitudes.as_ref().filter(|tensor| tensor.of_inputs);
        let is_one_tensor = pieces.windows(2).all(|pair| pair[0].tensor == pair[1].tensor);
        match of_inputs {
            Some(magnitudes) if !is_one_tensor => Err(Error::UnsupportedLora {
                file: self.path().to_owned(),
                tensor: magnitudes.name.clone(),
                method: "DoRA with magnitudes for the inputs of a fused layer",
            }),
            _ => Ok(()),
        }
    }
}

/// The rows that `layer` updates, if its shape matches.
fn fitting(key_map: &KeyMap, layer: &Layer) -> Option<Vec<Piece>> {
    let pieces = key_map.find(&layer.module)?;
    let rows: usize = pieces.iter().map(|piece| piece.rows).sum();
    let fits = rows == layer.rows && pieces.iter().all(|piece| piece.columns == layer.columns);
    fits.then(|| pieces.to_vec())
}

fn family_of(checkpoint: &Checkpoint) -> Option<ModelFamily> {
    let layers: Vec<(String, usize)> = checkpoint
        .tensors()
        .filter_map(|(name, header)| {
            let module = name.strip_suffix(".weight")?;
            Some((flat(module), header.shape.iter().skip(1).product()))
        })
        .collect();
    ModelFamily::recognise(layers.iter().map(|(name, inputs)| (name.as_str(), *inputs)))
}
