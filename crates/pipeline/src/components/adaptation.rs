//! LoRA files fitted to a model.

use std::collections::BTreeMap;
use std::sync::Arc;

use sd_weights::{Adapters, Checkpoint, Fit, LoraFile, ModelPart};

use crate::Result;
use crate::request::LoraChoice;

/// What LoRA files change of a model, network by network.
#[derive(Debug, Default)]
pub(super) struct Adaptation {
    fits: Vec<(Fit, LoraChoice)>,
    adapters: BTreeMap<&'static str, Arc<Adapters>>,
}

impl Adaptation {
    /// Adds the LoRA file of `choice` for a model of `networks`, each with its component. Its values are looked at too where
    /// `values` says so.
    ///
    /// # Errors
    /// The file cannot be read, or is not for this model.
    pub(super) fn add(
        &mut self,
        choice: &LoraChoice,
        networks: &[(ModelPart, &'static str, Checkpoint)],
        values: bool,
    ) -> Result<()> {
        let file = Arc::new(LoraFile::open(&choice.file)?);
        let parts: Vec<(ModelPart, &Checkpoint)> = networks
            .iter()
            .map(|(part, _, checkpoint)| (*part, checkpoint))
            .collect();
        let fit = file.fit(&parts)?;
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
        for (part, component, _) in networks {
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

    /// What is added to the tensors of `component`.
    pub(super) fn of(&self, component: &str) -> Option<&Arc<Adapters>> {
        self.adapters.get(component)
    }

    /// The files, each as it was chosen.
    pub(super) fn files(&self) -> impl Iterator<Item = (&LoraFile, &LoraChoice)> {
        self.fits.iter().map(|(fit, choice)| (&**fit.file(), choice))
    }
}
