//! [`DownloadProgress`]: prints the size of a download, then how far it has come, over all files, or JSON events.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sd_catalog::FetchObserver;
use sd_hub::{Download, Event, Observer, Reference};
use sd_pipeline::Bytes;
use serde_json::{Value, json};

use crate::activity::{Activity, Place};
use crate::byte_progress::ByteProgress;
use crate::printer::Printer;
use crate::progress::clock;
use crate::{signals, terminal};

/// The display of downloads, which signals stop.
pub(crate) struct DownloadProgress {
    printer: Printer,
    state: Arc<Mutex<State>>,
    /// From the first request to the last byte.
    activity: Option<Activity>,
    /// When the last progress event was written.
    written: Option<Instant>,
}

/// What happens now.
#[derive(Debug)]
enum State {
    /// The files of a repository are asked for.
    Listing { what: String, begun: Instant },
    /// Files are downloaded.
    Downloading(ByteProgress),
}

impl State {
    fn text(&self, place: Place, now: Instant) -> String {
        match self {
            Self::Listing { what, begun } => {
                let elapsed = clock(now.saturating_duration_since(*begun));
                format!("asking the hub for {what}: {elapsed}")
            }
            Self::Downloading(progress) => progress.text("downloading", place, now),
        }
    }
}

impl DownloadProgress {
    /// The minimum time between two progress events in JSON.
    const PACE: Duration = Duration::from_millis(500);

    /// A display that shows nothing yet.
    pub(crate) fn new(printer: Printer) -> Self {
        Self {
            printer,
            state: Arc::new(Mutex::new(State::Listing {
                what: String::new(),
                begun: Instant::now(),
            })),
            activity: None,
            written: None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows `state` from now on.
    fn show(&mut self, state: State) {
        *self.state() = state;
        let shown = self.state.clone();
        let text = move |place| {
            let state = shown.lock().unwrap_or_else(PoisonError::into_inner);
            Some(state.text(place, Instant::now()))
        };
        self.activity
            .get_or_insert_with(|| Activity::start(self.printer, text))
            .draw();
    }

    fn progress(&mut self, file: &str, done: u64, total: u64) {
        if self.printer.json {
            let is_due = self.written.is_none_or(|written| written.elapsed() >= Self::PACE);
            if is_due || done == total {
                self.written = Some(Instant::now());
                let event = json!({ "event": "downloading", "file": file, "bytes": done, "of": total });
                terminal::print_json(event);
            }
            return;
        }
        let now = Instant::now();
        let is_known = match &mut *self.state() {
            State::Downloading(progress) => {
                progress.set(now, done);
                true
            }
            State::Listing { .. } => false,
        };
        if !is_known {
            self.show(State::Downloading(ByteProgress::new(now, done, total)));
        }
        if done == total {
            self.activity = None;
        }
    }
}

impl Observer for DownloadProgress {
    fn observe(&mut self, event: &Event<'_>) {
        match event {
            Event::Progress { file, done, total } => self.progress(file, *done, *total),
            Event::Waiting { file } => self
                .printer
                .note(&format!("waiting for another process that downloads {file}")),
            Event::Retrying { file, reason, pause } => self.printer.note(&format!(
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
    fn listing(&mut self, reference: &Reference) {
        self.show(State::Listing {
            what: reference.to_string(),
            begun: Instant::now(),
        });
    }

    fn prepared(&mut self, downloads: &[Download]) {
        let total = |bytes: fn(&Download) -> u64| downloads.iter().map(bytes).sum::<u64>();
        let (all, left) = (total(Download::bytes), total(Download::bytes_left));
        if self.printer.json {
            let of = |download: &Download| json!({ "id": download.id().as_str(), "bytes": download.bytes(), "bytes_left": download.bytes_left() });
            let repositories: Vec<Value> = downloads.iter().map(of).collect();
            let event = json!({ "event": "download", "bytes": all, "bytes_left": left, "repositories": repositories });
            terminal::print_json(event);
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
