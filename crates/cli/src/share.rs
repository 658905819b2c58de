//! The process of one of several devices: it reads its share of the images from stdin and writes its events to stdout.
//!
//! `generate PROMPT --device cuda:all` starts one for each device. When its stdin ends, because the command was interrupted or
//! is gone, the run is interrupted after the current step.

use std::io::{self, BufRead, Read};
use std::num::NonZeroUsize;
use std::thread;

use sd_pipeline::{Engine, Request, Share};
use serde::{Deserialize, Serialize};

use crate::hint::Failure;
use crate::preview::PreviewChoice;
use crate::printer::Printer;
use crate::run::{self, Show};
use crate::signals;

/// The word of the command line that starts such a process. People do not type it.
pub(crate) const WORD: &str = "share-of-images";

/// What the process reads, in one line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) share: Share,
    /// CPU threads.
    pub(crate) threads: NonZeroUsize,
    /// Whether previews are among the events.
    pub(crate) previews: bool,
}

/// Generates the images of a share.
///
/// # Errors
/// Stdin holds no share, a model is gone, or the run failed.
pub(crate) fn run() -> Result<(), Failure> {
    let mut line = String::new();
    let unreadable = |reason: String| Failure::other(format!("stdin holds no share of images: {reason}"));
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| unreadable(error.to_string()))?;
    let task: Task = serde_json::from_str(&line).map_err(|error| unreadable(error.to_string()))?;
    let interrupt = signals::interrupt()?;
    let until_the_end = move || {
        // Nothing more comes: an error is an end too.
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        interrupt.raise();
    };
    thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(until_the_end)
        .map_err(|error| Failure::other(format!("the system refuses a thread: {error}")))?;
    sd_pipeline::device::compute_with(Some(task.threads))?;
    let requests = task
        .share
        .requests(&sd_catalog::user_dirs(), sd_catalog::model_of_run)?;
    let show = Show {
        printer: Printer {
            json: true,
            quiet: true,
            verbose: false,
        },
        profile: None,
        preview: task.previews.then_some(PreviewChoice::Automatic),
        opens: false,
    };
    run::execute(show, None, |observer, interrupt| {
        let requests: Vec<&Request> = requests.iter().collect();
        Engine::new()
            .keep_loaded()
            .run_all(&requests, observer, interrupt)
    })?;
    Ok(())
}
