//! The end of a run: decodes the images and saves them with their metadata.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use sd_memory::Bytes;

use super::networks::Networks;
use super::report::Report;
use super::upscaling::Upscaling;
use super::{ModelPass, Run, messages};
use crate::bundle::Bundle;
use crate::event::{Event, SavedImage};
use crate::plan::Phase;
use crate::resume::Journal;
use crate::save::{EmbeddingRecord, Gallery, LoraRecord, MemoryReport, Metadata, RgbImage};
use crate::stage::Decode;
use crate::upscale::lanczos3;
use crate::{Result, device, device_budget, stage};

impl Run<'_> {
    /// The images of `group` that are not saved yet, with their latents.
    pub(super) fn latents(&self, group: &[usize]) -> (Vec<usize>, Vec<Tensor>) {
        let unsaved = self.journal.unsaved(group).into_iter();
        unsaved
            .filter_map(|image| Some((image, self.journal.progress(image)?.sampler_state.latents)))
            .unzip()
    }

    /// Decodes the images of `group` for the next model pass or for upscaling.
    pub(super) fn decode(&mut self, group: &[usize]) -> Result<Vec<(usize, RgbImage)>> {
        let (images, latents) = self.latents(group);
        self.limit_cache_beside(Phase::Decoding);
        self.begin_stage("decode");
        let mut decoded = Vec::with_capacity(images.len());
        let ModelPass {
            bundle,
            recipe,
            weight_options,
            ..
        } = &self.passes[self.at];
        let scaling = recipe.pipeline_class(bundle).decoding();
        let decode = Decode::load(bundle, scaling, weight_options)?;
        for (image, latents) in images.into_iter().zip(&latents) {
            self.interrupt.check()?;
            decoded.push((image, decode.image(latents)?));
        }
        self.limit_cache_between_networks();
        drop(decode);
        self.clean("After decoding", true);
        Ok(decoded)
    }

    /// Decodes the images of `group`, upscales them if requested, and saves each at once. The decoder stays
    /// in `networks`.
    pub(super) fn finish<'b>(
        &mut self,
        group: &[usize],
        bundle: &'b Bundle,
        networks: &mut Networks<'b>,
    ) -> Result<()> {
        if self.network().is_some() {
            let decoded = self.decode(group)?;
            return self.finish_generated(&decoded);
        }
        let (images, latents) = self.latents(group);
        self.limit_cache_beside(Phase::Decoding);
        self.begin_stage("decode");
        let decode = match networks.decode.take() {
            Some(decode) => decode,
            None => {
                let ModelPass {
                    recipe,
                    weight_options,
                    ..
                } = self.pass();
                Decode::load(bundle, recipe.pipeline_class(bundle).decoding(), weight_options)?
            }
        };
        let decode = networks.decode.insert(decode);
        self.save_all("After decoding", Source::Latents(decode, &images, &latents))
    }

    /// Upscales images if requested, and saves those that are not saved yet.
    pub(super) fn finish_generated(&mut self, generated: &[(usize, RgbImage)]) -> Result<()> {
        if let Some(network) = self.network() {
            self.limit_cache_beside_upscaling();
            self.clean("Before upscaling", false);
            let expected = self.upscaling.as_ref().map(|upscaling| upscaling.plan.resident);
            self.report.stage("upscale", expected);
            match self.save_all("After upscaling", Source::Upscaled(&network, generated)) {
                Err(error) if self.can_do_without(&error) => {
                    self.clean("After upscaling failed", true);
                    self.leave_out("upscaling", &error);
                    self.upscaling = None;
                }
                outcome => return outcome,
            }
        }
        let images: Vec<usize> = generated.iter().map(|(image, _)| *image).collect();
        let unsaved = self.journal.unsaved(&images);
        let left = generated.iter().filter(|(image, _)| unsaved.contains(image));
        self.save_all("After decoding", Source::Generated(left.cloned().collect()))
    }

    /// The file of the upscaling network, if there is one.
    fn network(&self) -> Option<PathBuf> {
        self.upscaling
            .as_ref()
            .and_then(|upscaling| upscaling.network.clone())
    }

    /// Saves the images of `source` one by one. `label` is that of the reading once an image is there.
    fn save_all(&mut self, label: &str, source: Source<'_>) -> Result<()> {
        let (interrupt, upscaling) = (self.interrupt, self.upscaling.as_ref());
        let weight_options = &self.passes[self.at].weight_options;
        let mut saver = Saver {
            settings: Settings::of(&self.passes, upscaling)?,
            report: &mut self.report,
            gallery: &mut self.gallery,
            journal: &mut self.journal,
            saved: &mut self.saved_of_group,
            predicted: self.predicted,
        };
        match source {
            Source::Latents(decode, images, latents) => {
                for (position, (&image, latents)) in images.iter().zip(latents).enumerate() {
                    interrupt.check()?;
                    // Between two images they were resampled.
                    if position > 0 && upscaling.is_some() {
                        saver.report.stage("decode", None);
                    }
                    let decoded = decode.image(latents)?;
                    saver.report.read(label);
                    saver.resample_and_save(image, decoded)?;
                }
            }
            Source::Upscaled(network, images) => {
                let factor = upscaling.map_or(1, |upscaling| upscaling.factor);
                stage::upscale(
                    network,
                    factor,
                    images,
                    weight_options,
                    interrupt,
                    |image, upscaled| {
                        saver.report.clean(label, false);
                        saver.save(image, upscaled)
                    },
                )?;
            }
            Source::Generated(images) => {
                for (image, generated) in images {
                    saver.report.read(label);
                    saver.resample_and_save(image, generated)?;
                }
            }
        }
        Ok(())
    }

    /// Writes the memory of the group that ends into the metadata of its images: what was measured after they were
    /// saved is part of it.
    pub(super) fn complete_metadata(&mut self) {
        for (saved, mut metadata) in std::mem::take(&mut self.saved_of_group) {
            let timeline = self.report.monitor.timeline_of_group();
            metadata.memory = memory_report(&self.passes, self.predicted, timeline);
            if let Err(error) = self.gallery.replace_metadata(&saved, &metadata) {
                self.warn(format!("the memory of the whole run is not recorded: {error}"));
            }
        }
    }
}

