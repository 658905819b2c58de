//! A run: the order of its stages, what it holds between them, and its events.

mod batch;
mod caching;
mod denoising;
mod init_image;
mod inputs;
mod messages;
mod model_pass;
mod networks;
mod planned;
mod report;
mod saving;
mod upscaling;

use std::sync::Arc;

use sd_memory::{Bytes, Monitor, Watcher};
use sd_weights::{MemoryPressure, with_autorelease_pool};

use init_image::LoadedInitImage;
pub(crate) use model_pass::ModelPass;
pub(crate) use planned::opened_and_planned;
use planned::{Looked, Planned};
pub use planned::{PlannedRequest, Planner, plan, planned};
use report::Report;
use upscaling::Upscaling;

use crate::bundle::Bundle;
use crate::event::{Event, Interrupt, Observer, SavedImage};
use crate::identity::{self, ModelIdentity};
use crate::loaded::Loaded;
use crate::memory::log_cleanup;
use crate::plan::{Phase, process_bytes};
use crate::prompt_cache::PromptCache;
use crate::recipe::DenoisingRange;
use crate::request::Request;
use crate::request_cache::RequestCache;
use crate::resume::{ClaimedRun, Journal, LaterRequest, RunName};
use crate::save::{Gallery, ImageNames, Metadata, RgbImage};
use crate::stage::Progress;
use crate::user_dirs::UserDirs;
use crate::{Error, Result, device_budget, oom_retry};
use networks::{Kept, Networks};

/// Where a run comes from.
#[derive(Debug)]
pub(crate) enum RunOrigin {
    /// It is new, and `later` requests follow it.
    New { later: Vec<LaterRequest> },
    /// It was interrupted before.
    Resumed(Box<ClaimedRun>),
}

/// A run in progress.
pub(crate) struct Run<'a> {
    report: Report<'a>,
    interrupt: &'a Interrupt,
    passes: Vec<ModelPass>,
    /// The prompt cache of each model pass.
    prompts: Vec<PromptCache>,
    /// The cache for the next request, if there is one.
    cache: Option<RequestCache>,
    /// The initial image of the first pass, for image-to-image.
    init_image: Option<Arc<LoadedInitImage>>,
    upscaling: Option<Upscaling>,
    /// The index of the current model pass.
    at: usize,
    gallery: Gallery,
    journal: Journal,
    /// Whether every failure of an optional part ends the run.
    is_strict: bool,
    /// The predicted peak of the whole run.
    predicted: Bytes,
    /// The unused part of the budget, while device memory is limited to the prediction.
    spare: Option<Bytes>,
    /// The reading to take once the network that was loaded last has its weights, after its first step.
    reading_after_load: Option<&'static str>,
    /// The images of the group that were saved, with their metadata, which gets the memory of the whole group.
    saved_of_group: Vec<(SavedImage, Metadata)>,
    /// What failed on the device and was noticed in a cleanup.
    device_failure: Option<Error>,
    /// The folders of the user's caches.
    user_dirs: UserDirs,
}

