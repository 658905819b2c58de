//! What the log says of jobs.

use crate::job::{Job, State};

/// The target of the events that say what became of jobs.
pub const JOBS: &str = "sd_server::jobs";

/// Logs the end of a job: a sentence for people, and fields for programs. Its prompt only if `with_prompt`.
pub(crate) fn ended(job: &Job, with_prompt: bool) {
    let seconds = job.started.zip(job.finished);
    let seconds = seconds.map(|(started, finished)| (finished - started) as f64 / 1000.0);
    tracing::info!(
        target: JOBS,
        job = job.id.as_str(),
        state = job.state.name(),
        user = job.user,
        model = job.model,
        images = job.images.len(),
        seconds,
        error = job.error.as_ref().map(|error| error.message.as_str()),
        prompt = with_prompt.then_some(job.request.prompt.as_str()),
        "{}",
        sentence(job, seconds)
    );
}

/// Such as "job 1a2b3c4d of ann: 2 images in 3.2 s".
fn sentence(job: &Job, seconds: Option<f64>) -> String {
    let id = job.id.as_str();
    let id = id.get(..8).unwrap_or(id);
    let time = seconds.map_or_else(String::new, |seconds| format!(" in {seconds:.1} s"));
    let outcome = match (job.state, &job.error) {
        (State::Done, _) if job.images.len() == 1 => format!("1 image{time}"),
        (State::Done, _) => format!("{} images{time}", job.images.len()),
        (state, Some(error)) => format!("{}: {}", state.name(), error.message),
        (state, None) => state.name().to_owned(),
    };
    format!("job {id} of {}: {outcome}", job.user)
}
