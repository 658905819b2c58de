//! The state of a run: everything that a second process needs to resume it.

use std::collections::BTreeMap;

use candle_core::Tensor;
use sd_weights::FileIdentity;
use serde::{Deserialize, Serialize};

use super::RunName;
use super::kept_request::KeptRequest;
use super::later::LaterRequest;
use super::saved::SavedImages;
use crate::failure::{Failure, Warning};
use crate::identity::ModelIdentity;
use crate::request::Request;
use crate::run::ModelPass;
use crate::scheduler::SamplerState;
use crate::stage::Progress;
use crate::{Result, device, numerics_id};

/// Incremented when the meaning of a field changes.
pub(super) const FORMAT: u32 = 5;

/// The state without its latents.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Description {
    pub(super) format: u32,
    /// The version of the program that started the run.
    pub(super) version: String,
    pub(super) name: RunName,
    /// The numerics id of the device.
    pub(super) device: String,
    pub(super) request: KeptRequest,
    /// The identities of each model pass's files.
    pub(super) models: Vec<ModelIdentity>,
    /// The identities of the input files beside the models.
    pub(super) inputs: Vec<FileIdentity>,
    /// Steps of each model pass.
    #[serde(alias = "leg_steps")]
    pub(super) pass_steps: Vec<usize>,
    /// The current model pass.
    #[serde(alias = "leg")]
    pub(super) pass: usize,
    /// The duration of the run so far, in seconds.
    pub(super) seconds: f64,
    /// The time of the commit, in local time.
    pub(super) kept_at: String,
    pub(super) warnings: Vec<Warning>,
    pub(super) failures: Vec<Failure>,
    /// The saved images.
    pub(super) saved: SavedImages,
    /// The unfinished images, in order: begun and not saved.
    #[serde(rename = "pictures")]
    pub(super) at_work: Vec<ImageState>,
    /// The requests after this one in its batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) later: Vec<LaterRequest>,
}

/// The progress of an unfinished image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageState {
    /// The index of the image, from 0.
    pub(super) image: usize,
    /// Finished evaluations of the network, and the steps that they make.
    pub(super) evaluations: usize,
    pub(super) steps_done: usize,
    /// Whether all steps are finished.
    pub(super) is_denoised: bool,
}

impl Description {
    /// The state at the start of a run.
    ///
    /// # Errors
    /// The sampler of a model pass is not supported.
    pub(super) fn new(
        name: RunName,
        request: &Request,
        passes: &[ModelPass],
        models: Vec<ModelIdentity>,
        inputs: Vec<FileIdentity>,
        later: Vec<LaterRequest>,
    ) -> Result<Self> {
        let ModelPass {
            recipe,
            weight_options,
            ..
        } = &passes[0];
        let device = &weight_options.device;
        let pass_steps: Result<Vec<usize>> = passes
            .iter()
            .map(|pass| Ok(pass.recipe.sampler(&pass.bundle)?.steps()))
            .collect();
        Ok(Self {
            format: FORMAT,
            version: crate::VERSION.to_owned(),
            name,
            device: numerics_id::name(device),
            request: KeptRequest::new(request, recipe, device::settled(device)),
            models,
            inputs,
            pass_steps: pass_steps?,
            pass: 0,
            seconds: 0.0,
            kept_at: String::new(),
            warnings: Vec::new(),
            failures: Vec::new(),
            saved: SavedImages::default(),
            at_work: Vec::new(),
            later,
        })
    }

    /// Finished steps of all images.
    pub(super) fn steps_done(&self) -> usize {
        let before: usize = self.pass_steps.iter().take(self.pass).sum();
        let at_work = self.at_work.iter().map(|state| before + state.steps_done);
        let of_saved = self.saved.count().saturating_mul(self.pass_steps.iter().sum());
        of_saved.saturating_add(at_work.sum())
    }

    /// Steps of all images.
    pub(super) fn steps(&self) -> usize {
        self.request.images.saturating_mul(self.pass_steps.iter().sum())
    }

    /// The progress of each unfinished image; None if latents are missing in `tensors`.
    pub(super) fn progress(&self, tensors: &BTreeMap<String, Tensor>) -> Option<Vec<(usize, Progress)>> {
        let of = |state: &ImageState| {
            let find = |name: &str| tensors.get(&tensor_name(state.image, name)).cloned();
            let progress = Progress {
                evaluations: state.evaluations,
                sampler_state: SamplerState::from_tensors(find)?,
            };
            Some((state.image, progress))
        };
        self.at_work.iter().map(of).collect()
    }

    /// The state of `image`, which becomes an unfinished image if it is not one yet.
    pub(super) fn state_of(&mut self, image: usize) -> &mut ImageState {
        let at = self.at_work.partition_point(|state| state.image < image);
        if self.at_work.get(at).is_none_or(|state| state.image != image) {
            let new = ImageState {
                image,
                evaluations: 0,
                steps_done: 0,
                is_denoised: false,
            };
            self.at_work.insert(at, new);
        }
        &mut self.at_work[at]
    }

    /// Records that `image` is saved under `number`.
    pub(super) fn note_saved(&mut self, image: usize, number: usize) {
        self.saved.insert(image, number);
        self.at_work.retain(|state| state.image != image);
    }
}

/// The name of the tensor `name` of `image` in the file.
pub(super) fn tensor_name(image: usize, name: &str) -> String {
    format!("{image}.{name}")
}