impl<'a> Run<'a> {
    /// Opens a run: everything that can fail before a weight is read. What is `loaded` and not used by the
    /// run is dropped.
    pub(crate) fn open(
        request: &Request,
        origin: RunOrigin,
        loaded: &mut Loaded,
        monitor: &'a Monitor,
        observer: &'a mut dyn Observer,
        interrupt: &'a Interrupt,
    ) -> Result<Self> {
        log_cleanup("Startup", false, monitor, observer);
        let mut report = Report {
            monitor,
            observer,
            tells_memory: true,
        };
        report.stage("open", None);
        let mut planned = Planned::of(request, Looked::AtValues, loaded)?;
        // The plan has room for those of its own models.
        loaded.tokenizers().drop_unused();
        let cache = loaded.cache().cloned();
        let device = planned.passes[0].weight_options.device.clone();
        let watched = device.clone();
        monitor.watch_device(move || device_budget::info(&watched));
        let host_memory = device_budget::host_memory(&device, request.host_memory, planned.of_host);
        let memory_pressure = watched_memory_pressure(cache.clone());
        for pass in &mut planned.passes {
            pass.weight_options.host_memory = host_memory.clone();
            pass.weight_options.memory_pressure = memory_pressure.clone();
        }
        let first = &planned.passes[0];
        let plan = first.timed(planned.plan(), &request.user_dirs);
        let process = process_bytes(&first.bundle, &first.weight_options);
        device_budget::bound(&device, plan.predicted_peak.min(plan.budget), process)?;
        let (passes, upscaling, failed) = (planned.passes, planned.upscaling, planned.failed);
        let init_image = planned.init_image.map(Arc::new);
        let of_loras = messages::of_loras(&passes[0]);
        let warnings = loaded.fallback().map(str::to_owned).into_iter();
        let warnings = warnings.chain(messages::of_size(&passes[0])).chain(of_loras);
        let models: Result<Vec<ModelIdentity>> = passes
            .iter()
            .map(|pass| ModelIdentity::of(&pass.bundle))
            .collect();
        let models = models?;
        let upscaler = upscaling
            .as_ref()
            .and_then(|upscaling| upscaling.network.as_deref());
        let inputs = identity::inputs(&passes[0].recipe, upscaler)?;
        let name = match &origin {
            RunOrigin::Resumed(claimed) => claimed.name().clone(),
            RunOrigin::New { .. } => request
                .run_name
                .clone()
                .unwrap_or_else(|| RunName::new(&crate::clock::now())),
        };
        let recipe = &passes[0].recipe;
        let names = ImageNames {
            names: request.file_names.clone(),
            run: name.clone(),
            seeds: recipe.seeds.clone(),
            model: recipe.model.clone(),
            images: recipe.images,
        };
        let mut gallery = Gallery::open(&recipe.output, names)?;
        let prompts = passes
            .iter()
            .zip(&models)
            .map(|(pass, model)| {
                let recent = cache.as_ref().map(|cache| cache.prompts.clone());
                PromptCache::new(&request.user_dirs, &pass.bundle, model, &name, recent)
            })
            .collect();
        let (mut journal, warning) = match origin {
            RunOrigin::Resumed(claimed) => (
                Journal::resume(*claimed, &passes, &models, &inputs, &mut gallery)?,
                None,
            ),
            RunOrigin::New { later } => Journal::begin(name, request, &passes, models, inputs, later)?,
        };
        report.observer.observe(&Event::Started { recipe });
        report.observer.observe(&Event::Planned { plan: &plan });
        journal.tell(report.observer);
        let mut run = Self {
            report,
            interrupt,
            prompts,
            cache,
            init_image,
            upscaling,
            at: journal.pass(),
            passes,
            gallery,
            journal,
            is_strict: request.strict,
            predicted: plan.predicted_peak,
            spare: Some(plan.budget),
            reading_after_load: None,
            saved_of_group: Vec::new(),
            device_failure: None,
            user_dirs: request.user_dirs.clone(),
        };
        if let Some(warning) = warning {
            run.warn(warning);
        }
        for warning in warnings {
            run.warn(warning);
        }
        for (what, error) in &failed {
            run.leave_out(what, error);
        }
        let streaming = run.passes.iter().filter(|pass| pass.plan.streams());
        for warning in streaming.map(messages::streaming_warning).collect::<Vec<_>>() {
            run.warn(warning);
        }
        Ok(run)
    }

    /// Generates the images group by group: each is denoised, decoded and saved before the next is begun.
    pub(crate) fn generate(&mut self) -> Result<Vec<SavedImage>> {
        // Networks that stay between groups borrow from these.
        let bundles: Vec<Arc<Bundle>> = self.passes.iter().map(|pass| pass.bundle.clone()).collect();
        let (mut kept, mut networks) = (Kept::default(), Networks::default());
        while let Some(group) = self.journal.next_group(self.images_a_group()) {
            self.report.monitor.begin_group();
            self.generate_group(&group, &bundles, &mut kept, &mut networks)?;
            self.report.tells_memory = false;
        }
        let mut saved = self.journal.saved();
        saved.retain(SavedImage::is_there);
        Ok(saved)
    }

