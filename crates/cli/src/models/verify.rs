//! `generate models verify`: checks files of the hub's cache against their hashes, and prints or checks the
//! SHA-256 of other files.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sd_catalog::{Catalog, Configuration, Verifiable};
use sd_hub::Verdict;
use sd_pipeline::Bytes;
use serde_json::{Value, json};

use crate::activity::Activity;
use crate::arguments::ModelsArguments;
use crate::byte_progress::ByteProgress;
use crate::hint::Failure;
use crate::{signals, terminal};

/// What was found of a file.
enum Outcome {
    Checked(Verdict),
    /// It cannot be read, for this reason.
    Unread(String),
}

pub(super) fn run(names: &[String], arguments: &ModelsArguments) -> Result<(), Failure> {
    let catalog = Catalog::new(&Configuration::of_user()?);
    let mut files: Vec<Verifiable> = match names {
        [] => catalog.verifiable(),
        _ => Vec::new(),
    };
    for name in names {
        let named = catalog.verifiable_as(name)?;
        if named.is_empty() {
            return Err(Failure::no_such_name(name));
        }
        files.extend(named);
    }
    let total: u64 = files.iter().map(|file| file.file.bytes).sum();
    let printer = arguments.printer();
    let state = Arc::new(Mutex::new(ByteProgress::new(Instant::now(), 0, total)));
    let shown = state.clone();
    let activity = Activity::start(printer, move |place| {
        let progress = shown.lock().unwrap_or_else(PoisonError::into_inner);
        Some(progress.text("checking", place, Instant::now()))
    });
    let interrupt = signals::interrupt()?;
    let mut wrong: Vec<&Verifiable> = Vec::new();
    let mut unchecked = 0;
    for file in &files {
        let verdict = file.file.verify(&mut |read| {
            let mut progress = state.lock().unwrap_or_else(PoisonError::into_inner);
            progress.add(Instant::now(), read);
            !interrupt.is_raised()
        });
        let outcome = match verdict {
            Ok(verdict) => Outcome::Checked(verdict),
            Err(sd_hub::Error::Stopped) => {
                let again = "the same command starts the check again".to_owned();
                return Err(Failure::from(sd_hub::Error::Stopped).advising(again));
            }
            Err(error) => Outcome::Unread(Failure::from(error).message().to_owned()),
        };
        if outcome.is_wrong() {
            wrong.push(file);
        }
        unchecked += usize::from(matches!(outcome, Outcome::Checked(Verdict::Unknown { .. })));
        match arguments.json {
            true => terminal::print_json(outcome.event(file)),
            false => outcome.print(file, arguments.quiet),
        }
    }
    drop(activity);
    match wrong.first() {
        None => {
            let total = Bytes(total);
            printer.note(&match (files.len(), unchecked) {
                (0, _) => "There is nothing to check.".to_owned(),
                (1, 0) => format!("1 file, {total}: it is not damaged"),
                (1, _) => format!("1 file, {total}: there is no hash to compare it with"),
                (count, 0) => format!("{count} files, {total}: none is damaged"),
                (count, unchecked) => format!(
                    "{count} files, {total}: none is damaged, as far as there are hashes to compare with ({unchecked} have none)"
                ),
            });
            Ok(())
        }
        Some(first) => {
            let names: Vec<String> = wrong.iter().map(|file| format!("`{}`", file.name)).collect();
            let id = first.repository.as_ref().map(|id| id.as_str());
            Err(Failure::of_files(&names, files.len(), id))
        }
    }
}

impl Outcome {
    /// Whether the file is not as it should be.
    fn is_wrong(&self) -> bool {
        !matches!(self, Self::Checked(Verdict::Intact | Verdict::Unknown { .. }))
    }

    /// Prints a line for `file`; with `quiet` only what is wrong, and hashes without anything to compare with.
    fn print(&self, file: &Verifiable, quiet: bool) {
        let name = &file.name;
        terminal::print_line(&match self {
            Self::Checked(Verdict::Intact) if quiet => return,
            Self::Checked(Verdict::Intact) => format!("{name}: intact"),
            Self::Checked(Verdict::Damaged { hash, wanted, found }) => {
                let path = file.file.path.display();
                let place = match file.repository {
                    Some(_) => format!(" ({path})"),
                    None => String::new(),
                };
                format!("{name}: damaged: {hash} is {found}, and should be {wanted}{place}")
            }
            Self::Checked(Verdict::Missing) => format!("{name}: missing"),
            // As `sha256sum` prints it.
            Self::Checked(Verdict::Unknown { sha256 }) => format!("{sha256}  {name}"),
            Self::Unread(reason) => format!("{name}: {reason}"),
        });
    }

    /// The JSON event of `file`.
    fn event(&self, file: &Verifiable) -> Value {
        let mut event = json!({
            "event": "verified",
            "name": file.name,
            "path": file.file.path,
            "bytes": file.file.bytes,
            "compared_with": file.source,
        });
        let (state, more) = match self {
            Self::Checked(Verdict::Intact) => ("intact", Vec::new()),
            Self::Checked(Verdict::Damaged { wanted, found, .. }) => {
                ("damaged", vec![("wanted", wanted), ("found", found)])
            }
            Self::Checked(Verdict::Missing) => ("missing", Vec::new()),
            Self::Checked(Verdict::Unknown { sha256 }) => ("unknown", vec![("sha256", sha256)]),
            Self::Unread(reason) => ("unreadable", vec![("reason", reason)]),
        };
        event["state"] = json!(state);
        for (key, value) in more {
            event[key] = json!(value);
        }
        event
    }
}
