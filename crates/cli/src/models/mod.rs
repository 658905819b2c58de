//! `generate models`: lists the models on this machine, downloads models and removes them.

mod list;
mod pull;
mod remove;

use crate::arguments::{ModelsArguments, ModelsTask};
use crate::hint::Failure;

/// Lists, downloads or removes.
///
/// # Errors
/// A name is unknown, or the hub or the cache failed.
pub(crate) fn run(arguments: &ModelsArguments) -> Result<(), Failure> {
    match &arguments.task {
        None | Some(ModelsTask::List) => list::run(arguments),
        Some(ModelsTask::Pull { names }) => pull::run(names, arguments),
        Some(ModelsTask::Rm { ids }) => remove::run(ids, arguments),
    }
}
