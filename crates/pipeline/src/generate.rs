//! One run, from a request to saved pictures.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;
use jiff::ZonedDateTime;
use sd_memory::{Bytes, MemoryInfo, Monitor, Watcher, memory_info};
use sd_weights::{Holding, Relief, Residency, WeightType};

use crate::bundle::Bundle;
use crate::event::{Event, Interrupt, Observer, SavedPicture};
use crate::identity::ModelIdentity;
use crate::memory::{self, cleanup_memory, log_cleanup, log_memory_status};
use crate::places::Places;
use crate::plan::Plan;
use crate::prompt_cache::PromptCache;
use crate::recipe::Recipe;
use crate::request::{ModelChoice, Request};
use crate::resume::{ClaimedRun, Journal, RunName};
use crate::save::{Gallery, MemoryReport, Metadata, RgbImage};
use crate::source_image::SourceImage;
use crate::stage::{self, Canvas, Denoise, EncodedPrompt, Mask, Picture};
use crate::{Error, Result, device, device_budget, tighter};

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
    let monitor = memory::monitor();
    let outcome = Run::open(request, claimed, &monitor, observer, interrupt).and_then(|mut run| {
        let outcome = run.draw();
        run.end(outcome)
    });
    // Whatever the run held is gone by now, also after an error.
    cleanup_memory(true);
    observer.observe(&Event::Measured {
        timeline: &monitor.timeline(),
    });
    // Its curve is the last that the run holds.
    drop(monitor);
    cleanup_memory(true);
    outcome
}

/// A run between its stages.
struct Run<'a> {
    monitor: &'a Monitor,
    observer: &'a mut dyn Observer,
    interrupt: &'a Interrupt,
    bundle: Arc<Bundle>,
    recipe: Recipe,
    gallery: Gallery,
    journal: Journal,
    prompts: PromptCache,
    holding: Holding,
    plan: Plan,
}

impl<'a> Run<'a> {
    /// Everything that can fail before a weight is read.
    fn open(
        request: &Request,
        claimed: Option<ClaimedRun>,
        monitor: &'a Monitor,
        observer: &'a mut dyn Observer,
        interrupt: &'a Interrupt,
    ) -> Result<Self> {
        monitor.stage("open");
        log_cleanup("Startup", false, monitor, observer);
        let Planned {
            bundle,
            recipe,
            holding,
            plan,
            of_host,
        } = Planned::of(request)?;
        device_budget::bound(&holding.device, plan.budget)?;
        let watched = holding.device.clone();
        monitor.watch_device(move || device_budget::info(&watched));
        let host_memory = device_budget::host_memory(&holding.device, request.host_memory, of_host);
        let model = ModelIdentity::of(&bundle)?;
        let name = match &claimed {
            Some(claimed) => claimed.name().clone(),
            None => RunName::new(&ZonedDateTime::now()),
        };
        let mut gallery = Gallery::open(&recipe.output, &name)?;
        let prompts = PromptCache::new(&request.places, &bundle, &model, &name);
        let (journal, warning) = match claimed {
            Some(claimed) => (
                Journal::go_on(claimed, &bundle, &model, &holding.device, &mut gallery)?,
                None,
            ),
            None => Journal::begin(name, request, &recipe, &holding.device, model),
        };
        observer.observe(&Event::Started { recipe: &recipe });
        observer.observe(&Event::Planned { plan: &plan });
        journal.tell(observer);
        let mut run = Self {
            monitor,
            observer,
            interrupt,
            bundle: Arc::new(bundle),
            recipe,
            gallery,
            journal,
            prompts,
            holding: Holding {
                residency: plan.residency(),
                page_cache: plan.page_cache(),
                host_memory,
                relief: relief(),
                ..holding
            },
            plan,
        };
        if let Some(warning) = warning {
            run.warn(warning);
        }
        if run.plan.streams() {
            run.warn(streaming_warning(&run.plan, &run.holding));
        }
        Ok(run)
    }

