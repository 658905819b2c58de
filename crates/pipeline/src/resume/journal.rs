//! The state of a run while it works: in memory after every step, on disk soon after.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use sd_weights::FileIdentity;

use super::lock::RunLock;
use super::runs::{self, ClaimedRun, RunFiles};
use super::state::{self, Description};
use super::state_store::{Snapshot, StateStore};
use super::{ResumeError, RunName};
use crate::checksummed;
use crate::event::{Event, Observer, SavedImage};
use crate::failure::{Failure, Warning};
use crate::fsync::sync_folder;
use crate::identity::{ModelIdentity, first_change};
use crate::request::Request;
use crate::run::ModelPass;
use crate::save::Gallery;
use crate::scheduler::Sampler;
use crate::stage::Progress;
use crate::{Error, Result, numerics_id};

/// Warnings that are kept; a run may give one in every step.
const MOST_WARNINGS: usize = 100;

/// What a run has done so far. Where there is a folder for states, it is committed there: the whole state is
/// written to a temporary file, which then takes the place of the one before.
#[derive(Debug)]
pub(crate) struct Journal {
    description: Description,
    /// How far the images at work have come, until they are saved.
    progress: BTreeMap<usize, Progress>,
    is_resumed: bool,
    /// Counts the time of this process.
    start: Instant,
    seconds_before: f64,
    /// `None` where nothing is kept.
    state_store: Option<StateStore>,
    /// Whether a commit has failed and the user was told so.
    has_failed: bool,
}

impl Journal {
    /// The journal of a new run, with its first state on disk. Where that cannot be, the run goes on without: the
    /// second part says why.
    pub(crate) fn begin(
        name: RunName,
        request: &Request,
        passes: &[ModelPass],
        models: Vec<ModelIdentity>,
        inputs: Vec<FileIdentity>,
    ) -> Result<(Self, Option<String>)> {
        let description = Description::new(name, request, passes, models, inputs)?;
        let mut journal = Self {
            progress: BTreeMap::new(),
            description,
            is_resumed: false,
            start: Instant::now(),
            seconds_before: 0.0,
            state_store: None,
            has_failed: false,
        };
        let warning = request
            .user_dirs
            .runs()
            .and_then(|folder| journal.keep_in(&folder).err())
            .map(|error| {
                format!(
                    "this run cannot be resumed if it is interrupted: {}",
                    reason(&error)
                )
            });
        Ok((journal, warning))
    }

    /// The journal of a run that was taken up again. What it left unfinished in `gallery` is cleared away.
    ///
    /// # Errors
    /// The device computes other bits than the one that the run was begun on, a file that images depend on has changed
    /// since, the state does not go together with the models, or the gallery cannot be read.
    pub(crate) fn go_on(
        claimed: ClaimedRun,
        passes: &[ModelPass],
        models: &[ModelIdentity],
        inputs: &[FileIdentity],
        gallery: &mut Gallery,
    ) -> Result<Self> {
        let ClaimedRun {
            description,
            progress,
            files,
            lock,
        } = claimed;
        let id = || description.name.id().to_owned();
        let this = numerics_id::name(&passes[0].weight_options.device);
        if description.device != this {
            return Err(ResumeError::OtherDevice {
                id: id(),
                begun_on: description.device,
                this,
            }
            .into());
        }
        let damaged = |reason: String| ResumeError::Damaged {
            id: id(),
            file: files.state.clone(),
            reason,
        };
        if description.models.len() != models.len() {
            return Err(damaged("it has not as many models as were asked for".to_owned()).into());
        }
        let of_models = description.models.iter().zip(models);
        let changed = first_change(&description.inputs, inputs).or_else(|| {
            of_models
                .into_iter()
                .find_map(|(before, now)| before.first_change(now))
        });
        if let Some(file) = changed {
            return Err(ResumeError::ModelChanged {
                id: id(),
                file: file.into(),
            }
            .into());
        }
        let samplers = passes.iter().map(|pass| pass.recipe.sampler(&pass.bundle));
        let samplers = samplers.collect::<Result<Vec<_>>>()?;
        if let Some(reason) = description.misfit(passes, &samplers, &progress) {
            return Err(damaged(reason).into());
        }
        let mut journal = Self {
            is_resumed: true,
            seconds_before: description.seconds,
            description,
            progress: progress.into_iter().collect(),
            start: Instant::now(),
            state_store: Some(StateStore::new(files, lock)),
            has_failed: false,
        };
        let known = journal.description.saved.count();
        for saved in gallery.recover(known)? {
            journal.note_saved(&saved);
        }
        Ok(journal)
    }

