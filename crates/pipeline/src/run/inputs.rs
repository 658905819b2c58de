//! What the denoising is given: encoded prompts, and the latents of pictures that are drawn over.

use super::networks::Kept;
use super::{Leg, Run};
use crate::Result;
use crate::save::RgbImage;
use crate::stage::{self, Canvas, EncodedPrompt, Mask};

impl Run<'_> {
    /// The encoded prompts of the model that is at work, from `kept` where they are there.
    pub(super) fn encode(&mut self, kept: &mut Kept) -> Result<EncodedPrompt> {
        let known = kept.prompts.get(self.at).and_then(Option::as_ref);
        if let Some(known) = known {
            return Ok(known.clone());
        }
        let Leg {
            bundle,
            recipe,
            weight_options,
            plan,
            ..
        } = &self.legs[self.at];
        let prompts = recipe.texts(bundle);
        self.monitor.stage("encode");
        let cache = &self.prompts[self.at];
        let mut encoded = cache.encode(bundle, &prompts, recipe.clip_skip, weight_options, self.interrupt)?;
        if prompts.len() > 1 && recipe.negative_prompt.is_empty() && bundle.zeros_without_negative_prompt {
            encoded = encoded.without(0)?;
        }
        // Where the network stays, nobody asks for them again.
        if plan.groups.groups > 1 && !plan.groups.networks_stay {
            kept.prompts.resize(self.legs.len(), None);
            kept.prompts[self.at] = Some(encoded.clone());
        }
        if encoded.cut > 0 {
            self.warn(format!(
                "the prompt is too long for this model: its last {} tokens were cut",
                encoded.cut
            ));
        }
        self.clean("After text encoding", false);
        Ok(encoded)
    }

    /// What the images of a group are drawn over: each over the one that was `drawn` before it, or all over one that the user
    /// names. Nothing for pictures that begin as noise, or that were begun before and need no canvas any more.
    pub(super) fn canvases(
        &mut self,
        group: &[usize],
        drawn: &[(usize, RgbImage)],
        kept: &mut Kept,
    ) -> Result<Vec<(usize, Canvas)>> {
        let Some(over) = self.leg().recipe.over.clone() else {
            return Ok(Vec::new());
        };
        let Some(named) = self.over.clone().filter(|_| over.image.is_some()) else {
            let canvases = self.encode_pictures(drawn.iter().map(|(_, image)| image), None)?;
            return Ok(drawn.iter().map(|&(image, _)| image).zip(canvases).collect());
        };
        // Later groups want it too, and then there may be no room for the encoder.
        if over.mask.is_none() && self.journal.all_are_begun() {
            return Ok(Vec::new());
        }
        if kept.canvas.is_none() {
            kept.canvas = self.encode_pictures([&named.image], named.mask.as_ref())?.pop();
        }
        let of_all = kept.canvas.iter().cycle().cloned();
        Ok(group.iter().copied().zip(of_all).collect())
    }

    fn encode_pictures<'i>(
        &mut self,
        images: impl IntoIterator<Item = &'i RgbImage>,
        mask: Option<&Mask>,
    ) -> Result<Vec<Canvas>> {
        let mut images = images.into_iter().peekable();
        if images.peek().is_none() {
            return Ok(Vec::new());
        }
        self.monitor.stage("encode picture");
        let leg = self.leg();
        let scaling = leg.recipe.pipeline_class(&leg.bundle).encoding();
        let canvases = stage::canvases(&leg.bundle, images, mask, scaling, &leg.weight_options)?;
        self.clean("After picture encoding", false);
        Ok(canvases)
    }
}
