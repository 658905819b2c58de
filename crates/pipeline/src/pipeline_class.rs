//! The pipeline class of diffusers that a recipe corresponds to, and how that class reads a model's settings.
//!
//! diffusers has a class for each family and task. Classes read the same folder in different ways, so an
//! image depends on its class.

use sd_models::vae::Scaling;

use crate::bundle::Bundle;
use crate::family::{Family, Task};
use crate::scheduler::Repairs;

/// A pipeline class of diffusers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PipelineClass<'a> {
    family: &'a dyn Family,
    task: Task,
    /// Whether it runs ControlNets.
    is_controlled: bool,
    /// Whether the model is a latent consistency model.
    is_latent_consistency: bool,
}

impl<'a> PipelineClass<'a> {
    /// The class that does `task` with the model of `bundle`.
    pub(crate) fn new(bundle: &'a Bundle, task: Task, is_controlled: bool) -> Self {
        Self {
            family: &*bundle.family,
            task,
            is_controlled,
            is_latent_consistency: bundle.is_latent_consistency,
        }
    }

    /// Its corrections to a model's scheduler configuration. Classes with ControlNets have none.
    pub(crate) fn repairs(self) -> Repairs {
        if self.is_controlled {
            return Repairs::default();
        }
        self.family
            .scheduler_repairs(self.task, self.is_latent_consistency)
    }

    /// How it scales latents of the VAE encoder.
    pub(crate) fn encoding(self) -> Scaling {
        self.family.encoding(self.task)
    }

    /// How it scales latents for the VAE decoder.
    pub(crate) fn decoding(self) -> Scaling {
        self.family.decoding(self.task, self.is_controlled)
    }
}
