//! One run, from a request to saved pictures.

use candle_core::{Device, Tensor};
use jiff::ZonedDateTime;
use sd_memory::Timeline;
use sd_weights::{Residency, WeightType};

use crate::bundle::Bundle;
use crate::event::{Event, Interrupt, Observer, SavedPicture};
use crate::identity::ModelIdentity;
use crate::memory::{cleanup_memory, log_memory_status};
use crate::places::Places;
use crate::prompt_cache::PromptCache;
use crate::recipe::Recipe;
use crate::request::{ModelChoice, Request};
use crate::resume::{ClaimedRun, Journal, RunName};
use crate::save::{Gallery, MemoryReport, Metadata, RgbImage};
use crate::stage::{self, Denoise, EncodedPrompt};
use crate::{Result, device};

/// Draws what `request` asks for and saves it. `observer` is told what happens; `interrupt` stops the run
/// between two pieces of work.
///
/// # Errors
/// Anything that [`crate::Error`] lists. Pictures that were saved before stay, and nothing is half-written. What
/// is worth going on with is kept for [`resume()`], and the observer told so.
pub fn generate(
    request: &Request,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Vec<SavedPicture>> {
    run(request, None, observer, interrupt)
}

/// Goes on with a run that was interrupted, as [`generate()`] would have, and gives all of its pictures, also those
/// that were saved before. `model` is the one that [`ClaimedRun::model`] names.
///
/// # Errors
/// As [`generate()`], and where the model or the device is no longer what it was when the run began.
pub fn resume(
    claimed: ClaimedRun,
    model: ModelChoice,
    places: &Places,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Vec<SavedPicture>> {
    let request = claimed.request(model, places);
    run(&request, Some(claimed), observer, interrupt)
}

fn run(
    request: &Request,
    claimed: Option<ClaimedRun>,
    observer: &mut dyn Observer,
    interrupt: &Interrupt,
) -> Result<Vec<SavedPicture>> {
    let outcome = Run::open(request, claimed, observer, interrupt).and_then(|mut run| {
        let outcome = run.draw();
        run.end(outcome)
    });
    // Whatever the run held is gone by now, also after an error.
    cleanup_memory(true);
    outcome
}

/// A run between its stages.
struct Run<'a> {
    timeline: Timeline,
    observer: &'a mut dyn Observer,
    interrupt: &'a Interrupt,
    bundle: Bundle,
    recipe: Recipe,
    gallery: Gallery,
    journal: Journal,
    prompts: PromptCache,
    device: Device,
    weight_type: WeightType,
}

impl<'a> Run<'a> {
    /// Everything that can fail before a weight is read.
    fn open(
        request: &Request,
        claimed: Option<ClaimedRun>,
        observer: &'a mut dyn Observer,
        interrupt: &'a Interrupt,
    ) -> Result<Self> {
        let mut timeline = Timeline::start();
        log_memory_status("Startup", &mut timeline, observer);
        let bundle = Bundle::open(&request.model.folder)?;
        let recipe = Recipe::new(request, bundle.defaults());
        stage::check_size(&bundle, recipe.size)?;
        let device = device::open(request.device)?;
        let model = ModelIdentity::of(&bundle)?;
        let name = match &claimed {
            Some(claimed) => claimed.name().clone(),
            None => RunName::new(&ZonedDateTime::now()),
        };
        let mut gallery = Gallery::open(&recipe.output, &name)?;
        let prompts = PromptCache::new(&request.places, &bundle, &model, &name);
        let (journal, warning) = match claimed {
            Some(claimed) => (
                Journal::go_on(claimed, &bundle, &model, &device, &mut gallery)?,
                None,
            ),
            None => Journal::begin(name, request, &recipe, &device, model),
        };
        observer.observe(&Event::Started { recipe: &recipe });
        journal.tell(observer);
        let mut run = Self {
            timeline,
            observer,
            interrupt,
            bundle,
            recipe,
            gallery,
            journal,
            prompts,
            device,
            weight_type: device::weight_type(request.weight_type),
        };
        if let Some(warning) = warning {
            run.warn(warning);
        }
        Ok(run)
    }

    /// The stages, in order. Each drops its networks before the next begins.
    fn draw(&mut self) -> Result<Vec<SavedPicture>> {
        if !self.journal.is_denoised() {
            let prompts = self.encode()?;
            self.denoise(&prompts)?;
        }
        if !self.journal.unsaved().is_empty() {
            self.decode()?;
        }
        Ok(self.journal.saved())
    }

    /// Closes the journal: what was not finished is kept, if there is a use in going on with it.
    fn end(self, outcome: Result<Vec<SavedPicture>>) -> Result<Vec<SavedPicture>> {
        let (name, duration) = (self.journal.name().clone(), self.journal.duration());
        if self.journal.close(outcome.as_ref().err()) {
            self.observer.observe(&Event::Kept { run: name.id() });
        }
        if outcome.is_ok() {
            self.observer.observe(&Event::Finished { duration });
        }
        outcome
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
        let encoded = self.prompts.encode(
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

    fn denoise(&mut self, prompts: &EncodedPrompt) -> Result<()> {
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
        for image in self.journal.unsaved() {
            let from = match self.journal.denoised(image) {
                Some(denoised) => denoised,
                None => stage.noise(self.recipe.seed_of(image))?,
            };
            let (journal, observer) = (&mut self.journal, &mut *self.observer);
            stage.run(from, self.interrupt, |step, latents, duration| {
                observer.observe(&Event::Step {
                    image,
                    images,
                    step,
                    steps,
                    duration,
                });
                journal.record(image, step, latents);
                journal.commit_if_due(observer);
            })?;
        }
        drop(stage);
        self.clean("After generation", true);
        Ok(())
    }

    fn decode(&mut self) -> Result<()> {
        let unsaved = self.journal.unsaved().into_iter();
        let (images, latents): (Vec<usize>, Vec<Tensor>) = unsaved
            .filter_map(|image| Some((image, self.journal.denoised(image)?.latents)))
            .unzip();
        let (timeline, observer) = (&mut self.timeline, &mut *self.observer);
        let (recipe, gallery, journal) = (&self.recipe, &mut self.gallery, &mut self.journal);
        let dtype = dtype_name(&self.bundle, self.weight_type)?;
        let device = device::name(&self.device);
        let on_picture = |position: usize, image: RgbImage| {
            let index = images[position];
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
                started: String::new(),
                generation_time: journal.duration().as_secs_f64(),
                failures: Vec::new(),
                warnings: journal.warnings().to_vec(),
                memory: MemoryReport {
                    budget: None,
                    predicted_peak: None,
                    measured_peak: timeline.peak(),
                    timeline: timeline.readings().to_vec(),
                },
                version: format!("sd-generate {}", crate::VERSION),
            };
            let picture = gallery.save(&image, &mut metadata)?;
            journal.record_saved(&picture, observer);
            observer.observe(&Event::Saved(&picture));
            Ok(())
        };
        stage::decode(
            &self.bundle,
            &latents,
            &self.device,
            self.weight_type,
            self.interrupt,
            on_picture,
        )?;
        self.clean("Complete", true);
        Ok(())
    }

    fn log(&mut self, label: &str) {
        log_memory_status(label, &mut self.timeline, self.observer);
    }

    fn clean(&mut self, label: &str, aggressive: bool) {
        cleanup_memory(aggressive);
        self.log(label);
    }

    fn warn(&mut self, warning: String) {
        self.journal.warn(warning, self.observer);
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
