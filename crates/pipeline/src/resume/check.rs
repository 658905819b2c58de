//! Validates a state: every count, index and path is checked before it is used.

use std::path::{Path, PathBuf};

use super::kept_request::KeptRequest;
use super::state::{Description, FORMAT};
use crate::request::Strength;
use crate::run::ModelPass;
use crate::scheduler::Sampler;
use crate::stage::Progress;
use crate::stage::latent_sides;

/// Limits beyond those of any run.
const MOST_IMAGES: usize = u32::MAX as usize;
const MOST_STEPS: usize = 100_000;
const MOST_CLIP_SKIP: usize = 1000;
const MOST_FACTOR: usize = 64;

impl Description {
    /// Why the description of the run `id` is inconsistent, if it is.
    pub(super) fn contradiction(&self, id: &str) -> Option<&'static str> {
        let Some(&steps) = self.pass_steps.get(self.pass) else {
            return Some("it is at a model pass that the run has not");
        };
        let models = self.request.models().count();
        let images = self.request.images;
        let mut before = None;
        let is_in_order = self.at_work.iter().all(|state| {
            let follows = before.is_none_or(|before| state.image > before);
            before = Some(state.image);
            follows && state.image < images
        });
        let is_saved = |image: usize| self.saved.contains(image);
        if self.format != FORMAT {
            Some("it is written in another format")
        } else if self.name.id() != id {
            Some("it is that of another run")
        } else if self.models.len() != models || self.pass_steps.len() != models {
            Some("its number of models is not that of the request")
        } else if self.pass_steps.iter().any(|&steps| steps > MOST_STEPS) {
            Some("it has more steps than a run has")
        } else if !self.saved.are_of(images) {
            Some("its saved images are not of this run")
        } else if !is_in_order || self.at_work.iter().any(|state| is_saved(state.image)) {
            Some("its unfinished images are not of this run")
        } else if self.at_work.iter().any(|state| state.steps_done > steps) {
            Some("an image has more finished steps than the request")
        } else if !(self.seconds.is_finite() && self.seconds >= 0.0) {
            Some("its time is no time")
        } else {
            self.request.fault()
        }
    }

    /// Why the state does not fit the `passes` of the resumed run, if it does not.
    pub(super) fn misfit(
        &self,
        passes: &[ModelPass],
        samplers: &[Sampler],
        progress: &[(usize, Progress)],
    ) -> Option<String> {
        let steps = samplers.iter().map(Sampler::steps);
        if !steps.eq(self.pass_steps.iter().copied()) {
            return Some("its steps are not those of the models".to_owned());
        }
        let (pass, sampler) = (&passes[self.pass], &samplers[self.pass]);
        let is_possible = self.at_work.iter().all(|state| {
            state.evaluations <= sampler.evaluations()
                && state.steps_done == sampler.steps_done(state.evaluations)
                && state.is_denoised == (state.evaluations == sampler.evaluations())
        });
        if !is_possible {
            return Some("the progress of an image does not match its sampler".to_owned());
        }
        let (rows, columns) = latent_sides(&pass.bundle, self.request.size);
        let shape = [1, pass.bundle.vae.latent_channels, rows, columns];
        let mut tensors = progress
            .iter()
            .flat_map(|(_, progress)| progress.sampler_state.tensors());
        tensors
            .any(|(_, tensor)| tensor.dims() != shape)
            .then(|| format!("its latents are not {shape:?}"))
    }
}

impl KeptRequest {
    /// The value that no request can have, if there is one.
    fn fault(&self) -> Option<&'static str> {
        let is_part = |strength: f64| (0.0..=1.0).contains(&strength);
        let steps = std::iter::once(self.steps).chain(self.refiner.iter().map(|refiner| refiner.steps));
        let strengths = self.img2img.iter().map(|img2img| img2img.strength);
        let strengths = strengths.chain(self.refiner.iter().map(|refiner| refiner.strength));
        let scales = self.controls.iter().map(|control| control.scale);
        let of_loras = self.loras.iter().flat_map(|lora| [lora.scale, lora.text_scale]);
        let scales = scales.chain(of_loras).chain([self.guidance_rescale]);
        if !(1..=MOST_IMAGES).contains(&self.images) {
            Some("it has more or fewer images than a run has")
        } else if steps.into_iter().any(|steps| !(1..=MOST_STEPS).contains(&steps)) {
            Some("it has more or fewer steps than a run has")
        } else if self.clip_skip > MOST_CLIP_SKIP {
            Some("it skips more layers than there are")
        } else if !strengths.into_iter().all(|Strength(strength)| is_part(strength))
            || !self
                .refiner
                .iter()
                .filter_map(|refiner| refiner.switch)
                .all(is_part)
        {
            Some("a strength in it is none")
        } else if !(self.guidance_scale.0.is_finite() && scales.into_iter().all(f64::is_finite)) {
            Some("a scale in it is none")
        } else if self
            .upscale
            .iter()
            .any(|upscale| !(1..=MOST_FACTOR).contains(&upscale.factor))
        {
            Some("its upscaling factor is invalid")
        } else if !self.paths().all(Path::is_absolute) {
            Some("a path in it depends on the current folder")
        } else {
            None
        }
    }

    /// Every path of the request.
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let models = self.models().flat_map(|model| {
            let search = model.search.iter().map(PathBuf::as_path);
            model
                .folder
                .as_deref()
                .into_iter()
                .chain(model.networks.files())
                .chain(search)
        });
        let controls = self
            .controls
            .iter()
            .flat_map(|control| [control.folder.as_path(), control.image.as_path()]);
        let loras = self.loras.iter().map(|lora| lora.file.as_path());
        let embeddings = self.embeddings.iter().map(|embedding| embedding.file.as_path());
        let img2img = self
            .img2img
            .iter()
            .flat_map(|img2img| std::iter::once(img2img.image.as_path()).chain(img2img.mask.as_deref()));
        let upscaler = self
            .upscale
            .iter()
            .filter_map(|upscale| upscale.network.as_deref());
        std::iter::once(self.output.as_path())
            .chain(models)
            .chain(controls)
            .chain(loras)
            .chain(embeddings)
            .chain(img2img)
            .chain(upscaler)
    }
}
