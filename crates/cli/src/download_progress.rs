//! [`DownloadProgress`]: prints the size of a download, then one progress bar over all files, or JSON events.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sd_catalog::FetchObserver;
use sd_hub::{Download, Event, Observer};
use sd_pipeline::Bytes;
use serde_json::{Value, json};

use crate::printer::Printer;
use crate::{signals, terminal};

/// The display of downloads, which signals stop.
pub(crate) struct DownloadProgress {
    printer: Printer,
    /// Only where stderr is a terminal.
    bar: Option<ProgressBar>,
    /// When the last progress event was written.
    written: Option<Instant>,
}

impl DownloadProgress {
    /// The minimum time between two progress events in JSON.
    const PACE: Duration = Duration::from_millis(500);

    /// A display that shows nothing yet.
    pub(crate) fn new(printer: Printer) -> Self {
        Self {
            printer,
            bar: None,
            written: None,
        }
    }

    fn progress(&mut self, file: &str, done: u64, total: u64) {
        if self.printer.json {
            let is_due = self.written.is_none_or(|written| written.elapsed() >= Self::PACE);
            if is_due || done == total {
                self.written = Some(Instant::now());
                let event = json!({ "event": "downloading", "file": file, "bytes": done, "of": total });
                terminal::print_json(&event);
            }
        } else if !self.printer.quiet && stderr().is_terminal() {
            let bar = self.bar.get_or_insert_with(|| new_bar(done, total));
            bar.set_position(done);
            let rate = Bytes(bar.per_sec() as u64);
            bar.set_message(format!("{} of {}, {rate}/s", Bytes(done), Bytes(total)));
        }
        if done == total {
            self.finish();
        }
    }

    fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.printer.note(line)),
            None => self.printer.note(line),
        }
    }

    /// Removes the bar.
    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for DownloadProgress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// A bar that starts with `done` of `total` bytes.
fn new_bar(done: u64, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_position(done);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}, {eta} left") {
        bar.set_style(style);
    }
    bar.reset_eta();
    bar
}

impl Observer for DownloadProgress {
    fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Progress { file, done, total } => self.progress(file, *done, *total),
            Event::Waiting { file } => {
                self.note(&format!("waiting for another process that downloads {file}"))
            }
            Event::Retrying { file, reason, pause } => self.note(&format!(
                "{file}: {reason}; retrying in {:.1} s",
                pause.as_secs_f64()
            )),
            _ => {}
        }
    }

    fn is_stopped(&self) -> bool {
        // The signal handler is installed with the first download: until then a signal ends the process.
        signals::interrupt().is_ok_and(|interrupt| interrupt.is_raised())
    }
}

impl FetchObserver for DownloadProgress {
    fn prepared(&mut self, downloads: &[Download]) {
        let total = |bytes: fn(&Download) -> u64| downloads.iter().map(bytes).sum::<u64>();
        let (all, left) = (total(Download::bytes), total(Download::bytes_left));
        if self.printer.json {
            let of = |download: &Download| json!({ "id": download.id().as_str(), "bytes": download.bytes(), "bytes_left": download.bytes_left() });
            let repositories: Vec<Value> = downloads.iter().map(of).collect();
            let event = json!({ "event": "download", "bytes": all, "bytes_left": left, "repositories": repositories });
            terminal::print_json(&event);
        } else if !self.printer.quiet && left > 0 {
            let of = |download: &Download| format!("{} ({})", download.id(), Bytes(download.bytes()));
            let what = match downloads {
                [download] => format!("{}: {}", download.id(), Bytes(all)),
                several => format!(
                    "{} of {}",
                    Bytes(all),
                    several.iter().map(of).collect::<Vec<_>>().join(", ")
                ),
            };
            let here = match all - left {
                0 => String::new(),
                here => format!(", {} of it downloaded already", Bytes(here)),
            };
            terminal::note(&format!("Downloading {what}{here}"));
        }
    }
}
