//! One run, from a request to saved pictures.

use std::time::Instant;

use candle_core::{Device, Tensor};
use jiff::ZonedDateTime;
use sd_memory::Timeline;
use sd_weights::{Residency, WeightType};

use crate::bundle::Bundle;
use crate::event::{Event, Interrupt, Observer, SavedPicture};
use crate::memory::{cleanup_memory, log_memory_status};
use crate::recipe::Recipe;
use crate::request::Request;
use crate::save::{Gallery, MemoryReport, Metadata, RgbImage};
use crate::stage::{self, Denoise, EncodedPrompt};
use crate::{Result, device};

/// Draws what `request` asks for and saves it. `observer` is told what happens; `interrupt` stops the run
/// between two pieces of work.
///
/// # Errors
/// Anything that [`crate::Error`] lists. Pictures that were saved before stay, and nothing is half-written.
pub fn generate(
    request: &Request,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Vec<SavedPicture>> {
    let outcome = Run::open(request, observer, interrupt).and_then(|mut run| run.draw());
    // Whatever the run held is gone by now, also after an error.
    cleanup_memory(true);
    outcome
}

/// A run between its stages.
struct Run<'a> {
    start: Instant,
    timeline: Timeline,
    observer: &'a mut dyn Observer,
    interrupt: &'a Interrupt,
    bundle: Bundle,
    recipe: Recipe,
    gallery: Gallery,
    device: Device,
    weight_type: WeightType,
    warnings: Vec<String>,
}

impl<'a> Run<'a> {
    /// Everything that can fail before a weight is read.
    fn open(request: &Request, observer: &'a mut dyn Observer, interrupt: &'a Interrupt) -> Result<Self> {
        let start = Instant::now();
        let mut timeline = Timeline::start();
        log_memory_status("Startup", &mut timeline, observer);
        let bundle = Bundle::open(&request.model.folder)?;
        let recipe = Recipe::new(request, bundle.defaults());
        stage::check_size(&bundle, recipe.size)?;
        let device = device::open(request.device)?;
        let gallery = Gallery::open(&recipe.output, ZonedDateTime::now().datetime())?;
        observer.observe(&Event::Started { recipe: &recipe });
        let weight_type = device::weight_type(request.weight_type);
        let warnings = Vec::new();
        Ok(Self {
            start,
            timeline,
            observer,
            interrupt,
            bundle,
            recipe,
            gallery,
            device,
            weight_type,
            warnings,
        })
    }

    /// The stages, in order. Each drops its networks before the next begins.
    fn draw(&mut self) -> Result<Vec<SavedPicture>> {
        let prompts = self.encode()?;
        let latents = self.denoise(&prompts)?;
        let saved = self.decode(&latents)?;
        self.observer.observe(&Event::Finished {
            duration: self.start.elapsed(),
        });
        Ok(saved)
    }

    fn encode(&mut self) -> Result<EncodedPrompt> {
        let Recipe {
            prompt,
            negative_prompt,
            guidance_scale,
            ..
        } = &self.recipe;
        let both = [negative_prompt.as_str(), prompt.as_str()];
        let prompts = if guidance_scale.guides() {
            &both[..]
        } else {
            &both[1..]
        };
        let encoded = stage::encode(
            &self.bundle,
            prompts,
            &self.device,
            self.weight_type,
            self.interrupt,
        )?;
        if encoded.cut > 0 {
            self.warn(format!(
                "the prompt is too long for this model: its last {} tokens were cut",
                encoded.cut
            ));
        }
        self.clean("After text encoding", false);
        Ok(encoded)
    }

