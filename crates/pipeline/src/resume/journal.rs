//! The journal of a run: its state, in memory after every step and on disk soon after.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use sd_weights::FileIdentity;

use super::later::LaterRequest;
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

/// The most warnings that are kept; a run may give one in every step.
const MOST_WARNINGS: usize = 100;

/// The progress of a run. If there is a folder for run states, it is committed there: the state is written to
/// a temporary file, which replaces the previous state.
#[derive(Debug)]
pub(crate) struct Journal {
    description: Description,
    /// The progress of the unfinished images.
    progress: BTreeMap<usize, Progress>,
    is_resumed: bool,
    /// The start of this process's part of the run.
    start: Instant,
    seconds_before: f64,
    /// `None` if the state is not stored.
    state_store: Option<StateStore>,
    /// Whether a commit has failed and the user was warned.
    has_failed: bool,
}

impl Journal {
    /// Starts the journal of a new run, which `later` requests follow, with its first state on disk. If that fails the run continues
    /// without, and the second part of the result says why.
    pub(crate) fn begin(
        name: RunName,
        request: &Request,
        passes: &[ModelPass],
        models: Vec<ModelIdentity>,
        inputs: Vec<FileIdentity>,
        later: Vec<LaterRequest>,
    ) -> Result<(Self, Option<String>)> {
        let description = Description::new(name, request, passes, models, inputs, later)?;
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

    /// Starts the journal of a resumed run. Unfinished files in `gallery` are removed.
    ///
    /// # Errors
    /// The device computes other bits than that of the run's start, a file that images depend on has changed
    /// since, the state does not fit the models, or the gallery cannot be read.
    pub(crate) fn resume(
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
            return Err(damaged("its number of models is not that of the request".to_owned()).into());
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
                // A file that cannot be written can perhaps not be removed either.
                let _ = state_store.remove();
            }
            return Err(failed(&files.state)(error).into());
        }
        sync_folder(folder);
        Ok(())
    }

    /// The current model pass.
    pub(crate) fn pass(&self) -> usize {
        self.description.pass
    }

    /// The next images to generate: those that were begun before, or else at most `size` new ones; None if
    /// all are saved. They start at the first model pass, or continue in the pass of the state.
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

    /// Moves a group of images to the next model pass, in which each has begun.
    pub(crate) fn hand_over(&mut self, begun: Vec<(usize, Progress)>) {
        self.description.pass += 1;
        for (image, progress) in begun {
            let state = self.description.state_of(image);
            (state.evaluations, state.steps_done, state.is_denoised) = (0, 0, false);
            self.progress.insert(image, progress);
        }
    }

    /// The name of the run.
    pub(crate) fn name(&self) -> &RunName {
        &self.description.name
    }

    /// The duration of the run, in this process and earlier ones.
    pub(crate) fn duration(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds_before).unwrap_or_default() + self.start.elapsed()
    }

    /// Notifies `observer` of the progress of earlier processes, if the run is resumed. Saved images that
    /// were deleted since are not generated again, which is a warning.
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

    /// The warnings so far.
    pub(crate) fn warnings(&self) -> &[Warning] {
        &self.description.warnings
    }

    /// The failures of optional parts so far.
    pub(crate) fn failures(&self) -> &[Failure] {
        &self.description.failures
    }

    /// Warns the user that the run continues without `what`, and records that for the images that are not
    /// saved yet.
    pub(crate) fn leave_out(&mut self, what: &str, reason: String, observer: &mut dyn Observer) {
        observer.observe(&Event::LeftOut {
            what,
            reason: &reason,
        });
        self.note_warning(format!("{what} is left out: {reason}"));
        let failures = &mut self.description.failures;
        // A resumed run meets the same failure again.
        if failures.iter().all(|known| known.what != what) {
            failures.push(Failure::now(what, reason));
        }
    }

    /// Warns the user, and records the warning for the images that are not saved yet.
    pub(crate) fn warn(&mut self, warning: String, observer: &mut dyn Observer) {
        observer.observe(&Event::Warning(&warning));
        self.note_warning(warning);
    }

    fn note_warning(&mut self, warning: String) {
        // A resumed run may give the same warning again.
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

    /// Whether every unsaved image of `group` has finished its steps.
    pub(crate) fn is_denoised(&self, group: &[usize]) -> bool {
        let at_work = &self.description.at_work;
        let is_denoised = |image: &usize| {
            let state = at_work.iter().find(|state| state.image == *image);
            state.is_some_and(|state| state.is_denoised)
        };
        self.unsaved(group).iter().all(is_denoised)
    }

    /// The progress of `image`, if it was begun and is not saved.
    pub(crate) fn progress(&self, image: usize) -> Option<Progress> {
        self.progress.get(&image).cloned()
    }

    /// Records the progress of `image` with `sampler`. It is on disk after the next commit.
    pub(crate) fn record(&mut self, image: usize, progress: &Progress, sampler: &Sampler) {
        let is_denoised = progress.evaluations == sampler.evaluations();
        let state = self.description.state_of(image);
        state.evaluations = progress.evaluations;
        state.steps_done = sampler.steps_done(progress.evaluations);
        state.is_denoised = is_denoised;
        // A denoised image needs no sampler state.
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

    /// Starts a commit if the commit interval has passed.
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

    /// Records that an image is saved. After the last image of a group this is committed at once, otherwise
    /// with the next commit: a saved image is recognised by its metadata.
    pub(crate) fn record_saved(&mut self, saved: &SavedImage, observer: &mut dyn Observer) {
        self.note_saved(saved);
        if !self.progress.is_empty() {
            self.commit_if_due(observer);
        } else if let Err(error) = self.commit() {
            self.warn_of_failure(error, observer);
        }
    }

    fn note_saved(&mut self, saved: &SavedImage) {
        // A file with another index was not written by this run.
        if saved.index < self.description.request.images {
            self.description.note_saved(saved.index, saved.number);
            self.progress.remove(&saved.index);
        }
    }

    /// The saved images of this run.
    pub(crate) fn saved(&self) -> Vec<SavedImage> {
        let Description {
            name, request, saved, ..
        } = &self.description;
        let names = request.image_names(name);
        let images = saved.iter().map(|(index, number)| {
            let stem = names.stem(index, number);
            SavedImage {
                image: request.path_of(&names.image_file(&stem)),
                metadata: request.path_of(&format!("{stem}.json")),
                index,
                seed: names.seeds.of(index),
                number,
            }
        });
        images.collect()
    }

    /// Closes the journal of a run that has ended, with `failure` if it failed. A run that can be resumed is
    /// kept up to its last step; the result says whether that is so.
    pub(crate) fn close(mut self, failure: Option<&Error>) -> bool {
        if failure.is_some_and(|error| !error.is_permanent()) {
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

    /// Warns once that commits fail. The run continues, and so do the attempts.
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

    /// Commits the state and waits for it, if there is a state store.
    fn commit(&mut self) -> io::Result<()> {
        let snapshot = self.snapshot();
        self.state_store
            .as_mut()
            .map_or(Ok(()), |state_store| state_store.commit(&snapshot))
    }

    /// The state to commit now.
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
