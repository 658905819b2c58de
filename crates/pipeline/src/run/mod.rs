//! A run between its stages: which comes when, what it holds, and what is told of it.

mod enlargement;
mod group;
mod leg;
mod over;
mod saving;
mod words;

use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;
use sd_memory::{Bytes, Monitor, Watcher};
use sd_weights::Relief;

use enlargement::Enlargement;
pub(crate) use leg::{Leg, Looked, Planned};
use over::OverPicture;

use crate::event::{Event, Interrupt, Observer, SavedPicture};
use crate::identity::ModelIdentity;
use crate::memory::{log_cleanup, log_memory_status};
use crate::prompt_cache::PromptCache;
use crate::recipe::Share;
use crate::request::Request;
use crate::resume::{ClaimedRun, Journal, RunName};
use crate::save::{Gallery, RgbImage};
use crate::scheduler::Trajectory;
use crate::stage::{self, Canvas, Denoise, EncodedPrompt, Mask, Progress};
use crate::{Error, Result, device_budget, tighter};
use group::Group;

/// A run between its stages.
pub(crate) struct Run<'a> {
    monitor: &'a Monitor,
    observer: &'a mut dyn Observer,
    interrupt: &'a Interrupt,
    legs: Vec<Leg>,
    /// Of each leg.
    prompts: Vec<PromptCache>,
    /// What the first leg draws over, if the user names a picture.
    over: Option<Arc<OverPicture>>,
    enlargement: Option<Enlargement>,
    /// The leg that is at work.
    at: usize,
    gallery: Gallery,
    journal: Journal,
    /// Whether nothing may be left out.
    is_strict: bool,
    /// The most that all of it was predicted to take.
    predicted: Bytes,
    /// The budget, while what tensors take of a device with memory of its own is kept to the prediction.
    spare: Option<Bytes>,
}

