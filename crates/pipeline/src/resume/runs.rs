//! The folder of run states: lists and claims interrupted runs.
//!
//! A run has up to three files there: its state `ID.safetensors`, `ID.part` while the next state is written,
//! and `ID.lock`, which is locked by the process that works on the run.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sd_memory::Bytes;

use super::later::LaterRequest;
use super::lock::RunLock;
use super::state::{Description, FORMAT};
use super::{ResumeError, RunName};
use crate::Result;
use crate::checksummed::{self, Unreadable};
use crate::crash_point::crash_point;
use crate::request::{ModelChoice, Request};
use crate::stage::Progress;
use crate::user_dirs::UserDirs;

const STATE: &str = "safetensors";
const PART: &str = "part";
const LOCK: &str = "lock";

/// The files of one run in the folder of run states.
#[derive(Debug, Clone)]
pub(super) struct RunFiles {
    pub(super) state: PathBuf,
    pub(super) part: PathBuf,
    pub(super) lock: PathBuf,
}

impl RunFiles {
    pub(super) fn new(folder: &Path, id: &str) -> Self {
        let file = |extension| folder.join(format!("{id}.{extension}"));
        Self {
            state: file(STATE),
            part: file(PART),
            lock: file(LOCK),
        }
    }

    /// Removes all files. The lock comes last, so that no other process claims the run before its state is
    /// gone.
    pub(super) fn remove(&self, lock: RunLock) -> io::Result<()> {
        crash_point();
        remove_if_there(&self.state)?;
        crash_point();
        remove_if_there(&self.part)?;
        lock.remove()
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// An interrupted run in a list.
#[derive(Debug)]
pub struct InterruptedRun {
    /// The id of the run.
    pub id: String,
    /// The outline of its state, if it can be read.
    pub outline: std::result::Result<Outline, ResumeError>,
    changed: SystemTime,
}

/// The outline of an interrupted run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// What the images show.
    pub prompt: String,
    /// The name that the user gave the model.
    pub model: String,
    /// The number of images.
    pub images: usize,
    /// Finished steps of all images.
    pub steps_done: usize,
    /// Steps of all images.
    pub steps: usize,
    /// The time of the last commit, in local time: `2026-05-04T03:02:01+02:00`.
    pub kept_at: String,
    /// The output folder.
    pub output: PathBuf,
    /// How many requests follow it in its batch.
    pub later: usize,
}

/// The interrupted runs that no process works on, the latest first. A state that cannot be read is listed
/// with the reason.
///
/// # Errors
/// The folder exists and cannot be read.
pub fn interrupted_runs(user_dirs: &UserDirs) -> Result<Vec<InterruptedRun>> {
    let Some(folder) = user_dirs.runs() else {
        return Ok(Vec::new());
    };
    if let Err(error) = sweep(&folder) {
        tracing::debug!("what killed processes left is still there: {error}");
    }
    let mut runs = Vec::new();
    for id in ids(&folder, STATE)? {
        let files = RunFiles::new(&folder, &id);
        // A run may end, and its files disappear, while the list is made.
        let changed = fs::metadata(&files.state).and_then(|metadata| metadata.modified());
        let (Ok(changed), Ok(false)) = (changed, RunLock::is_held(&files.lock)) else {
            continue;
        };
        let outline = match checksummed::read_description::<Description>(&files.state) {
            Err(Unreadable::System(error)) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(unreadable) => Err(error_of(&id, &files.state, unreadable)),
            Ok(description) => Ok(outline(description)),
        };
        runs.push(InterruptedRun { id, outline, changed });
    }
    runs.sort_by_key(|run| std::cmp::Reverse(run.changed));
    Ok(runs)
}

fn outline(description: Description) -> Outline {
    Outline {
        steps_done: description.steps_done(),
        steps: description.steps(),
        prompt: description.request.prompt,
        model: description.request.model.name,
        images: description.request.images,
        kept_at: description.kept_at,
        output: description.request.output,
        later: description.later.len(),
    }
}

/// An interrupted run that this process has claimed: no other process can claim it until it is dropped.
#[derive(Debug)]
pub struct ClaimedRun {
    pub(super) description: Description,
    /// The progress of the unfinished images, in the order of the description.
    pub(super) progress: Vec<(usize, Progress)>,
    pub(super) files: RunFiles,
    pub(super) lock: RunLock,
}

impl ClaimedRun {
    /// Claims the run `id`.
    ///
    /// # Errors
    /// There is no such run, another process is working on it, or its state is damaged or of another version.
    pub fn claim(user_dirs: &UserDirs, id: &str) -> Result<Self> {
        let (files, lock) = take(user_dirs, id)?;
        let damaged = |reason: String| ResumeError::Damaged {
            id: id.to_owned(),
            file: files.state.clone(),
            reason,
        };
        // Check the version first: the state of another version may look damaged.
        let begun_by = checksummed::read_description::<Version>(&files.state);
        let begun_by = begun_by.map_err(|unreadable| error_of(id, &files.state, unreadable))?;
        if begun_by.version != crate::VERSION {
            return Err(ResumeError::OtherVersion {
                id: id.to_owned(),
                begun_by: begun_by.version,
                this: crate::VERSION.to_owned(),
            }
            .into());
        }
        if let Some(found) = begun_by.format.filter(|&found| found < FORMAT) {
            return Err(ResumeError::OtherFormat {
                id: id.to_owned(),
                found,
                wanted: FORMAT,
            }
            .into());
        }
        let state = checksummed::read::<Description>(&files.state);
        let state = state.map_err(|unreadable| error_of(id, &files.state, unreadable))?;
        let description = state.description;
        if let Some(reason) = description.contradiction(id) {
            return Err(damaged(reason.to_owned()).into());
        }
        let Some(progress) = description.progress(&state.tensors) else {
            return Err(damaged("the latents of an image are not in it".to_owned()).into());
        };
        Ok(Self {
            description,
            progress,
            files,
            lock,
        })
    }

