//! Shares the images of a run out among several devices: a process for each, whose events become those of the command.

mod process;
mod progress;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sd_pipeline::{DeviceChoice, Interrupt, Request, Share};
use serde_json::{Value, json};

use crate::activity::Activity;
use crate::hint::Failure;
use crate::printer::Printer;
use crate::run::Show;
use crate::share::Task;
use crate::{json, signals, terminal, viewer};
use process::{DeviceProcess, Said};
use progress::DevicesProgress;

/// The time between two looks at whether the command is interrupted.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Generates the images of `requests` on `devices`, with so many CPU `threads` in all.
///
/// # Errors
/// A device has failed, or the command was interrupted. The other devices have saved their images.
pub(crate) fn generate(
    requests: &[&Request],
    devices: &[DeviceChoice],
    threads: Option<NonZeroUsize>,
    show: Show<'_>,
) -> Result<(), Failure> {
    let printer = show.printer;
    refuse_contradictions(show)?;
    let begun = Instant::now();
    let shares = Share::out(requests, devices)?;
    let interrupt = signals::interrupt()?;
    for share in &shares {
        let (device, images) = (share.device().to_string(), share.images());
        printer.note(&match images.len() {
            1 => format!("{device} generates image {}", images.end),
            _ => format!("{device} generates images {} to {}", images.start + 1, images.end),
        });
    }
    let images = shares.iter().map(|share| share.images().len()).sum();
    let progress = Arc::new(Mutex::new(DevicesProgress::new(shares.len(), images)));
    let shown = progress.clone();
    let activity = Activity::start(printer, move |place| Some(locked(&shown).text(place)));
    let (sender, receiver) = mpsc::channel();
    let count = shares.len();
    let threads = threads_each(threads, count);
    let mut run = DevicesRun {
        printer,
        devices: shares.iter().map(|share| share.device().to_string()).collect(),
        processes: Vec::new(),
        progress,
        warnings: Vec::new(),
        saved: Vec::new(),
        kept: Vec::new(),
        failure: None,
        has_told: vec![false; count],
        interrupt,
        outputs: outputs(requests),
    };
    for (number, share) in shares.into_iter().enumerate() {
        let task = Task {
            share,
            threads,
            previews: show.preview.is_some(),
        };
        let process = DeviceProcess::start(&task, number, sender.clone()).map_err(|error| {
            let device = &run.devices[number];
            Failure::other(format!("the process of {device} cannot be started: {error}"))
        })?;
        run.processes.push(process);
    }
    drop(sender);
    run.follow(&receiver, &activity);
    drop(activity);
    let images = run.outcome()?;
    printer.note(&format!("Done in {:.1} s", begun.elapsed().as_secs_f64()));
    if let (true, Some(first)) = (show.opens, images.first()) {
        viewer::open_or_warn(first, printer);
    }
    Ok(())
}

/// Refuses what shows a single run.
fn refuse_contradictions(show: Show<'_>) -> Result<(), Failure> {
    let one_run = [
        (show.profile.is_some(), "--profile"),
        // With --json previews are events, which say whose they are.
        (show.preview.is_some() && !show.printer.json, "--preview"),
    ];
    match one_run.into_iter().find(|(is_given, _)| *is_given) {
        Some((_, option)) => Err(Failure::usage(format!(
            "{option} shows one device, and these are several"
        ))),
        None => Ok(()),
    }
}

/// The CPU threads of each of `count` processes.
fn threads_each(threads: Option<NonZeroUsize>, count: usize) -> NonZeroUsize {
    let all = threads.or_else(|| thread::available_parallelism().ok());
    let each = all.map_or(1, NonZeroUsize::get) / count.max(1);
    NonZeroUsize::new(each).unwrap_or(NonZeroUsize::MIN)
}

/// The output folders of `requests`, and how the user named them.
fn outputs(requests: &[&Request]) -> Vec<(PathBuf, PathBuf)> {
    let outputs = requests.iter().filter_map(|request| {
        let absolute = std::path::absolute(&request.output).ok()?;
        Some((absolute, request.output.clone()))
    });
    outputs.collect()
}

