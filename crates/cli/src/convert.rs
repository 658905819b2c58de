//! `generate convert`: converts a model to another form.

use std::io::{IsTerminal, stderr};
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sd_catalog::{Catalog, Configuration};
use sd_pipeline::convert::{Conversion, ConversionReport};
use sd_pipeline::{Bytes, Error};
use serde_json::json;

use crate::arguments::ConvertArguments;
use crate::hint::Failure;
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
    let bar = (!arguments.quiet && !arguments.json && stderr().is_terminal()).then(new_bar);
    let outcome = conversion.run(&mut |progress| {
        if let Some(bar) = &bar {
            bar.set_length(progress.values);
            bar.set_position(progress.written);
        }
        !interrupt.is_raised()
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
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
        terminal::print_json(&json!({
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

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {percent} %, {eta} left") {
        bar.set_style(style);
    }
    bar
}
