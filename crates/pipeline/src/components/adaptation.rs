//! LoRA files matched to the networks of a model.

use std::collections::BTreeMap;
use std::sync::Arc;

use sd_weights::{Adapters, Checkpoint, Fit, LoraFile, LoraNetwork, ModelPart, Naming};

use crate::Result;
use crate::request::LoraChoice;

/// The changes of all LoRA files to a model, by network.
#[derive(Debug, Default)]
pub(super) struct Adaptation {
    fits: Vec<(Fit, LoraChoice)>,
    adapters: BTreeMap<&'static str, Arc<Adapters>>,
}

/// A network that LoRA files may update.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdaptedNetwork {
    /// Its folder.
    pub(crate) component: &'static str,
    /// What LoRA files call it.
    pub(crate) part: ModelPart,
    /// The names of its tensors in other programs.
    pub(crate) namings: &'static [Naming],
}

impl Adaptation {
    /// Adds the LoRA file of `choice` to a model with `networks`, each with its tensors. With `values` its
    /// values are checked too.
    ///
    /// # Errors
    /// The file cannot be read, or is for another model.
    pub(super) fn add(
        &mut self,
        choice: &LoraChoice,
        networks: &[(AdaptedNetwork, Checkpoint)],
        values: bool,
    ) -> Result<()> {
        let file = Arc::new(LoraFile::open(&choice.file)?);
        let parts = networks.iter().map(|(network, checkpoint)| LoraNetwork {
            part: network.part,
            checkpoint,
            namings: network.namings,
        });
        let fit = file.fit(&parts.collect::<Vec<_>>())?;
        if values {
            file.check_values()?;
        }
        if !fit.unmatched().is_empty() {
            tracing::info!(
                "{} of {} layers of `{}` fit this model",
                fit.matched(),
                file.layer_count(),
                choice.file.display()
            );
        }
        self.fits.push((fit, choice.clone()));
        for (AdaptedNetwork { component, part, .. }, _) in networks {
            let scale = |choice: &LoraChoice| match part {
                ModelPart::Denoiser => choice.scale,
                ModelPart::TextEncoder | ModelPart::TextEncoder2 | ModelPart::TextEncoder3 => {
                    choice.text_scale
                }
            };
            let fits: Vec<(&Fit, f32)> = self
                .fits
                .iter()
                .map(|(fit, choice)| (fit, scale(choice) as f32))
                .collect();
            let adapters = Adapters::new(*part, &fits);
            if !adapters.is_empty() {
                self.adapters.insert(component, Arc::new(adapters));
            }
        }
        Ok(())
    }

    /// The adapters for the tensors of `component`.
    pub(super) fn of(&self, component: &str) -> Option<&Arc<Adapters>> {
        self.adapters.get(component)
    }

    /// The LoRA files, with the user's choice of each.
    pub(super) fn files(&self) -> impl Iterator<Item = (&LoraFile, &LoraChoice)> {
        self.fits.iter().map(|(fit, choice)| (&**fit.file(), choice))
    }
}
