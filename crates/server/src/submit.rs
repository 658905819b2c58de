//! Accepts a job: checks it, plans it, and writes it to the store. Only then its client is answered.

use std::fs;
use std::sync::atomic::Ordering;

use crate::Error;
use crate::job::{InputError, Invalid, Job, JobId, JobRequest, State};
use crate::prepare::{self, Unusable};
use crate::server::Server;
use crate::store::now;

/// Why a job is not accepted.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It cannot be run.
    Unusable(Box<Unusable>),
    /// Its user has as many jobs waiting as one may have.
    TooManyWaiting(usize),
    /// The disk fails.
    Storage(Error),
}

impl From<Unusable> for Refused {
    fn from(unusable: Unusable) -> Self {
        Self::Unusable(Box::new(unusable))
    }
}

impl From<InputError> for Refused {
    fn from(error: InputError) -> Self {
        match error {
            InputError::Invalid(invalid) => Unusable::Invalid(invalid).into(),
            InputError::Disk(path, source) => Error::Folder { path, source }.into(),
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Storage(error)
    }
}

/// Adds the job that `user` asks for to the queue. When this returns it is on disk with its images.
///
/// # Errors
/// It cannot be run, or the disk fails. Nothing of it is left then.
pub(crate) fn submit(server: &Server, mut request: JobRequest, user: String) -> Result<Job, Refused> {
    check_waiting(server, &user)?;
    let id = JobId::random()?;
    let added = add(server, &mut request, user, id.clone());
    if added.is_err() {
        let folder = server.folder_of(&id);
        let _ = fs::remove_dir_all(folder.path());
    }
    added
}

fn add(server: &Server, request: &mut JobRequest, user: String, id: JobId) -> Result<Job, Refused> {
    let folder = server.folder_of(&id);
    folder.inputs().store(request, &server.uploads())?;
    check_mask(request)?;
    let resolved = prepare::request(request, &folder, server.terms())?;
    let planned = server.terms().planned(&resolved)?;
    prepare::fix_seeds(request, &resolved);
    let job = Job {
        id,
        user,
        priority: request.priority.unwrap_or(0),
        state: State::Queued,
        model: resolved.model.name.clone(),
        created: now(),
        started: None,
        finished: None,
        request: request.clone(),
        plan: Some(prepare::plan_view(&planned)),
        images: Vec::new(),
        warnings: planned.fallback.into_iter().collect(),
        error: None,
    };
    let changing = server.changing();
    check_waiting(server, &job.user)?;
    server.store.add(&job)?;
    server.changed(&job);
    drop(changing);
    server.totals.accepted.fetch_add(1, Ordering::Relaxed);
    server.wake();
    Ok(job)
}

fn check_waiting(server: &Server, user: &str) -> Result<(), Refused> {
    let own = server.store.waiting_of(user)?;
    match own >= server.options.limits.waiting {
        true => Err(Refused::TooManyWaiting(own)),
        false => Ok(()),
    }
}

fn check_mask(request: &JobRequest) -> Result<(), Unusable> {
    let invalid = |field: &'static str, reason: &str| {
        Err(Unusable::Invalid(Invalid {
            field,
            reason: reason.to_owned(),
        }))
    };
    if request.init_image.is_none() {
        if request.mask.is_some() {
            return invalid("mask", "there is no `init_image` that it is the mask of");
        }
        if request.strength.is_some() {
            return invalid("strength", "there is no `init_image`");
        }
    }
    if let Some(strength) = request.strength
        && let Err(reason) = sd_catalog::parse::strength(&strength.to_string())
    {
        return invalid("strength", &reason);
    }
    Ok(())
}