    /// The stages, in order. Each drops its networks before the next begins.
    fn draw(&mut self) -> Result<Vec<SavedPicture>> {
        if !self.journal.is_denoised() {
            self.with_room(|run| {
                let prompts = run.encode()?;
                run.denoise(prompts)
            })?;
        }
        if !self.journal.unsaved().is_empty() {
            self.with_room(Self::decode)?;
        }
        Ok(self.journal.saved())
    }

    /// Runs a stage. Where the device turns out to have less room than was planned with, it starts again under a tighter
    /// plan, from the last step.
    fn with_room<T>(&mut self, stage: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        tighter::until_it_fits(self, stage, Self::tighten)
    }

    /// Gives back everything and plans anew with less; false where the plan was as small as can be.
    fn tighten(&mut self) -> Result<bool> {
        self.clean("After the device was full", true);
        let device = &self.holding.device;
        let available = device_budget::available(device)?.map(|bytes| device_budget::less_margin(bytes.0));
        let Some(budget) = tighter::budget(&self.plan, available) else {
            return Ok(false);
        };
        let room = room(&memory_info());
        let plan = Plan::new(&self.bundle, &self.recipe, &self.holding, budget, room)?;
        device_budget::bound(device, plan.budget)?;
        self.holding.residency = plan.residency();
        self.holding.page_cache = plan.page_cache();
        self.plan = plan;
        self.warn(format!(
            "the device had no room left: the stage starts again within {budget}"
        ));
        Ok(true)
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
            clip_skip,
            ..
        } = &self.recipe;
        let both = [negative_prompt.as_str(), prompt.as_str()];
        let texts = stage::texts(&self.bundle, *guidance_scale);
        let prompts = &both[both.len() - texts..];
        self.monitor.stage("encode");
        let mut encoded =
            self.prompts
                .encode(&self.bundle, prompts, *clip_skip, &self.holding, self.interrupt)?;
        if texts > 1 && negative_prompt.is_empty() && self.bundle.zeros_without_negative_prompt {
            encoded = encoded.without(0)?;
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

    /// What the pictures are drawn over, if anything.
    fn canvas(&mut self) -> Result<Option<Canvas>> {
        let Some(over) = self.recipe.over.clone() else {
            return Ok(None);
        };
        self.monitor.stage("encode picture");
        let image = SourceImage::open(&over.image)?.at(self.recipe.size);
        let mask = over.mask.as_deref().map(|path| self.mask(path)).transpose()?;
        let canvases = stage::canvases(&self.bundle, &[image], mask.as_ref(), &self.holding)?;
        self.clean("After picture encoding", false);
        Ok(canvases.into_iter().next())
    }

    /// The mask in the file at `path`.
    fn mask(&self, path: &Path) -> Result<Mask> {
        let mask = SourceImage::open(path)?;
        let size = self.recipe.size;
        let (found, wanted) = (mask.sides(), (size.width(), size.height()));
        if found != wanted {
            return Err(Error::MaskSize {
                path: path.to_owned(),
                found,
                wanted,
            });
        }
        Ok(Mask::new(size.width(), mask.mask()))
    }

    /// Takes all pictures from noise, or from where they were left, to latents: as many at a time as the plan lets
    /// share a pass.
    fn denoise(&mut self, prompts: EncodedPrompt) -> Result<()> {
        let canvas = self.canvas()?;
        self.monitor.stage("load");
        self.clean("Before model load", false);
        let bundle = self.bundle.clone();
        let stage = Denoise::load(&bundle, &self.recipe, &prompts, &self.holding)?;
        drop(prompts);
        self.clean("After model load", false);
        self.monitor.stage("denoise");
        log_memory_status("Before generation", self.monitor, self.observer);
        let mut waiting = self.journal.unsaved();
        while !waiting.is_empty() {
            let mut group = self.next_group(&stage, canvas.as_ref(), &mut waiting)?;
            while group.evaluations() < stage.sampler().evaluations() {
                self.interrupt.check()?;
                self.step(&stage, &mut group)?;
            }
        }
        drop(stage);
        self.clean("After generation", true);
        Ok(())
    }

    /// The next of the pictures that wait which have come equally far, as many as may share a pass.
    fn next_group(
        &self,
        stage: &Denoise<'_>,
        canvas: Option<&Canvas>,
        waiting: &mut Vec<usize>,
    ) -> Result<Group> {
        let mut group = Group::default();
        while let Some(&image) = waiting.first() {
            let seed = self.recipe.seed_of(image);
            let picture = match self.journal.progress(image) {
                Some(progress) => stage.go_on(seed, canvas, progress)?,
                None => stage.begin(seed, canvas)?,
            };
            let is_as_far = picture.progress.evaluations == group.evaluations();
            let fits = group.images.len() < self.plan.pictures_a_pass && is_as_far;
            if !group.images.is_empty() && !fits {
                break;
            }
            waiting.remove(0);
            group.images.push(image);
            group.pictures.push(picture);
        }
        Ok(group)
    }

    /// Takes a group one step further, in as many evaluations as it has, and keeps what it has come to.
    fn step(&mut self, stage: &Denoise<'_>, group: &mut Group) -> Result<()> {
        let start = Instant::now();
        let sampler = stage.sampler();
        let steps_before = sampler.steps_done(group.evaluations());
        while sampler.steps_done(group.evaluations()) == steps_before {
            stage.step(&mut group.pictures)?;
        }
        let duration = start.elapsed() / group.images.len() as u32;
        for (&image, picture) in group.images.iter().zip(&group.pictures) {
            self.observer.observe(&Event::Step {
                image,
                images: self.recipe.images,
                step: sampler.steps_done(picture.progress.evaluations),
                steps: sampler.steps(),
                duration,
            });
            self.journal.record(image, &picture.progress, sampler);
        }
        self.journal.commit_if_due(self.observer);
        self.tell_of_what_was_given_up();
        Ok(())
    }

    /// Says so where memory became short and blocks were given up between two turns.
    fn tell_of_what_was_given_up(&mut self) {
        let given = Bytes(self.holding.relief.take_given());
        if given > Bytes(0) {
            self.warn(format!(
                "memory is short on this machine: {given} of weights were given up and are read in every step from now on"
            ));
        }
    }

    fn decode(&mut self) -> Result<()> {
        let unsaved = self.journal.unsaved().into_iter();
        let (images, latents): (Vec<usize>, Vec<Tensor>) = unsaved
            .filter_map(|image| Some((image, self.journal.progress(image)?.trajectory.latents)))
            .unzip();
        let (monitor, observer) = (self.monitor, &mut *self.observer);
        monitor.stage("decode");
        let (recipe, gallery, journal) = (&self.recipe, &mut self.gallery, &mut self.journal);
        let plan = &self.plan;
        let dtype = dtype_name(&self.bundle, self.holding.weight_type)?;
        let holding = &self.holding;
        let device = device::name(&holding.device);
        let schedule = recipe.sampler(&self.bundle)?.schedule();
        let on_picture = |position: usize, image: RgbImage| {
            let index = images[position];
            log_memory_status("After decoding", monitor, observer);
            let mut metadata = Metadata {
                prompt: recipe.prompt.clone(),
                negative_prompt: recipe.negative_prompt.clone(),
                seed: recipe.seed_of(index),
                steps: recipe.steps,
                guidance_scale: recipe.guidance_scale,
                size: recipe.size,
                sampler: recipe.sampler,
                schedule,
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
                pipeline_type: self.bundle.family.pipeline_type().to_owned(),
                memory_optimizations: memory_optimizations(plan),
                started: String::new(),
                generation_time: journal.duration().as_secs_f64(),
                failures: Vec::new(),
                warnings: journal.warnings().to_vec(),
                memory: {
                    let report =
                        MemoryReport::new(Some(plan.budget), Some(plan.predicted_peak), monitor.timeline());
                    // Of a GPU the budget is its own memory, and so is the peak.
                    match device_budget::peak(&holding.device) {
                        Some(measured_peak) => MemoryReport {
                            measured_peak,
                            ..report
                        },
                        None => report,
                    }
                },
                version: format!("sd-generate {}", crate::VERSION),
            };
            let picture = gallery.save(&image, &mut metadata)?;
            journal.record_saved(&picture, observer);
            observer.observe(&Event::Saved(&picture));
            Ok(())
        };
        stage::decode(&self.bundle, &latents, holding, self.interrupt, on_picture)?;
        self.clean("Complete", true);
        Ok(())
    }

    fn clean(&mut self, label: &str, aggressive: bool) {
        device_budget::release(&self.holding.device);
        log_cleanup(label, aggressive, self.monitor, self.observer);
    }

    fn warn(&mut self, warning: String) {
        self.journal.warn(warning, self.observer);
    }
}

/// Asks between every two blocks whether others on this machine have come to be short of memory.
fn relief() -> Relief {
    let watcher = Watcher::start();
    Relief::watching(move || watcher.shortfall().0)
}

/// Pictures that go through the steps together.
#[derive(Debug, Default)]
struct Group {
    images: Vec<usize>,
    pictures: Vec<Picture>,
}

impl Group {
    /// Evaluations of the network that all of them have behind them.
    fn evaluations(&self) -> usize {
        self.pictures
            .first()
            .map_or(0, |picture| picture.progress.evaluations)
    }
}

/// The plan that a run of `request` would follow. No weight is read.
///
/// # Errors
/// The model or the request is wrong, or the budget is too small.
pub fn plan(request: &Request) -> Result<Plan> {
    Ok(Planned::of(request)?.plan)
}

/// A request with everything that is known of it before a weight is read.
struct Planned {
    bundle: Bundle,
    recipe: Recipe,
    holding: Holding,
    plan: Plan,
    /// What of the host's memory a run may have where nobody says.
    of_host: Bytes,
}

impl Planned {
    fn of(request: &Request) -> Result<Self> {
        let bundle = Bundle::open(&request.model.folder)?;
        let init_size = match &request.init {
            Some(init) => SourceImage::open(&init.image)?.nearest_size(),
            None => None,
        };
        let recipe = Recipe::new(request, &bundle, init_size)?;
        stage::check_size(&bundle, recipe.size)?;
        let weight_type = device::weight_type(request.weight_type);
        let holding = Holding::new(device::open(request.device)?, weight_type, Residency::Resident);
        let memory = memory_info();
        let room = room(&memory);
        let of_host = device_budget::less_margin(room.0);
        let default = match device_budget::available(&holding.device)? {
            Some(of_device) => device_budget::less_margin(of_device.0),
            None => of_host,
        };
        let budget = request.memory.unwrap_or(default);
        let plan = Plan::new(&bundle, &recipe, &holding, budget, room)?;
        Ok(Self {
            bundle,
            recipe,
            holding,
            plan,
            of_host,
        })
    }
}

/// What this process may come to have without anybody else having less.
fn room(memory: &MemoryInfo) -> Bytes {
    Bytes(memory.system_available.0 + memory.process.0)
}

/// What streaming costs, and what would avoid it.
fn streaming_warning(plan: &Plan, holding: &Holding) -> String {
    /// Bytes a second of a good solid-state disk.
    const DISK: f64 = 2.0 * (1_u64 << 30) as f64;
    let each_step = plan.read_each_step();
    let cost = if holding.host_memory.limit() >= each_step.0 {
        format!("{each_step} are copied to the device in every step")
    } else {
        format!(
            "{each_step} are read in every step, which takes at least {:.1} s from a disk of 2 GB/s",
            each_step.0 as f64 / DISK
        )
    };
    format!(
        "the model does not fit in {}: {cost}; --memory {:.1}GB would avoid it",
        plan.budget,
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

/// The type that the denoising network's weights are held in, as the metadata writes it.
fn dtype_name(bundle: &Bundle, weight_type: WeightType) -> Result<String> {
    Ok(match weight_type {
        WeightType::F32 => "f32".to_owned(),
        WeightType::Bf16 => "bf16".to_owned(),
        WeightType::AsStored => match bundle.checkpoint(bundle.denoiser.component())?.main_type() {
            Some(stored) => format!("{stored:?}").to_lowercase(),
            None => "none".to_owned(),
        },
    })
}