/// Saves images with their metadata.
struct Saver<'s, 'a> {
    settings: Settings<'s>,
    report: &'s mut Report<'a>,
    gallery: &'s mut Gallery,
    journal: &'s mut Journal,
    saved: &'s mut Vec<(SavedImage, Metadata)>,
    /// The predicted peak of the whole run.
    predicted: Bytes,
}

impl Saver<'_, '_> {
    /// Resamples an image, if that is requested, and saves it.
    fn resample_and_save(&mut self, index: usize, image: RgbImage) -> Result<()> {
        let Some(factor) = self.settings.upscaling.map(|upscaling| upscaling.factor) else {
            return self.save(index, image);
        };
        self.report.clean("Before upscaling", false);
        self.report.stage("upscale", None);
        let resampled = lanczos3(&image, factor * image.width(), factor * image.height());
        drop(image);
        self.report.clean("After upscaling", false);
        self.save(index, resampled)
    }

    fn save(&mut self, index: usize, image: RgbImage) -> Result<()> {
        let mut metadata = self.settings.metadata(index);
        metadata.generation_time = self.journal.duration().as_secs_f64();
        metadata.warnings = self.journal.warnings().to_vec();
        metadata.failures = self.journal.failures().to_vec();
        let timeline = self.report.monitor.timeline_of_group();
        metadata.memory = memory_report(self.settings.passes, self.predicted, timeline);
        let saved = self.gallery.save(&image, &mut metadata)?;
        self.journal.record_saved(&saved, self.report.observer);
        self.report.observer.observe(&Event::Saved(&saved));
        metadata.memory = MemoryReport::default();
        self.saved.push((saved, metadata));
        Ok(())
    }
}

/// The source of the images to save.
enum Source<'a> {
    /// Latents that are decoded, and resampled if requested.
    Latents(&'a Decode<'a>, &'a [usize], &'a [Tensor]),
    /// Images that the network of a file upscales.
    Upscaled(&'a Path, &'a [(usize, RgbImage)]),
    /// Finished images, resampled if requested.
    Generated(Vec<(usize, RgbImage)>),
}

