//! `generate convert`: converts a model to another form.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sd_catalog::{Catalog, Configuration};
use sd_pipeline::convert::{Conversion, ConversionProgress, ConversionReport};
use sd_pipeline::{Bytes, Error};
use serde_json::json;

use crate::activity::{Activity, Place};
use crate::arguments::ConvertArguments;
use crate::hint::Failure;
use crate::progress::{bar, clock};
use crate::{signals, terminal};

/// The most names of tensors that are listed.
const MOST_LISTED: usize = 10;

/// Converts the model.
///
/// # Errors
/// The model is not here or cannot be read, the output is there or cannot be written, or the user interrupted
/// the conversion.
pub(crate) fn run(arguments: &ConvertArguments) -> Result<(), Failure> {
    let output = sd_files::native(&arguments.output);
    let conversion = Conversion {
        from: Catalog::new(&Configuration::of_user()?).local_model(&arguments.model)?,
        to: output.clone(),
        layout: arguments.layout(),
        encoding: arguments.to,
        replace: arguments.force,
    };
    let interrupt = signals::interrupt()?;
    let (begun, state) = (Instant::now(), Arc::new(Mutex::new(None)));
    let shown = state.clone();
    let activity = Activity::start(arguments.printer(), move |place| {
        let progress = shown.lock().unwrap_or_else(PoisonError::into_inner);
        Some(text(progress.as_ref(), place, begun))
    });
    let outcome = conversion.run(&mut |progress| {
        *state.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
        !interrupt.is_raised()
    });
    drop(activity);
    let report = outcome.map_err(|error| Failure::from(Error::from(error)))?;
    tell(&report, &output, arguments);
    Ok(())
}

/// Prints the report, and the path last.
fn tell(report: &ConversionReport, path: &Path, arguments: &ConvertArguments) {
    if arguments.json {
        let types: serde_json::Map<_, _> = report
            .types
            .iter()
            .map(|(name, bytes)| (name.clone(), json!(bytes)))
            .collect();
        terminal::print_json(json!({
            "event": "converted",
            "path": path,
            "bytes": report.bytes,
            "tensors": report.tensors,
            "types": types,
            "dropped": report.dropped,
        }));
        return;
    }
    let printer = arguments.printer();
    let types: Vec<String> = report
        .types
        .iter()
        .map(|(name, bytes)| format!("{} in {name}", Bytes(*bytes)))
        .collect();
    printer.note(&format!("{} tensors: {}", report.tensors, types.join(", ")));
    if !report.dropped.is_empty() {
        let listed = report
            .dropped
            .iter()
            .take(MOST_LISTED)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        let more = report.dropped.len().saturating_sub(MOST_LISTED);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        printer.note(&format!("left out, since no network reads them: {listed}{more}"));
    }
    terminal::print_path(path);
}

/// How far the conversion has come.
fn text(progress: Option<&ConversionProgress>, place: Place, begun: Instant) -> String {
    let elapsed = clock(begun.elapsed());
    let Some(ConversionProgress { written, values }) = progress else {
        return format!("converting: {elapsed}");
    };
    let bar = match place {
        Place::StatusLine => format!("{} ", bar(*written, *values)),
        Place::Line => String::new(),
    };
    let percent = (100 * u128::from(*written))
        .checked_div(u128::from(*values))
        .unwrap_or(100);
    format!("converting: {bar}{percent} %, {elapsed}")
}
