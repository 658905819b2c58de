//! The end of a run: pictures decoded and saved, each with how it was made.

use super::{Leg, Run, words};
use crate::event::Event;
use crate::memory::log_memory_status;
use crate::save::{MemoryReport, Metadata, RgbImage};
use crate::{Result, device, device_budget, stage};

impl Run<'_> {
    /// Decodes the pictures of the last leg, and saves each as soon as it is there.
    pub(super) fn decode_and_save(&mut self) -> Result<()> {
        let (images, latents) = self.latents();
        let (monitor, observer) = (self.monitor, &mut *self.observer);
        monitor.stage("decode");
        let (legs, gallery, journal) = (&self.legs, &mut self.gallery, &mut self.journal);
        let Leg { bundle, holding, .. } = &legs[self.at];
        let settings = Settings::of(legs)?;
        let on_picture = |position: usize, image: RgbImage| {
            let index = images[position];
            log_memory_status("After decoding", monitor, observer);
            let mut metadata = settings.metadata(index);
            metadata.generation_time = journal.duration().as_secs_f64();
            metadata.warnings = journal.warnings().to_vec();
            metadata.memory = memory_report(legs, monitor.timeline());
            let picture = gallery.save(&image, &mut metadata)?;
            journal.record_saved(&picture, observer);
            observer.observe(&Event::Saved(&picture));
            Ok(())
        };
        stage::decode(bundle, &latents, holding, self.interrupt, on_picture)?;
        self.clean("Complete", true);
        Ok(())
    }
}

/// What is the same for all pictures of a run.
struct Settings<'a> {
    legs: &'a [Leg],
    schedule: crate::scheduler::ScheduleKind,
    dtype: String,
}

impl<'a> Settings<'a> {
    fn of(legs: &'a [Leg]) -> Result<Self> {
        let first = &legs[0];
        Ok(Self {
            schedule: first.recipe.sampler(&first.bundle)?.schedule(),
            dtype: words::dtype_name(first)?,
            legs,
        })
    }

    /// The metadata of picture `index`, without what is known of it only now.
    fn metadata(&self, index: usize) -> Metadata {
        let first = &self.legs[0];
        let recipe = &first.recipe;
        Metadata {
            prompt: recipe.prompt.clone(),
            negative_prompt: recipe.negative_prompt.clone(),
            seed: recipe.seed_of(index),
            steps: recipe.steps,
            guidance_scale: recipe.guidance_scale,
            size: recipe.size,
            sampler: recipe.sampler,
            schedule: self.schedule,
            clip_skip: recipe.clip_skip,
            over: recipe.over.clone(),
            style: None,
            model: recipe.model.clone(),
            lora: self.legs[0]
                .bundle
                .loras()
                .map(|(file, scale)| format!("{}:{scale}", file.display()))
                .collect(),
            controlnet: None,
            upscale: None,
            upscale_method: None,
            refiner: self.legs.get(1).map(|leg| leg.recipe.model.clone()),
            quality_preset: None,
            num_images: recipe.images,
            image_index: index,
            filename: String::new(),
            device: device::name(&first.holding.device).to_owned(),
            dtype: self.dtype.clone(),
            pipeline_type: first.bundle.family.pipeline_type().to_owned(),
            memory_optimizations: words::memory_optimizations(first),
            started: String::new(),
            generation_time: 0.0,
            failures: Vec::new(),
            warnings: Vec::new(),
            memory: MemoryReport::default(),
            version: format!("sd-generate {}", crate::VERSION),
        }
    }
}

/// What the run was allowed, predicted to take, and took so far.
fn memory_report(legs: &[Leg], timeline: sd_memory::Timeline) -> MemoryReport {
    let budget = legs[0].plan.budget;
    let predicted = legs.iter().map(|leg| leg.plan.predicted_peak).max();
    let report = MemoryReport::new(Some(budget), predicted, timeline);
    // Of a GPU the budget is its own memory, and so is the peak.
    match device_budget::peak(&legs[0].holding.device) {
        Some(measured_peak) => MemoryReport {
            measured_peak,
            ..report
        },
        None => report,
    }
}
