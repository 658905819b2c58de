//! The components of a model: their headers and weights, with LoRA files added.

mod adaptation;
mod cache_name;
mod classes;
mod model_index;

use std::sync::Arc;

use candle_core::Tensor;
use sd_weights::{Checkpoint, LoraFile, ModelSource, WeightOptions, WeightType, Weights};

use crate::Result;
use crate::request::LoraChoice;
use crate::{culprit::Culprit, device, finite};
use adaptation::Adaptation;
pub(crate) use adaptation::AdaptedNetwork;
pub(crate) use cache_name::cache_name;
pub(crate) use classes::{
    AUTOENCODERS, CLIPS, CONTROLNETS_OF_TRANSFORMERS, CONTROLNETS_OF_UNETS, T5S, TRANSFORMERS, UNETS,
};
pub(crate) use classes::{check as check_class, is_of as is_of_class};
pub(crate) use model_index::ModelIndex;

/// The components of a model.
#[derive(Debug)]
pub struct Components {
    source: Arc<dyn ModelSource>,
    adaptation: Adaptation,
}

/// The type that the weights of `component` are held in.
fn held_as(component: &str, weight_type: WeightType) -> WeightType {
    match component {
        "vae" | "text_encoder_3" => device::wide_weight_type(weight_type),
        _ => weight_type,
    }
}

impl Components {
    /// The components of `source`, without LoRA files.
    pub(crate) fn new(source: Arc<dyn ModelSource>) -> Self {
        Self {
            source,
            adaptation: Adaptation::default(),
        }
    }

    /// The source of the model's files.
    pub fn source(&self) -> &dyn ModelSource {
        &*self.source
    }

    /// The tensors of `component`, from their headers.
    ///
    /// # Errors
    /// Its files are missing or their headers are wrong.
    pub fn checkpoint(&self, component: &str) -> Result<Checkpoint> {
        Ok(self.source.checkpoint(component)?)
    }

    /// The weights of `component`, held as `weight_options` say. No weight is read yet.
    ///
    /// # Errors
    /// Its files are missing or their headers are wrong.
    pub fn weights(&self, component: &str, weight_options: &WeightOptions) -> Result<Weights> {
        let checkpoint = self.checkpoint(component)?;
        let weight_options = WeightOptions {
            weight_type: held_as(component, weight_options.weight_type),
            ..weight_options.clone()
        };
        let name = match weight_options.block_cache {
            Some(_) => Some(self.name_of(component, &checkpoint, weight_options.weight_type)?),
            None => None,
        };
        let weights = Weights::new(checkpoint, weight_options);
        let weights = name.map_or(weights.clone(), |name| weights.cached_as(&name));
        Ok(match self.adaptation.of(component) {
            Some(adapters) => weights.with_adapters(adapters.clone()),
            None => weights,
        })
    }

    /// The name of the weights of `component`, held as `weight_type`, in the block cache.
    ///
    /// # Errors
    /// A file is missing or cannot be read.
    pub(crate) fn cache_name(&self, component: &str, weight_type: WeightType) -> Result<String> {
        self.name_of(
            component,
            &self.checkpoint(component)?,
            held_as(component, weight_type),
        )
    }

    fn name_of(&self, component: &str, checkpoint: &Checkpoint, weight_type: WeightType) -> Result<String> {
        let is_adapted = self.adaptation.of(component).is_some();
        let loras = self.loras().filter(|_| is_adapted).map(|(_, choice)| choice);
        cache_name(&self.source.config(component)?, checkpoint, loras, weight_type)
    }

    /// Adds a LoRA file to the weights of `networks`, which are merged as they are read. With `values` the
    /// file is read once now, and refused if a value is not finite.
    ///
    /// # Errors
    /// The file cannot be read, or fits none of `networks`; then nothing is added.
    pub(crate) fn adapt(
        &mut self,
        choice: &LoraChoice,
        networks: impl IntoIterator<Item = AdaptedNetwork>,
        values: bool,
    ) -> Result<()> {
        let networks = networks
            .into_iter()
            .map(|network| Ok((network, self.checkpoint(network.component)?)));
        let networks = networks.collect::<Result<Vec<_>>>()?;
        self.adaptation.add(choice, &networks, values)
    }

    /// The LoRA files that are added, with the user's choice of each.
    pub(crate) fn loras(&self) -> impl Iterator<Item = (&LoraFile, &LoraChoice)> {
        self.adaptation.files()
    }

    /// Bytes of scratch memory for adding LoRA files to the weights of `component`.
    pub(crate) fn adapting_bytes(&self, component: &str) -> u64 {
        self.adaptation
            .of(component)
            .map_or(0, |adapters| adapters.scratch_bytes())
    }

    /// Refuses a `tensor` of `stage` with values that are not finite. The weights of `component` are then
    /// searched for the cause.
    ///
    /// # Errors
    /// A value is not finite, or the device fails.
    pub(crate) fn check_finite(&self, tensor: &Tensor, stage: &str, component: &str) -> Result<()> {
        finite::check(tensor, stage, || {
            let culprit = finite::damaged_tensor([self.checkpoint(component)])?;
            Ok(culprit.or_else(|| self.added_loras()))
        })
    }

    /// The LoRA files as the culprit, if any is added.
    pub(crate) fn added_loras(&self) -> Option<Culprit> {
        finite::added_loras(self.loras().map(|(_, choice)| choice))
    }
}
