//! The inputs of the denoising: encoded prompts, and the latents of initial images.

use super::networks::Kept;
use super::{ModelPass, Run};
use crate::Result;
use crate::family::EncoderWeights;
use crate::plan::Phase;
use crate::save::RgbImage;
use crate::stage::{self, EncodedPrompt, InitLatents, Mask};

impl Run<'_> {
    /// The encoded prompts of the current model, from `kept` if they are cached.
    pub(super) fn encode(&mut self, kept: &mut Kept) -> Result<EncodedPrompt> {
        let known = kept.prompts.get(self.at).and_then(Option::as_ref);
        if let Some(known) = known {
            return Ok(known.clone());
        }
        self.begin_stage("encode");
        let ModelPass {
            bundle,
            recipe,
            weight_options,
            plan,
            ..
        } = &self.passes[self.at];
        let prompts = recipe.texts(bundle);
        let cache = &self.prompts[self.at];
        let weights = EncoderWeights::keeping(weight_options, &plan.kept_encoders);
        // There is room for what the encoders put into the cache now: nothing else comes into it before they are dropped.
        self.limit_cache_beside(Phase::Preparation);
        let mut encoded = cache.encode(bundle, &prompts, recipe.clip_skip, weights, self.interrupt)?;
        // What a system short of memory got of the encoders is not read in every step, as that of the denoiser is.
        weight_options.memory_pressure.take_released();
        if prompts.len() > 1 && recipe.negative_prompt.is_empty() && bundle.zeros_without_negative_prompt {
            encoded = encoded.without(0)?;
        }
        // If the network stays they are not needed again.
        if plan.groups.groups > 1 && !plan.groups.networks_stay {
            kept.prompts.resize(self.passes.len(), None);
            kept.prompts[self.at] = Some(encoded.clone());
        }
        if encoded.truncated > 0 {
            self.warn(format!(
                "the prompt is too long for this model: its last {} tokens were truncated",
                encoded.truncated
            ));
        }
        self.clean("After text encoding", false);
        Ok(encoded)
    }

    /// The initial latents of a group in image-to-image: each image has its own, from the `generated` images
    /// of the pass before, or all have those of the user's image. None for text-to-image, and for images that
    /// are begun and have no mask.
    pub(super) fn init_latents(
        &mut self,
        group: &[usize],
        generated: &[(usize, RgbImage)],
        kept: &mut Kept,
    ) -> Result<Vec<(usize, InitLatents)>> {
        let Some(img2img) = self.pass().recipe.img2img.clone() else {
            return Ok(Vec::new());
        };
        let Some(named) = self.init_image.clone().filter(|_| img2img.image.is_some()) else {
            let init_latents = self.encode_images(generated.iter().map(|(_, image)| image), None)?;
            return Ok(generated
                .iter()
                .map(|&(image, _)| image)
                .zip(init_latents)
                .collect());
        };
        // Later groups need them too, and the encoder may not fit into memory then.
        if img2img.mask.is_none() && self.journal.all_are_begun() {
            return Ok(Vec::new());
        }
        if kept.init_latents.is_none() {
            kept.init_latents = self.encode_images([&named.image], named.mask.as_ref())?.pop();
        }
        let of_all = kept.init_latents.iter().cycle().cloned();
        Ok(group.iter().copied().zip(of_all).collect())
    }

    fn encode_images<'i>(
        &mut self,
        images: impl IntoIterator<Item = &'i RgbImage>,
        mask: Option<&Mask>,
    ) -> Result<Vec<InitLatents>> {
        let mut images = images.into_iter().peekable();
        if images.peek().is_none() {
            return Ok(Vec::new());
        }
        self.begin_stage("encode image");
        let pass = self.pass();
        let scaling = pass.recipe.pipeline_class(&pass.bundle).encoding();
        let init_latents =
            stage::encode_init_images(&pass.bundle, images, mask, scaling, &pass.weight_options)?;
        self.clean("After image encoding", false);
        Ok(init_latents)
    }
}