    /// The name of the run.
    pub fn name(&self) -> &RunName {
        &self.description.name
    }

    /// Changes the budget, which the images do not depend on, also of the requests after this one.
    pub fn with_memory(mut self, memory: Bytes) -> Self {
        let description = &mut self.description;
        let later = description.later.iter_mut().map(|later| &mut later.0);
        for request in std::iter::once(&mut description.request).chain(later) {
            request.memory = Some(memory);
        }
        self
    }

    /// Changes the folder of the images that are not saved yet, also of the requests after this one.
    pub fn with_output(mut self, folder: &Path) -> Self {
        let description = &mut self.description;
        let later = description.later.iter_mut().map(|later| &mut later.0);
        for request in std::iter::once(&mut description.request).chain(later) {
            request.move_to(folder);
        }
        self
    }

    /// Changes the folder of the source image, the mask and the control images, which may have moved.
    pub fn with_source_images(mut self, folder: &Path) -> Self {
        self.description.request.move_source_images_to(folder);
        self
    }

    /// The requests after this one in its batch, which were not begun.
    pub fn later(&self) -> &[LaterRequest] {
        &self.description.later
    }

    /// The request of the run, with `models` in place of those that [`ClaimedRun::models`] names.
    ///
    /// # Panics
    /// Their number differs.
    pub fn request(&self, models: Vec<ModelChoice>, user_dirs: &UserDirs) -> Request {
        self.description.request.restore(models, user_dirs)
    }

    /// The models in the order of their passes: the user's name, and the folder, or `None` for the built-in
    /// model.
    pub fn models(&self) -> Vec<(&str, Option<&Path>)> {
        self.description.request.named_models()
    }
}

/// Discards the interrupted run `id`: removes its state and its unfinished files.
///
/// # Errors
/// There is no such run, another process is working on it, or its files cannot be removed.
pub fn discard(user_dirs: &UserDirs, id: &str) -> Result<()> {
    let (files, lock) = take(user_dirs, id)?;
    // A state that cannot be read does not give the output folder.
    if let Ok(description) = checksummed::read_description::<Description>(&files.state)
        && description.contradiction(id).is_none()
    {
        crate::save::remove_temporary_files(&description.request.output, &description.name)?;
    }
    let failed = |source| ResumeError::State {
        path: files.state.clone(),
        source,
    };
    Ok(files.remove(lock).map_err(failed)?)
}

/// Removes files of killed processes in `folder` that have no state.
pub(super) fn sweep(folder: &Path) -> Result<()> {
    let left = [ids(folder, LOCK)?, ids(folder, PART)?].concat();
    for id in left {
        let files = RunFiles::new(folder, &id);
        if files.state.exists() {
            continue;
        }
        let failed = |source| ResumeError::State {
            path: files.lock.clone(),
            source,
        };
        if let Some(lock) = RunLock::take_at_once(&files.lock).map_err(failed)? {
            // The process may have committed a state before it died.
            if !files.state.exists() {
                files.remove(lock).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Takes the lock of the run `id`, which has a state.
fn take(user_dirs: &UserDirs, id: &str) -> Result<(RunFiles, RunLock)> {
    let no_such_run = || ResumeError::NoSuchRun { id: id.to_owned() };
    let folder = user_dirs.runs().ok_or_else(no_such_run)?;
    // The id is looked up in the list of files: user input never becomes a path.
    if !ids(&folder, STATE)?.contains(&id.to_owned()) {
        return Err(no_such_run().into());
    }
    let files = RunFiles::new(&folder, id);
    let failed = |source| ResumeError::State {
        path: files.lock.clone(),
        source,
    };
    let lock = RunLock::take(&files.lock).map_err(failed)?;
    let lock = lock.ok_or_else(|| ResumeError::AtWork { id: id.to_owned() })?;
    if !files.state.exists() {
        // The run has just ended.
        lock.remove().map_err(failed)?;
        return Err(no_such_run().into());
    }
    Ok((files, lock))
}

/// The ids of the files in `folder` with `extension`; none if the folder does not exist.
fn ids(folder: &Path, extension: &str) -> std::result::Result<Vec<String>, ResumeError> {
    let failed = |source| ResumeError::State {
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut ids = BTreeSet::new();
    for entry in entries {
        let path = PathBuf::from(entry.map_err(failed)?.file_name());
        if path.extension().is_some_and(|found| found == extension)
            && let Some(id) = path.file_stem().and_then(|id| id.to_str())
        {
            ids.insert(id.to_owned());
        }
    }
    Ok(ids.into_iter().collect())
}

#[derive(serde::Deserialize)]
struct Version {
    version: String,
    format: Option<u32>,
}

fn error_of(id: &str, file: &Path, unreadable: Unreadable) -> ResumeError {
    match unreadable {
        Unreadable::System(source) => ResumeError::State {
            path: file.to_owned(),
            source,
        },
        Unreadable::Damaged(reason) => ResumeError::Damaged {
            id: id.to_owned(),
            file: file.to_owned(),
            reason,
        },
    }
}
