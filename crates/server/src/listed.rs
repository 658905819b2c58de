//! The jobs of a server, for who looks at its folder from outside.

use std::path::Path;

use crate::job::State;
use crate::store::{Filter, Store};
use crate::{Error, Result};

/// The most jobs of a list.
const MOST: usize = 1000;

/// A job of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedJob {
    /// Its id.
    pub id: String,
    /// `queued`, `running`, `done`, `failed` or `cancelled`.
    pub state: &'static str,
    /// Whose it is.
    pub user: String,
    /// The name of its model.
    pub model: String,
    /// Its prompt.
    pub prompt: String,
}

/// The jobs of the server whose state is in `folder`, newest first: those that wait or run, or `all`.
///
/// # Errors
/// There are none, or they cannot be read.
pub fn jobs(folder: &Path, all: bool) -> Result<Vec<ListedJob>> {
    let file = folder.join("jobs.sqlite");
    if !file.exists() {
        return Err(Error::NoJobs {
            folder: folder.to_owned(),
        });
    }
    let states = match all {
        true => Vec::new(),
        false => vec![State::Queued, State::Running],
    };
    let filter = Filter {
        states,
        limit: MOST,
        ..Filter::default()
    };
    let jobs = Store::open(&file)?.list(&filter)?;
    let listed = jobs.into_iter().map(|job| ListedJob {
        id: job.id.to_string(),
        state: job.state.name(),
        user: job.user,
        model: job.model,
        prompt: job.request.prompt,
    });
    Ok(listed.collect())
}