fn locked(progress: &Mutex<DevicesProgress>) -> MutexGuard<'_, DevicesProgress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The processes of a run, and what they have said.
struct DevicesRun {
    printer: Printer,
    /// The names of the devices.
    devices: Vec<String>,
    processes: Vec<DeviceProcess>,
    progress: Arc<Mutex<DevicesProgress>>,
    /// What was warned of: each device notices the same.
    warnings: Vec<String>,
    saved: Vec<PathBuf>,
    /// The runs that can be resumed.
    kept: Vec<String>,
    /// The first failure.
    failure: Option<Failure>,
    /// Which devices have ended, or have said why they fail.
    has_told: Vec<bool>,
    interrupt: &'static Interrupt,
    /// The output folders, and how the user named them.
    outputs: Vec<(PathBuf, PathBuf)>,
}

impl DevicesRun {
    /// Shows what the processes say until all have ended.
    fn follow(&mut self, receiver: &Receiver<(usize, Said)>, activity: &Activity) {
        loop {
            match receiver.recv_timeout(POLL_INTERVAL) {
                Ok((device, Said::Event(event))) => {
                    locked(&self.progress).observe(device, &event);
                    self.show(device, event);
                    activity.draw();
                }
                Ok((device, Said::End)) => {
                    locked(&self.progress).end(device);
                    let reason = self.processes[device].wait();
                    if let Some(reason) = reason.filter(|_| !self.has_told[device]) {
                        let message = format!("{}: its process ended: {reason}", self.devices[device]);
                        let hint = "`generate resume` lists the runs that can be resumed".to_owned();
                        let failure = Failure::other(message.clone()).advising(hint);
                        self.fail(device, &message, failure);
                    }
                    self.has_told[device] = true;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.interrupt.is_raised() {
                self.processes.iter_mut().for_each(DeviceProcess::interrupt);
            }
        }
    }

    /// Shows an event of `device`.
    fn show(&mut self, device: usize, mut event: Value) {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        match text("event").as_str() {
            "error" => {
                let code = event["code"].as_u64().and_then(|code| u8::try_from(code).ok());
                let hint = event["hint"].as_str();
                let failure = Failure::of_device(&self.devices[device], &text("message"), hint, code);
                self.fail(
                    device,
                    &format!("{}: {}", self.devices[device], text("message")),
                    failure,
                );
                // The command ends with an error of its own.
                return;
            }
            "warning" => {
                let message = text("message");
                if self.warnings.contains(&message) {
                    return;
                }
                self.printer.warn(&message);
                self.warnings.push(message);
            }
            "saved" => {
                let image = self.as_named(&text("image"));
                event["metadata"] = json!(self.as_named(&text("metadata")));
                event["image"] = json!(image);
                if !self.printer.json {
                    terminal::print_path(&image);
                }
                self.saved.push(image);
            }
            "kept" => self.kept.push(text("run")),
            _ => {}
        }
        if self.printer.json {
            event["device"] = json!(self.devices[device]);
            terminal::print_json(event);
        }
    }

    /// Takes note of a failure of `device`, and tells of it now if others go on for long.
    fn fail(&mut self, device: usize, message: &str, failure: Failure) {
        self.has_told[device] = true;
        let goes_on = self.has_told.iter().any(|has_told| !has_told);
        if goes_on && !self.interrupt.is_raised() {
            let warning = format!("{message}; the other devices go on");
            json::warn_outside_runs(self.printer, &warning);
        }
        self.failure.get_or_insert(failure);
    }

    /// The path of `file` below an output folder as the user named it.
    fn as_named(&self, file: &str) -> PathBuf {
        let below = |(absolute, named): &(PathBuf, PathBuf)| {
            Some(named.join(Path::new(file).strip_prefix(absolute).ok()?))
        };
        self.outputs
            .iter()
            .find_map(below)
            .unwrap_or_else(|| PathBuf::from(file))
    }

    /// The images, in the order of their names.
    fn outcome(self) -> Result<Vec<PathBuf>, Failure> {
        match self.failure {
            Some(failure) => Err(failure.resuming(&self.kept)),
            None => {
                let mut images = self.saved;
                images.sort();
                Ok(images)
            }
        }
    }
}