impl<'a> Run<'a> {
    /// Everything that can fail before a weight is read.
    pub(crate) fn open(
        request: &Request,
        claimed: Option<ClaimedRun>,
        monitor: &'a Monitor,
        observer: &'a mut dyn Observer,
        interrupt: &'a Interrupt,
    ) -> Result<Self> {
        monitor.stage("open");
        log_cleanup("Startup", false, monitor, observer);
        let mut planned = Planned::of(request, Looked::AtValues)?;
        let device = planned.legs[0].holding.device.clone();
        let watched = device.clone();
        monitor.watch_device(move || device_budget::info(&watched));
        let host_memory = device_budget::host_memory(&device, request.host_memory, planned.of_host);
        let relief = relief();
        for leg in &mut planned.legs {
            leg.holding.host_memory = host_memory.clone();
            leg.holding.relief = relief.clone();
        }
        let plan = planned.plan();
        device_budget::bound(&device, plan.predicted_peak.min(plan.budget))?;
        let (legs, enlargement, failed) = (planned.legs, planned.enlargement, planned.failed);
        let over = planned.over.map(Arc::new);
        let warnings = words::of_loras(&legs[0]);
        let models: Result<Vec<ModelIdentity>> =
            legs.iter().map(|leg| ModelIdentity::of(&leg.bundle)).collect();
        let models = models?;
        let name = match &claimed {
            Some(claimed) => claimed.name().clone(),
            None => RunName::new(&crate::clock::now()),
        };
        let recipe = &legs[0].recipe;
        let mut gallery = Gallery::open(&recipe.output, &name)?;
        let prompts = legs
            .iter()
            .zip(&models)
            .map(|(leg, model)| PromptCache::new(&request.places, &leg.bundle, model, &name))
            .collect();
        let (journal, warning) = match claimed {
            Some(claimed) => (Journal::go_on(claimed, &legs, &models, &mut gallery)?, None),
            None => Journal::begin(name, request, &legs, models)?,
        };
        observer.observe(&Event::Started { recipe });
        observer.observe(&Event::Planned { plan: &plan });
        journal.tell(observer);
        let mut run = Self {
            monitor,
            observer,
            interrupt,
            prompts,
            over,
            enlargement,
            at: journal.leg(),
            legs,
            gallery,
            journal,
            is_strict: request.strict,
            predicted: plan.predicted_peak,
            spare: Some(plan.budget),
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
        if !plan.budget_is_kept {
            run.warn(words::budget_warning(&plan));
        }
        let streaming = run.legs.iter().filter(|leg| leg.plan.streams());
        for warning in streaming.map(words::streaming_warning).collect::<Vec<_>>() {
            run.warn(warning);
        }
        Ok(run)
    }

    /// The legs, in order.
    pub(crate) fn draw(&mut self) -> Result<Vec<SavedPicture>> {
        // What the leg before has drawn, picture by picture.
        let mut drawn: Vec<(usize, RgbImage)> = Vec::new();
        while !self.journal.unsaved().is_empty() {
            match self.draw_leg(&drawn) {
                Ok(next) => drawn = next,
                // What is drawn is worth more than what would have been made of it.
                Err(error) if !drawn.is_empty() && self.can_do_without(&error) => {
                    self.leave_out(&words::refiner(&self.leg().recipe.model), &error);
                    self.clean("After the refiner failed", true);
                    self.legs.truncate(self.at);
                    self.at -= 1;
                    self.finish_drawn(std::mem::take(&mut drawn))?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.journal.saved())
    }

    /// The stages of the leg that is at work, over what was `drawn` before it, and on to the next leg, for which it may leave
    /// what it has drawn. A stage drops its networks before the next begins.
    fn draw_leg(&mut self, drawn: &[(usize, RgbImage)]) -> Result<Vec<(usize, RgbImage)>> {
        let is_denoised = self.at == self.journal.leg() && self.journal.is_denoised();
        if !is_denoised {
            self.with_room(|run| {
                let prompts = run.encode()?;
                let canvases = run.canvases(drawn)?;
                run.denoise(prompts, &canvases)
            })?;
        }
        let Some(next) = self.legs.get(self.at + 1) else {
            self.with_room(Self::finish)?;
            return Ok(Vec::new());
        };
        let mut drawn = Vec::new();
        if matches!(next.recipe.share, Share::From(_)) {
            let (images, latents) = self.latents();
            let begun = latents.into_iter().map(|latents| Progress {
                evaluations: 0,
                trajectory: Trajectory::new(latents),
            });
            self.journal.hand_over(images.into_iter().zip(begun).collect());
        } else {
            drawn = self.with_room(Self::decode)?;
        }
        self.at += 1;
        Ok(drawn)
    }

    /// Whether the run goes on without what failed so.
    fn can_do_without(&self, error: &Error) -> bool {
        let is_its_own = matches!(
            error,
            Error::Weights(_) | Error::Model(_) | Error::Tensor(_) | Error::NotFinite { .. }
        );
        is_its_own && !self.is_strict
    }

    /// Closes the journal: what was not finished is kept, if there is a use in going on with it.
    pub(crate) fn end(self, outcome: Result<Vec<SavedPicture>>) -> Result<Vec<SavedPicture>> {
        let (name, duration) = (self.journal.name().clone(), self.journal.duration());
        if self.journal.close(outcome.as_ref().err()) {
            self.observer.observe(&Event::Kept { run: name.id() });
        }
        if outcome.is_ok() {
            self.observer.observe(&Event::Finished { duration });
        }
        outcome
    }

    fn leg(&self) -> &Leg {
        &self.legs[self.at]
    }

    /// Runs a stage. Where the device turns out to have less room than was planned with, it starts again under a tighter
    /// plan, from the last step.
    fn with_room<T>(&mut self, stage: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        tighter::until_it_fits(self, stage, Self::tighten)
    }

    /// Gives back everything and plans anew with less; false where the plan was as small as can be.
    fn tighten(&mut self) -> Result<bool> {
        self.clean("After the device was full", true);
        let leg = &mut self.legs[self.at];
        let device = leg.holding.device.clone();
        let available = device_budget::available(&device)?.map(device_budget::less_margin);
        // Where more is taken than was predicted, what the plan left of the budget is of use.
        let spare = self.spare.take();
        if let Some(budget) = spare {
            device_budget::bound(&device, budget)?;
        }
        let Some(budget) = tighter::budget(&leg.plan, available) else {
            return Ok(spare.is_some());
        };
        leg.replan(budget)?;
        self.warn(format!(
            "the device had no room left: the stage starts again within {budget}"
        ));
        Ok(true)
    }

    fn encode(&mut self) -> Result<EncodedPrompt> {
        let Leg {
            bundle,
            recipe,
            holding,
            ..
        } = &self.legs[self.at];
        let prompts = recipe.texts(bundle);
        self.monitor.stage("encode");
        let cache = &self.prompts[self.at];
        let mut encoded = cache.encode(bundle, &prompts, recipe.clip_skip, holding, self.interrupt)?;
        if prompts.len() > 1 && recipe.negative_prompt.is_empty() && bundle.zeros_without_negative_prompt {
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

    /// What the pictures are drawn over: each over the one that was `drawn` before it, or all over one that the user names.
    /// Nothing for pictures that begin as noise, or that were begun before and need no canvas any more.
    fn canvases(&mut self, drawn: &[(usize, RgbImage)]) -> Result<Vec<(usize, Canvas)>> {
        let Some(over) = self.leg().recipe.over.clone() else {
            return Ok(Vec::new());
        };
        let Some(named) = self.over.clone().filter(|_| over.image.is_some()) else {
            let images: Vec<RgbImage> = drawn.iter().map(|(_, image)| image.clone()).collect();
            let canvases = self.encode_pictures(&images, None)?;
            return Ok(drawn.iter().map(|&(image, _)| image).zip(canvases).collect());
        };
        let unsaved = self.journal.unsaved();
        let begun = unsaved
            .iter()
            .all(|&image| self.journal.progress(image).is_some());
        if begun && over.mask.is_none() {
            return Ok(Vec::new());
        }
        let canvases = self.encode_pictures(std::slice::from_ref(&named.image), named.mask.as_ref())?;
        let of_all = canvases.first().into_iter().cycle().cloned();
        Ok(unsaved.into_iter().zip(of_all).collect())
    }

    fn encode_pictures(&mut self, images: &[RgbImage], mask: Option<&Mask>) -> Result<Vec<Canvas>> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        self.monitor.stage("encode picture");
        let leg = self.leg();
        let scaling = leg.recipe.pipeline_class(&leg.bundle).encoding();
        let canvases = stage::canvases(&leg.bundle, images, mask, scaling, &leg.holding)?;
        self.clean("After picture encoding", false);
        Ok(canvases)
    }

    /// Takes all pictures from noise, from what they are drawn over, or from where they were left, to latents: as many at a
    /// time as the plan lets share a pass.
    fn denoise(&mut self, prompts: EncodedPrompt, canvases: &[(usize, Canvas)]) -> Result<()> {
        self.monitor.stage("load");
        let first_leg = self.at == 0;
        self.clean(
            if first_leg {
                "Before model load"
            } else {
                "Before refiner load"
            },
            !first_leg,
        );
        let bundle = self.leg().bundle.clone();
        let leg = self.leg();
        let stage = Denoise::load(
            &bundle,
            &leg.recipe,
            &prompts,
            &leg.holding,
            leg.plan.controls_stay,
        )?;
        drop(prompts);
        self.clean(
            if first_leg {
                "After model load"
            } else {
                "After refiner load"
            },
            false,
        );
        self.monitor.stage(if first_leg { "denoise" } else { "refine" });
        log_memory_status("Before generation", self.monitor, self.observer);
        let unsaved = self.journal.unsaved();
        let canvas = |image: usize| {
            canvases
                .iter()
                .find(|(of, _)| *of == image)
                .map(|(_, canvas)| canvas)
        };
        if self.at > self.journal.leg() {
            let begun = unsaved.iter().map(|&image| {
                let picture = stage.begin(self.leg().recipe.seed_of(image), canvas(image))?;
                Ok((image, picture.progress))
            });
            let begun = begun.collect::<Result<Vec<_>>>()?;
            self.journal.hand_over(begun);
        }
        let mut waiting = unsaved;
        while !waiting.is_empty() {
            let mut group = self.next_group(&stage, &canvas, &mut waiting)?;
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
    fn next_group<'c>(
        &self,
        stage: &Denoise<'_>,
        canvas: &impl Fn(usize) -> Option<&'c Canvas>,
        waiting: &mut Vec<usize>,
    ) -> Result<Group> {
        let Leg { recipe, plan, .. } = self.leg();
        let mut group = Group::default();
        while let Some(&image) = waiting.first() {
            let seed = recipe.seed_of(image);
            let picture = match self.journal.progress(image) {
                Some(progress) => stage.go_on(seed, canvas(image), progress)?,
                None => stage.begin(seed, canvas(image))?,
            };
            let is_as_far = picture.progress.evaluations == group.evaluations();
            let fits = group.images.len() < plan.pictures_a_pass && is_as_far;
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
        let images = self.leg().recipe.images;
        for (&image, picture) in group.images.iter().zip(&group.pictures) {
            self.observer.observe(&Event::Step {
                image,
                images,
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
        let given = Bytes(self.leg().holding.relief.take_given());
        if given > Bytes(0) {
            self.warn(format!(
                "memory is short on this machine: {given} of weights were given up and are read in every step from now on"
            ));
        }
    }

    /// The pictures that are not saved yet, with their latents.
    fn latents(&self) -> (Vec<usize>, Vec<Tensor>) {
        let unsaved = self.journal.unsaved().into_iter();
        unsaved
            .filter_map(|image| Some((image, self.journal.progress(image)?.trajectory.latents)))
            .unzip()
    }

    /// Decodes the pictures for the next leg.
    fn decode(&mut self) -> Result<Vec<(usize, RgbImage)>> {
        let (images, latents) = self.latents();
        self.monitor.stage("decode");
        let mut decoded = Vec::with_capacity(images.len());
        let Leg {
            bundle,
            recipe,
            holding,
            ..
        } = &self.legs[self.at];
        let scaling = recipe.pipeline_class(bundle).decoding();
        stage::decode(
            bundle,
            &latents,
            scaling,
            holding,
            self.interrupt,
            |position, image| {
                decoded.push((images[position], image));
                Ok(())
            },
        )?;
        self.clean("After decoding", true);
        Ok(decoded)
    }

    fn clean(&mut self, label: &str, aggressive: bool) {
        device_budget::release(&self.leg().holding.device);
        log_cleanup(label, aggressive, self.monitor, self.observer);
    }

    /// Tells the user that `what` was asked for and cannot be had.
    fn leave_out(&mut self, what: &str, error: &Error) {
        self.journal.leave_out(what, in_one_line(error), self.observer);
    }

    fn warn(&mut self, warning: String) {
        self.journal.warn(warning, self.observer);
    }
}

/// An error with its causes.
fn in_one_line(error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

/// Asks between every two blocks whether others on this machine have come to be short of memory.
fn relief() -> Relief {
    let watcher = Watcher::start();
    Relief::watching(move || watcher.shortfall().0)
}