    fn keep_in(&mut self, folder: &Path) -> Result<()> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| ResumeError::State { path, source }
        };
        checksummed::make_private_folder(folder).map_err(failed(folder))?;
        runs::sweep(folder)?;
        let files = RunFiles::new(folder, self.description.name.id());
        let lock = RunLock::take(&files.lock).map_err(failed(&files.lock))?;
        let lock = lock.ok_or_else(|| ResumeError::AtWork {
            id: self.description.name.id().to_owned(),
        })?;
        self.state_store = Some(StateStore::new(files.clone(), lock));
        if let Err(error) = self.commit() {
            if let Some(state_store) = self.state_store.take() {
                // What cannot be written can perhaps not be removed either.
                let _ = state_store.remove();
            }
            return Err(failed(&files.state)(error).into());
        }
        sync_folder(folder);
        Ok(())
    }

    /// The model pass that the images are in.
    pub(crate) fn pass(&self) -> usize {
        self.description.pass
    }

    /// The images that are to be generated next, at most `size`, and those that were begun before in any case; nothing where all
    /// are saved. They begin at the first model pass, or are all at that where they were left.
    pub(crate) fn next_group(&mut self, size: usize) -> Option<Vec<usize>> {
        let Description {
            at_work,
            saved,
            request,
            pass,
            ..
        } = &mut self.description;
        let mut group: Vec<usize> = at_work.iter().map(|state| state.image).collect();
        if group.is_empty() {
            *pass = 0;
        }
        if *pass == 0 {
            let others = saved.missing(saved.first_missing(), request.images);
            let begun = group.clone();
            let others = others.filter(|image| begun.binary_search(image).is_err());
            group.extend(others.take(size.saturating_sub(begun.len())));
            group.sort_unstable();
        }
        (!group.is_empty()).then_some(group)
    }

    /// Takes a group of images to the next model pass, in which each has begun.
    pub(crate) fn hand_over(&mut self, begun: Vec<(usize, Progress)>) {
        self.description.pass += 1;
        for (image, progress) in begun {
            let state = self.description.state_of(image);
            (state.evaluations, state.steps_done, state.is_denoised) = (0, 0, false);
            self.progress.insert(image, progress);
        }
    }

    /// What the run is called.
    pub(crate) fn name(&self) -> &RunName {
        &self.description.name
    }

    /// How long the run has taken, in this process and in those before it.
    pub(crate) fn duration(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds_before).unwrap_or_default() + self.start.elapsed()
    }

    /// Tells `observer` what the processes before this one have done, if the run has been taken up again. Images that were
    /// saved and have gone since are not generated again, which is a warning.
    pub(crate) fn tell(&mut self, observer: &mut dyn Observer) {
        if !self.is_resumed {
            return;
        }
        observer.observe(&Event::Resumed {
            run: self.description.name.id(),
            steps_done: self.description.steps_done(),
            steps: self.description.steps(),
        });
        let (there, gone): (Vec<_>, Vec<_>) = self.saved().into_iter().partition(SavedImage::is_there);
        for saved in &there {
            observer.observe(&Event::Saved(saved));
        }
        if let Some(first) = gone.first() {
            let first = first.image.display();
            self.warn(
                match gone.len() - 1 {
                    0 => format!("`{first}` was saved and is no longer there; it is not generated again"),
                    others => format!(
                        "`{first}` and {others} more images were saved and are no longer there; they are not generated again"
                    ),
                },
                observer,
            );
        }
    }

    /// What the user was warned of so far.
    pub(crate) fn warnings(&self) -> &[Warning] {
        &self.description.warnings
    }

    /// What was asked for and could not be had so far.
    pub(crate) fn failures(&self) -> &[Failure] {
        &self.description.failures
    }

    /// Tells the user that the run goes on without `what`, and keeps that for the images that are still to be saved.
    pub(crate) fn leave_out(&mut self, what: &str, reason: String, observer: &mut dyn Observer) {
        observer.observe(&Event::LeftOut {
            what,
            reason: &reason,
        });
        self.note_warning(format!("{what} is left out: {reason}"));
        let failures = &mut self.description.failures;
        // A run that goes on meets it again.
        if failures.iter().all(|known| known.what != what) {
            failures.push(Failure::now(what, reason));
        }
    }

    /// Warns the user, and keeps the warning for the images that are still to be saved.
    pub(crate) fn warn(&mut self, warning: String, observer: &mut dyn Observer) {
        observer.observe(&Event::Warning(&warning));
        self.note_warning(warning);
    }

    fn note_warning(&mut self, warning: String) {
        // A run that goes on may come past the same place again.
        let warnings = &mut self.description.warnings;
        if warnings.len() < MOST_WARNINGS && warnings.iter().all(|known| known.message != warning) {
            warnings.push(Warning::now(warning));
        }
    }

    /// The images of `group` that are not saved yet.
    pub(crate) fn unsaved(&self, group: &[usize]) -> Vec<usize> {
        let saved = &self.description.saved;
        group
            .iter()
            .copied()
            .filter(|&image| !saved.contains(image))
            .collect()
    }

    /// Whether every image is saved.
    pub(crate) fn is_complete(&self) -> bool {
        self.description.saved.count() == self.description.request.images
    }

    /// Whether every image is begun or saved.
    pub(crate) fn all_are_begun(&self) -> bool {
        self.description.saved.count() + self.progress.len() == self.description.request.images
    }

    /// Whether every image of `group` that is not saved yet has all of its steps behind it.
    pub(crate) fn is_denoised(&self, group: &[usize]) -> bool {
        let at_work = &self.description.at_work;
        let is_denoised = |image: &usize| {
            let state = at_work.iter().find(|state| state.image == *image);
            state.is_some_and(|state| state.is_denoised)
        };
        self.unsaved(group).iter().all(is_denoised)
    }

    /// Where image `image` was left, if it was begun and is not saved.
    pub(crate) fn progress(&self, image: usize) -> Option<Progress> {
        self.progress.get(&image).cloned()
    }

    /// How far image `image` has come on its way along `sampler`. It is on disk after the next commit.
    pub(crate) fn record(&mut self, image: usize, progress: &Progress, sampler: &Sampler) {
        let is_denoised = progress.evaluations == sampler.evaluations();
        let state = self.description.state_of(image);
        state.evaluations = progress.evaluations;
        state.steps_done = sampler.steps_done(progress.evaluations);
        state.is_denoised = is_denoised;
        // At the end of the way nothing of it need be remembered.
        let progress = if is_denoised {
            Progress {
                evaluations: progress.evaluations,
                ..Progress::from_latents(progress.sampler_state.latents.clone())
            }
        } else {
            progress.clone()
        };
        self.progress.insert(image, progress);
    }

    /// Begins to commit the state if enough time has passed since the last commit.
    pub(crate) fn commit_if_due(&mut self, observer: &mut dyn Observer) {
        if let Some(Err(error)) = self.state_store.as_mut().and_then(StateStore::outcome) {
            self.warn_of_failure(error, observer);
        }
        if self.state_store.as_ref().is_some_and(StateStore::is_due) {
            let snapshot = self.snapshot();
            let begun = self
                .state_store
                .as_mut()
                .map(|state_store| state_store.begin(snapshot));
            if let Some(Err(error)) = begun {
                self.warn_of_failure(error, observer);
            }
        }
    }

    /// Notes that `image` is saved. After the last of a group that is committed at once; before, as often as anything else:
    /// an image that is saved is recognised by its metadata.
    pub(crate) fn record_saved(&mut self, saved: &SavedImage, observer: &mut dyn Observer) {
        self.note_saved(saved);
        if !self.progress.is_empty() {
            self.commit_if_due(observer);
        } else if let Err(error) = self.commit() {
            self.warn_of_failure(error, observer);
        }
    }

    fn note_saved(&mut self, saved: &SavedImage) {
        let stem = saved.image.file_stem().map(|stem| stem.to_string_lossy());
        let number = stem.and_then(|stem| self.description.name.number_of(&stem));
        // What is in a gallery was written by a run with as many images, or by nobody who knows of it.
        if let Some(number) = number.filter(|_| saved.index < self.description.request.images) {
            self.description.note_saved(saved.index, number);
            self.progress.remove(&saved.index);
        }
    }

    /// The images that this run has saved.
    pub(crate) fn saved(&self) -> Vec<SavedImage> {
        let Description {
            name, request, saved, ..
        } = &self.description;
        let images = saved.iter().map(|(index, number)| {
            let image = request.path_of(&name.file_name(number));
            SavedImage {
                metadata: image.with_extension("json"),
                image,
                index,
                seed: request.seed.wrapping_add(index as u64),
            }
        });
        images.collect()
    }

    /// Ends the journal of a run that `failure` has ended, if anything has. What can be resumed is kept, up to
    /// the last step; the result says whether that is so.
    pub(crate) fn close(mut self, failure: Option<&Error>) -> bool {
        if failure.is_some_and(|error| !error.would_come_again()) {
            if let Err(error) = self.commit() {
                tracing::warn!("the last steps of the run could not be kept: {error}");
            }
            return self.state_store.is_some();
        }
        if let Some(state_store) = self.state_store.take() {
            let path = state_store.path().to_owned();
            if let Err(error) = state_store.remove() {
                tracing::warn!("cannot remove `{}`: {error}", path.display());
            }
        }
        false
    }

    /// A disk that is full is told of once; the run goes on, and so do the attempts.
    fn warn_of_failure(&mut self, source: io::Error, observer: &mut dyn Observer) {
        if let Some(state_store) = &self.state_store
            && !std::mem::replace(&mut self.has_failed, true)
        {
            let path = state_store.path().to_owned();
            let error = ResumeError::State { path, source };
            self.warn(
                format!(
                    "the last steps are lost if this run is interrupted: {}",
                    reason(&error.into())
                ),
                observer,
            );
        }
    }

    /// Puts the state on disk, where there is a place for it, before anything else happens.
    fn commit(&mut self) -> io::Result<()> {
        let snapshot = self.snapshot();
        self.state_store
            .as_mut()
            .map_or(Ok(()), |state_store| state_store.commit(&snapshot))
    }

    /// What there is to be kept now.
    fn snapshot(&mut self) -> Snapshot {
        self.description.seconds = self.duration().as_secs_f64();
        self.description.kept_at = crate::clock::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        let of_image = |(&image, progress): (&usize, &Progress)| {
            let tensors = progress.sampler_state.tensors().into_iter();
            let named = tensors.map(|(name, tensor)| (state::tensor_name(image, &name), tensor.clone()));
            named.collect::<Vec<_>>()
        };
        Snapshot {
            description: self.description.clone(),
            tensors: self.progress.iter().flat_map(of_image).collect(),
        }
    }
}

/// The error and its cause in one line.
fn reason(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
