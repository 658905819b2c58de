//! What a person or a program sees of a download: one bar over all files, or events at a modest rate.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sd_hub::{Event, Observer};
use sd_pipeline::{Bytes, Interrupt};
use serde_json::json;

use crate::printer::Printer;
use crate::terminal;

/// The display of one call's downloads.
pub(crate) struct DownloadProgress<'a> {
    json: bool,
    quiet: bool,
    interrupt: &'a Interrupt,
    /// Only where stderr is a terminal.
    bar: Option<ProgressBar>,
    told: Option<Instant>,
}

impl<'a> DownloadProgress<'a> {
    /// The least time between two JSON events of bytes.
    const PACE: Duration = Duration::from_millis(500);

    pub(crate) fn new(printer: Printer, interrupt: &'a Interrupt) -> Self {
        Self {
            json: printer.json,
            quiet: printer.quiet,
            interrupt,
            bar: None,
            told: None,
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn progress(&mut self, file: &str, done: u64, total: u64) {
        if self.json {
            let is_due = self.told.is_none_or(|told| told.elapsed() >= Self::PACE);
            if is_due || done == total {
                self.told = Some(Instant::now());
                let event = json!({ "event": "downloading", "file": file, "bytes": done, "of": total });
                terminal::print_json(&event);
            }
        } else if !self.quiet && stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| new_bar(done, total));
            bar.set_position(done);
            let rate = Bytes(bar.per_sec() as u64);
            bar.set_message(format!("{} of {}, {rate}/s", Bytes(done), Bytes(total)));
        }
    }

    fn note(&self, line: &str) {
        if self.quiet || self.json {
            return;
        }
        match &self.bar {
            Some(bar) => bar.suspend(|| terminal::note(line)),
            None => terminal::note(line),
        }
    }
}

/// A bar on which `done` of `total` bytes were here before it began.
fn new_bar(done: u64, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_position(done);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}, {eta} left") {
        bar.set_style(style);
    }
    bar.reset_eta();
    bar
}

impl Observer for DownloadProgress<'_> {
    fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Progress { file, done, total } => self.progress(file, *done, *total),
            Event::Waiting { file } => self.note(&format!("waiting for another process that fetches {file}")),
            Event::Retrying { file, reason, pause } => self.note(&format!(
                "{file}: {reason}; once more in {:.1} s",
                pause.as_secs_f64()
            )),
            _ => {}
        }
    }

    fn is_stopped(&self) -> bool {
        self.interrupt.is_raised()
    }
}
