//! The log of the libraries: their warnings, and the ends of a server's jobs, are printed as messages; with `RUST_LOG`
//! all events that pass its filter go to stderr.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use crate::terminal;

/// Installs the subscriber.
pub(crate) fn begin() {
    match EnvFilter::try_from_default_env() {
        Ok(filter) => tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init(),
        Err(_) => Registry::default().with(Warnings).init(),
    }
}

/// Prints the warnings of this workspace's crates, and the jobs of a server that have ended.
struct Warnings;

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let is_of_jobs = level == Level::INFO && target == sd_server::JOBS;
        if !is_of_jobs && (level > Level::WARN || !target.starts_with("sd_")) {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, prompt } = fields;
        match (is_of_jobs, prompt) {
            (true, Some(prompt)) => terminal::note(&format!("{message}: {prompt}")),
            (true, None) => terminal::note(&message),
            (false, _) => terminal::note(&format!("warning: {message}")),
        }
    }
}

/// What people are told of an event.
#[derive(Default)]
struct Fields {
    message: String,
    prompt: Option<String>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "prompt" => self.prompt = Some(value.to_owned()),
            _ => {}
        }
    }
}