    fn denoise(&mut self, prompts: &EncodedPrompt) -> Result<Vec<Tensor>> {
        self.log("Before model load");
        let stage = Denoise::load(
            &self.bundle,
            &self.recipe,
            prompts,
            &self.device,
            self.weight_type,
            Residency::Resident,
        )?;
        log_memory_status("After model load", &mut self.timeline, self.observer);
        log_memory_status("Before generation", &mut self.timeline, self.observer);
        let Recipe { images, steps, .. } = self.recipe;
        let mut latents = Vec::with_capacity(images);
        for image in 0..images {
            let observer = &mut *self.observer;
            latents.push(
                stage.run(self.recipe.seed_of(image), self.interrupt, |step, duration| {
                    observer.observe(&Event::Step {
                        image,
                        images,
                        step,
                        steps,
                        duration,
                    });
                })?,
            );
        }
        drop(stage);
        self.clean("After generation", true);
        Ok(latents)
    }

    fn decode(&mut self, latents: &[Tensor]) -> Result<Vec<SavedPicture>> {
        let mut saved = Vec::with_capacity(latents.len());
        let (timeline, observer) = (&mut self.timeline, &mut *self.observer);
        let (recipe, gallery) = (&self.recipe, &mut self.gallery);
        let dtype = dtype_name(&self.bundle, self.weight_type)?;
        let (warnings, start, device) = (&self.warnings, self.start, device::name(&self.device));
        let on_picture = |index: usize, image: RgbImage| {
            log_memory_status("After decoding", timeline, observer);
            let mut metadata = Metadata {
                prompt: recipe.prompt.clone(),
                negative_prompt: recipe.negative_prompt.clone(),
                seed: recipe.seed_of(index),
                steps: recipe.steps,
                guidance_scale: recipe.guidance_scale,
                size: recipe.size,
                sampler: "Euler".to_owned(),
                style: None,
                model: recipe.model.clone(),
                lora: Vec::new(),
                controlnet: None,
                upscale: None,
                upscale_method: None,
                refiner: None,
                quality_preset: None,
                num_images: recipe.images,
                image_index: index,
                filename: String::new(),
                device: device.to_owned(),
                dtype: dtype.clone(),
                pipeline_type: "stable-diffusion-3".to_owned(),
                memory_optimizations: MEMORY_OPTIMIZATIONS.map(str::to_owned).to_vec(),
                generation_time: start.elapsed().as_secs_f64(),
                failures: Vec::new(),
                warnings: warnings.clone(),
                memory: MemoryReport {
                    budget: None,
                    predicted_peak: None,
                    measured_peak: timeline.peak(),
                    timeline: timeline.readings().to_vec(),
                },
                version: concat!("sd-generate ", env!("CARGO_PKG_VERSION")).to_owned(),
            };
            let picture = gallery.save(&image, &mut metadata)?;
            observer.observe(&Event::Saved(&picture));
            saved.push(picture);
            Ok(())
        };
        stage::decode(
            &self.bundle,
            latents,
            &self.device,
            self.weight_type,
            self.interrupt,
            on_picture,
        )?;
        self.clean("Complete", true);
        Ok(saved)
    }

    fn log(&mut self, label: &str) {
        log_memory_status(label, &mut self.timeline, self.observer);
    }

    fn clean(&mut self, label: &str, aggressive: bool) {
        cleanup_memory(aggressive);
        self.log(label);
    }

    fn warn(&mut self, warning: String) {
        self.observer.observe(&Event::Warning(&warning));
        self.warnings.push(warning);
    }
}

/// What every run does to need less memory, for the metadata.
const MEMORY_OPTIMIZATIONS: [&str; 3] = [
    "text encoders streamed and dropped",
    "attention in chunks",
    "transformer dropped before decoding",
];

/// The type that the transformer's weights are held in, as the metadata writes it.
fn dtype_name(bundle: &Bundle, weight_type: WeightType) -> Result<String> {
    Ok(match weight_type {
        WeightType::F32 => "f32".to_owned(),
        WeightType::Bf16 => "bf16".to_owned(),
        WeightType::AsStored => match bundle.checkpoint("transformer")?.main_type() {
            Some(stored) => format!("{stored:?}").to_lowercase(),
            None => "none".to_owned(),
        },
    })
}
