//! `generate models`: lists the models on this machine, downloads models, checks and removes them.

mod list;
mod pull;
mod remove;
mod row;
mod verify;

use crate::arguments::{ModelsArguments, ModelsTask};
use crate::hint::Failure;

/// Lists, downloads, checks or removes.
///
/// # Errors
/// A name is unknown, a checked file is damaged, or the hub or the cache failed.
pub(crate) fn run(arguments: &ModelsArguments) -> Result<(), Failure> {
    match &arguments.task {
        None | Some(ModelsTask::List) => list::run(arguments),
        Some(ModelsTask::Pull { names }) => pull::run(names, arguments),
        Some(ModelsTask::Verify { names }) => verify::run(names, arguments),
        Some(ModelsTask::Rm { ids }) => remove::run(ids, arguments),
    }
}