    /// Runs all model passes for a group of images, from their stored state if there is one.
    fn generate_group<'b>(
        &mut self,
        group: &[usize],
        bundles: &'b [Arc<Bundle>],
        kept: &mut Kept,
        networks: &mut Networks<'b>,
    ) -> Result<()> {
        self.at = self.journal.pass();
        // The images of the pass before.
        let mut generated: Vec<(usize, RgbImage)> = Vec::new();
        while !self.journal.unsaved(group).is_empty() {
            match self.run_pass(group, &generated, &bundles[self.at], kept, networks) {
                Ok(next) => generated = next,
                // The finished images of the pass before are saved rather than lost.
                Err(error) if !generated.is_empty() && self.can_do_without(&error) => {
                    self.leave_out(&messages::refiner(&self.pass().recipe.model), &error);
                    self.clean("After the refiner failed", true);
                    self.passes.truncate(self.at);
                    self.at -= 1;
                    self.finish_generated(&generated)?;
                }
                Err(error) => return Err(error),
            }
        }
        self.clean_after_group(networks);
        Ok(())
    }

    /// Runs the stages of the current model pass on the images that the pass before has `generated`. Returns
    /// the decoded images if the next pass refines them. Unless the plan keeps networks in memory, each stage
    /// drops its own before the next begins.
    fn run_pass<'b>(
        &mut self,
        group: &[usize],
        generated: &[(usize, RgbImage)],
        bundle: &'b Bundle,
        kept: &mut Kept,
        networks: &mut Networks<'b>,
    ) -> Result<Vec<(usize, RgbImage)>> {
        let is_denoised = self.at == self.journal.pass() && self.journal.is_denoised(group);
        if !is_denoised {
            self.with_retry(|run| {
                let outcome = run.denoise(group, generated, bundle, kept, networks);
                run.limit_cache_beside(Phase::Decoding);
                networks.drop_unless(outcome.is_ok() && run.networks_stay());
                outcome
            })?;
            let is_refined = self.at > 0;
            self.clean(
                if is_refined {
                    "After refining"
                } else {
                    "After generation"
                },
                true,
            );
        }
        let Some(next) = self.passes.get(self.at + 1) else {
            self.with_retry(|run| {
                let outcome = run.finish(group, bundle, networks);
                run.limit_cache_between_networks();
                networks.drop_unless(outcome.is_ok() && run.networks_stay());
                outcome
            })?;
            return Ok(Vec::new());
        };
        let mut generated = Vec::new();
        if matches!(next.recipe.denoising_range, DenoisingRange::Start(_)) {
            let (images, latents) = self.latents(group);
            let begun = latents.into_iter().map(Progress::from_latents);
            self.journal.hand_over(images.into_iter().zip(begun).collect());
        } else {
            generated = self.with_retry(|run| run.decode(group))?;
        }
        self.at += 1;
        Ok(generated)
    }

    /// The size of the next group.
    fn images_a_group(&self) -> usize {
        let groups = self.passes.iter().map(|pass| pass.plan.groups.images_a_group);
        groups.min().unwrap_or(1)
    }

    /// Whether the networks of the current pass stay in memory between groups.
    fn networks_stay(&self) -> bool {
        self.pass().plan.groups.networks_stay && !self.journal.is_complete()
    }

    /// Frees what a group held; after the last group, everything.
    fn clean_after_group(&mut self, networks: &mut Networks<'_>) {
        if self.journal.is_complete() {
            self.limit_cache_between_networks();
            networks.drop_unless(false);
            self.report.tells_memory = true;
            self.clean("Complete", true);
        } else {
            self.clean("After a group", true);
        }
        self.complete_metadata();
    }

    /// Whether the run continues without a part that failed with `error`.
    fn can_do_without(&self, error: &Error) -> bool {
        let is_its_own = matches!(
            error,
            Error::Weights(_) | Error::Model(_) | Error::Tensor(_) | Error::NotFinite { .. }
        );
        is_its_own && !self.is_strict
    }

    /// Closes the journal. An unfinished run is kept if it can be resumed.
    pub(crate) fn end(mut self, outcome: Result<Vec<SavedImage>>) -> Result<Vec<SavedImage>> {
        if let Err(error) = &outcome {
            self.report.tells_memory = true;
            let is_interrupted = matches!(error, Error::Interrupted);
            self.clean(
                if is_interrupted {
                    "After the interruption"
                } else {
                    "After an error"
                },
                true,
            );
            self.complete_metadata();
        }
        let (name, duration) = (self.journal.name().clone(), self.journal.duration());
        if self.journal.close(outcome.as_ref().err()) {
            self.report.observer.observe(&Event::Kept { run: name.id() });
        }
        if outcome.is_ok() {
            self.report.observer.observe(&Event::Finished { duration });
        }
        outcome
    }

    fn pass(&self) -> &ModelPass {
        &self.passes[self.at]
    }

    /// Runs a stage. If the device runs out of memory, the stage runs again with a smaller plan, from the
    /// last step.
    fn with_retry<T>(&mut self, mut stage: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        let stage = |run: &mut Self| {
            let outcome = with_autorelease_pool(|| stage(run));
            // Whatever the stage made of what a failure left.
            run.device_failure.take().map_or(outcome, Err)
        };
        oom_retry::until_it_fits(self, stage, Self::tighten)
    }

    /// Frees everything and makes a smaller plan; false if the plan cannot be made smaller.
    fn tighten(&mut self) -> Result<bool> {
        self.forget_cached();
        self.clean("After the device was full", true);
        // The stage runs again, whatever failed in it.
        self.device_failure = None;
        let pass = &mut self.passes[self.at];
        let device = pass.weight_options.device.clone();
        let available = device_budget::available(&device)?.map(device_budget::less_margin);
        // If the stage needs more than predicted and the device has it, use the spare part of the budget.
        let spare = self.spare.take();
        if let Some(budget) = spare {
            let process = process_bytes(&pass.bundle, &pass.weight_options);
            device_budget::bound(&device, budget, process)?;
            let predicted = pass.plan.predicted_peak;
            if predicted < budget && available.is_none_or(|available| predicted < available) {
                self.warn(format!(
                    "the stage took more than was predicted: it starts again within the whole budget of {budget}"
                ));
                return Ok(true);
            }
        }
        let Some(budget) = oom_retry::budget(&pass.plan, available) else {
            return Ok(spare.is_some());
        };
        let images_a_group = pass.plan.groups.images_a_group;
        pass.replan(budget)?;
        let images_a_group = images_a_group.min(pass.plan.groups.images_a_group);
        pass.plan = pass.plan.clone().in_groups_of(images_a_group);
        self.warn(format!(
            "the device ran out of memory: the stage starts again within {budget}"
        ));
        Ok(true)
    }

    /// Begins a stage of the current model pass.
    fn begin_stage(&mut self, name: &str) {
        let pass = &self.passes[self.at];
        let expected = pass.plan.expected_reads(name, &pass.weight_options.device);
        self.report.stage(name, expected);
    }

    /// Runs a cleanup and reads the memory.
    fn clean(&mut self, label: &str, aggressive: bool) {
        if let Err(error) = device_budget::release(&self.pass().weight_options.device) {
            self.device_failure.get_or_insert(error);
        }
        self.report.clean(label, aggressive);
    }

    /// Warns the user that `what` failed and is left out.
    fn leave_out(&mut self, what: &str, error: &Error) {
        self.journal
            .leave_out(what, in_one_line(error), self.report.observer);
    }

    fn warn(&mut self, warning: String) {
        self.journal.warn(warning, self.report.observer);
    }
}

/// An error with its causes in one line.
fn in_one_line(error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

/// Checks between blocks whether the machine is short of memory. Cached blocks are dropped before blocks in
/// use.
fn watched_memory_pressure(cache: Option<RequestCache>) -> MemoryPressure {
    let watcher = Watcher::start();
    MemoryPressure::watching(move || {
        let shortfall = watcher.shortfall().0;
        let released = cache.as_ref().map_or(0, |cache| cache.blocks.release(shortfall));
        shortfall.saturating_sub(released)
    })
}
