//! One run, from a request to saved pictures.

use std::time::Instant;

use candle_core::Tensor;
use jiff::ZonedDateTime;
use sd_memory::{Bytes, MemoryInfo, Timeline, memory_info};
use sd_weights::{Holding, Residency, WeightType};

use crate::bundle::Bundle;
use crate::event::{Event, Interrupt, Observer, SavedPicture};
use crate::memory::{cleanup_memory, log_memory_status};
use crate::plan::Plan;
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
    holding: Holding,
    plan: Plan,
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
        let weight_type = device::weight_type(request.weight_type);
        let holding = Holding::new(device::open(request.device)?, weight_type, Residency::Resident);
        let plan = plan_for(request, &bundle, &recipe, &holding)?;
        let gallery = Gallery::open(&recipe.output, ZonedDateTime::now().datetime())?;
        observer.observe(&Event::Started { recipe: &recipe });
        observer.observe(&Event::Planned { plan: &plan });
        let holding = Holding {
            residency: plan.residency(),
            page_cache: plan.page_cache(),
            ..holding
        };
        let mut run = Self {
            start,
            timeline,
            observer,
            interrupt,
            bundle,
            recipe,
            gallery,
            holding,
            plan,
            warnings: Vec::new(),
        };
        if run.plan.streams() {
            run.warn(streaming_warning(&run.plan));
        }
        Ok(run)
    }

    /// The stages, in order. Each drops its networks before the next begins.
    fn draw(&mut self) -> Result<Vec<SavedPicture>> {
        let prompts = self.encode()?;
        let latents = self.denoise(prompts)?;
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
        let encoded = stage::encode(&self.bundle, prompts, &self.holding, self.interrupt)?;
        if encoded.cut > 0 {
            self.warn(format!(
                "the prompt is too long for this model: its last {} tokens were cut",
                encoded.cut
            ));
        }
        self.clean("After text encoding", false);
        Ok(encoded)
    }

    /// Takes all pictures from noise to latents: as many at a time as the plan lets share a pass.
    fn denoise(&mut self, prompts: EncodedPrompt) -> Result<Vec<Tensor>> {
        self.log("Before model load");
        let stage = Denoise::load(&self.bundle, &self.recipe, &prompts, &self.holding)?;
        drop(prompts);
        log_memory_status("After model load", &mut self.timeline, self.observer);
        log_memory_status("Before generation", &mut self.timeline, self.observer);
        let images = self.recipe.images;
        let mut pictures = (0..images)
            .map(|image| stage.begin(image, self.recipe.seed_of(image)))
            .collect::<Result<Vec<_>>>()?;
        for group in pictures.chunks_mut(self.plan.pictures_a_pass) {
            for _ in 0..stage.steps() {
                self.interrupt.check()?;
                let start = Instant::now();
                stage.step(group)?;
                let duration = start.elapsed() / group.len() as u32;
                for picture in &*group {
                    self.observer.observe(&Event::Step {
                        image: picture.image,
                        images,
                        step: picture.step,
                        steps: stage.steps(),
                        duration,
                    });
                }
            }
        }
        drop(stage);
        self.clean("After generation", true);
        Ok(pictures.into_iter().map(|picture| picture.latents).collect())
    }

    fn decode(&mut self, latents: &[Tensor]) -> Result<Vec<SavedPicture>> {
        let mut saved = Vec::with_capacity(latents.len());
        let (timeline, observer) = (&mut self.timeline, &mut *self.observer);
        let (recipe, gallery, plan) = (&self.recipe, &mut self.gallery, &self.plan);
        let dtype = dtype_name(&self.bundle, self.holding.weight_type)?;
        let (warnings, start, device) = (&self.warnings, self.start, device::name(&self.holding.device));
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
                memory_optimizations: memory_optimizations(plan),
                generation_time: start.elapsed().as_secs_f64(),
                failures: Vec::new(),
                warnings: warnings.clone(),
                memory: MemoryReport {
                    budget: Some(plan.budget),
                    predicted_peak: Some(plan.predicted_peak),
                    measured_peak: timeline.peak(),
                    weights_read: Bytes(sd_weights::bytes_read()),
                    timeline: timeline.readings().to_vec(),
                },
                version: concat!("sd-generate ", env!("CARGO_PKG_VERSION")).to_owned(),
            };
            let picture = gallery.save(&image, &mut metadata)?;
            observer.observe(&Event::Saved(&picture));
            saved.push(picture);
            Ok(())
        };
        stage::decode(&self.bundle, latents, &self.holding, self.interrupt, on_picture)?;
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

/// The plan that a run of `request` would follow. No weight is read.
///
/// # Errors
/// The model or the request is wrong, or the budget is too small.
pub fn plan(request: &Request) -> Result<Plan> {
    let bundle = Bundle::open(&request.model.folder)?;
    let recipe = Recipe::new(request, bundle.defaults());
    stage::check_size(&bundle, recipe.size)?;
    let weight_type = device::weight_type(request.weight_type);
    let holding = Holding::new(device::open(request.device)?, weight_type, Residency::Resident);
    plan_for(request, &bundle, &recipe, &holding)
}

fn plan_for(request: &Request, bundle: &Bundle, recipe: &Recipe, holding: &Holding) -> Result<Plan> {
    let memory = memory_info();
    let budget = request.memory.unwrap_or_else(|| default_budget(&memory));
    let room = Bytes(memory.system_available.0 + memory.process.0);
    Plan::new(bundle, recipe, holding, budget, room)
}

/// What is available now less a margin for everybody else.
fn default_budget(memory: &MemoryInfo) -> Bytes {
    const LEAST_MARGIN: u64 = 512 << 20;
    let available = memory.system_available.0 + memory.process.0;
    Bytes(available.saturating_sub(LEAST_MARGIN.max(available / 10)))
}

/// What streaming costs, and what would avoid it.
fn streaming_warning(plan: &Plan) -> String {
    /// Bytes a second of a good solid-state disk.
    const DISK: f64 = 2.0 * (1_u64 << 30) as f64;
    let each_step = plan.read_each_step();
    format!(
        "the model does not fit in {}: {each_step} are read in every step, which takes at least {:.1} s from a disk of 2 \
         GB/s; --memory {:.1}GB would avoid it",
        plan.budget,
        each_step.0 as f64 / DISK,
        (plan.resident_budget.gigabytes() * 10.0).ceil() / 10.0,
    )
}

/// What the run does to need less memory, for the metadata.
fn memory_optimizations(plan: &Plan) -> Vec<String> {
    let mut done = [
        "text encoders streamed and dropped",
        "modulations computed once, their weights dropped",
        "attention in chunks",
        "transformer dropped before decoding",
        "exact decoding by bands",
    ]
    .map(str::to_owned)
    .to_vec();
    if plan.streams() {
        let streamed = plan.blocks - plan.resident_blocks;
        done.push(format!("{streamed} of {} blocks streamed", plan.blocks));
    }
    done
}

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
