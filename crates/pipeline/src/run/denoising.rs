//! The denoising of a group of images.

use std::time::{Duration, Instant};

use sd_memory::Bytes;
use sd_weights::with_autorelease_pool;

use super::batch::Batch;
use super::networks::{Kept, Networks};
use super::{ModelPass, Run};
use crate::bundle::Bundle;
use crate::crash_point::crash_point;
use crate::event::Event;
use crate::plan::Phase;
use crate::preview::Preview;
use crate::save::RgbImage;
use crate::stage::{Denoise, EncodedPrompt, InitLatents};
use crate::{Result, device, preview};

impl Run<'_> {
    /// Denoises the images of `group`, from noise, from the initial image or from a stored state, in batches
    /// of the plan's size. The network stays in `networks`.
    pub(super) fn denoise<'b>(
        &mut self,
        group: &[usize],
        generated: &[(usize, RgbImage)],
        bundle: &'b Bundle,
        kept: &mut Kept,
        networks: &mut Networks<'b>,
    ) -> Result<()> {
        let prompts = match &networks.denoise {
            None => {
                self.limit_cache_beside_encoding();
                Some(self.encode(kept)?)
            }
            Some(_) => None,
        };
        let init_latents = self.init_latents(group, generated, kept)?;
        if let Some(prompts) = prompts {
            networks.denoise = Some(self.load(bundle, prompts)?);
        }
        let Some(stage) = &networks.denoise else {
            return Ok(());
        };
        self.limit_cache_beside(Phase::Denoising);
        let is_first = self.at == 0;
        self.clean(
            if is_first {
                "Before generation"
            } else {
                "Before refining"
            },
            false,
        );
        self.begin_stage(if is_first { "denoise" } else { "refine" });
        let init_of = |image: usize| {
            init_latents
                .iter()
                .find(|(of, _)| *of == image)
                .map(|(_, init_of)| init_of)
        };
        if self.at > self.journal.pass() {
            let begun = group.iter().map(|&image| {
                let sample = stage.begin(self.pass().recipe.seed_of(image), init_of(image))?;
                Ok((image, sample.progress))
            });
            let begun = begun.collect::<Result<Vec<_>>>()?;
            self.journal.hand_over(begun);
        }
        let mut waiting = group.to_vec();
        // The first step also waits for weights.
        let mut is_warm = false;
        let mut fastest = Duration::MAX;
        while !waiting.is_empty() {
            let mut batch = self.next_batch(stage, &init_of, &mut waiting)?;
            while batch.evaluations() < stage.sampler().evaluations() {
                self.interrupt.check()?;
                let duration = with_autorelease_pool(|| self.step(stage, &mut batch))?;
                if is_warm {
                    fastest = fastest.min(duration);
                }
                is_warm = true;
            }
        }
        if fastest < Duration::MAX {
            self.pass().compare_rates(fastest, &self.user_dirs);
        }
        Ok(())
    }

    /// Loads and conditions the network for `prompts`.
    fn load<'b>(&mut self, bundle: &'b Bundle, prompts: EncodedPrompt) -> Result<Denoise<'b>> {
        let is_first = self.at == 0;
        let (before, after) = if is_first {
            ("Before model load", "After model load")
        } else {
            ("Before refiner load", "After refiner load")
        };
        self.clean(before, !is_first);
        self.begin_stage("load");
        let ModelPass {
            recipe,
            weight_options,
            plan,
            ..
        } = self.pass();
        let stage = Denoise::load(bundle, recipe, &prompts, weight_options, plan.controls_stay)?
            .keeping_predicted(self.report.observer.wants_previews());
        drop(prompts);
        if device::reads_before_passes(&self.pass().weight_options.device) {
            self.clean(after, false);
        } else {
            // The first step reads the weights while it computes.
            self.reading_after_load = Some(after);
        }
        Ok(stage)
    }

    /// The next batch of waiting images with the same number of finished evaluations.
    fn next_batch<'c>(
        &self,
        stage: &Denoise<'_>,
        init_of: &impl Fn(usize) -> Option<&'c InitLatents>,
        waiting: &mut Vec<usize>,
    ) -> Result<Batch> {
        let ModelPass { recipe, plan, .. } = self.pass();
        let mut batch = Batch::default();
        while let Some(&image) = waiting.first() {
            let seed = recipe.seed_of(image);
            let sample = match self.journal.progress(image) {
                Some(progress) => stage.restore(seed, init_of(image), progress)?,
                None => stage.begin(seed, init_of(image))?,
            };
            let is_as_far = sample.progress.evaluations == batch.evaluations();
            let fits = batch.images.len() < plan.images_per_pass && is_as_far;
            if !batch.images.is_empty() && !fits {
                break;
            }
            waiting.remove(0);
            batch.images.push(image);
            batch.samples.push(sample);
        }
        Ok(batch)
    }

    /// Advances a batch by one step, in as many evaluations as the sampler needs, and records the progress. Returns the
    /// duration for each image.
    fn step(&mut self, stage: &Denoise<'_>, batch: &mut Batch) -> Result<Duration> {
        let start = Instant::now();
        let sampler = stage.sampler();
        let steps_before = sampler.steps_done(batch.evaluations());
        while sampler.steps_done(batch.evaluations()) == steps_before {
            stage.step(&mut batch.samples)?;
        }
        let duration = start.elapsed() / batch.images.len() as u32;
        let images = self.pass().recipe.images;
        for (&image, sample) in batch.images.iter().zip(&mut batch.samples) {
            let (step, steps) = (sampler.steps_done(sample.progress.evaluations), sampler.steps());
            self.report.observer.observe(&Event::Step {
                image,
                images,
                step,
                steps,
                duration,
            });
            self.journal.record(image, &sample.progress, sampler);
            if let Some(predicted) = sample.predicted.take() {
                match preview::of_latents(&predicted, &self.passes[self.at].bundle.vae) {
                    Ok(pixels) => self.report.observer.observe(&Event::Preview(&Preview {
                        image,
                        images,
                        step,
                        steps,
                        pixels,
                    })),
                    Err(error) => tracing::debug!("there is no preview: {error}"),
                }
            }
        }
        if let Some(label) = self.reading_after_load.take() {
            self.clean(label, false);
        }
        self.journal.commit_if_due(self.report.observer);
        crash_point();
        self.warn_of_released_blocks();
        Ok(duration)
    }

    /// Warns the user if blocks were released under memory pressure.
    fn warn_of_released_blocks(&mut self) {
        let released = Bytes(self.pass().weight_options.memory_pressure.take_released());
        if released > Bytes(0) {
            self.warn(format!(
                "memory is short on this machine: {released} of weights were released and are read in every step from now on"
            ));
        }
    }
}