/// The settings that all images of a run share.
struct Settings<'a> {
    passes: &'a [ModelPass],
    upscaling: Option<&'a Upscaling>,
    model_sha256: Option<String>,
    loras: Vec<LoraRecord>,
    embeddings: Vec<EmbeddingRecord>,
    schedule: crate::scheduler::ScheduleKind,
    dtype: String,
}

impl<'a> Settings<'a> {
    fn of(passes: &'a [ModelPass], upscaling: Option<&'a Upscaling>) -> Result<Self> {
        let first = &passes[0];
        Ok(Self {
            schedule: first.recipe.sampler(&first.bundle)?.schedule(),
            dtype: messages::dtype_name(first)?,
            model_sha256: first.bundle.known_sha256(),
            loras: first
                .bundle
                .loras()
                // A file that was deleted since is recorded without a hash.
                .map(|(file, choice)| LoraRecord::new(choice, file.hash().ok()))
                .collect(),
            embeddings: first
                .bundle
                .embeddings()
                .iter()
                .map(|(file, choice)| EmbeddingRecord {
                    name: choice.name.clone(),
                    file: choice.file.clone(),
                    hash: file.hash().ok(),
                })
                .collect(),
            passes,
            upscaling,
        })
    }

    /// The metadata of an image, without the parts that are set when it is saved.
    fn metadata(&self, index: usize) -> Metadata {
        let first = &self.passes[0];
        let recipe = &first.recipe;
        Metadata {
            prompt: recipe.prompt.clone(),
            negative_prompt: recipe.negative_prompt.clone(),
            seed: recipe.seed_of(index),
            rng: recipe.rng,
            steps: recipe.steps,
            guidance_scale: recipe.guidance_scale,
            guidance_rescale: recipe.guidance_rescale,
            size: recipe.size,
            sampler: recipe.sampler,
            schedule: self.schedule,
            choices: recipe.choices.clone(),
            clip_skip: recipe.clip_skip,
            img2img: recipe.img2img.clone(),
            style: recipe.names.style.clone(),
            model: recipe.model.clone(),
            model_sha256: self.model_sha256.clone(),
            lora: self
                .loras
                .iter()
                .map(|lora| format!("{}:{}", lora.file.display(), lora.scales()))
                .collect(),
            loras: self.loras.clone(),
            embeddings: self.embeddings.clone(),
            controlnet: match first.bundle.controls() {
                [] => None,
                controls => Some(controls.iter().map(|control| control.choice.clone()).collect()),
            },
            upscale: self.upscaling.map(|upscaling| upscaling.factor),
            upscale_method: self.upscaling.map(Upscaling::method),
            refiner: self.passes.get(1).map(|pass| pass.recipe.model.clone()),
            refiner_settings: self.passes.get(1).map(messages::refiner_settings),
            quality_preset: recipe.names.quality_preset.clone(),
            num_images: recipe.images,
            image_index: index,
            filename: String::new(),
            device: device::name(&first.weight_options.device).to_owned(),
            dtype: self.dtype.clone(),
            pipeline_type: first.bundle.family.pipeline_type().to_owned(),
            memory_optimizations: messages::memory_optimizations(first),
            started: String::new(),
            generation_time: 0.0,
            failures: Vec::new(),
            warnings: Vec::new(),
            memory: MemoryReport::default(),
            version: format!("sd-generate {}", crate::VERSION),
        }
    }
}

/// The budget, the prediction, and the measured memory so far.
fn memory_report(passes: &[ModelPass], predicted: Bytes, timeline: sd_memory::Timeline) -> MemoryReport {
    let report = MemoryReport::new(Some(passes[0].plan.budget), Some(predicted), timeline);
    // On a GPU, budget and peak are those of its own memory.
    match device_budget::peak(&passes[0].weight_options.device) {
        Some(measured_peak) => MemoryReport {
            measured_peak,
            ..report
        },
        None => report,
    }
}
