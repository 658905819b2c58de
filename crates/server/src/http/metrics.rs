//! `/metrics`: counters and gauges in the text format of Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use sd_pipeline::memory::memory_info;

use super::Shared;
use super::body::blocking;
use super::error::{Answer, ApiError};
use crate::lock::lock;
use crate::running::Running;

pub(super) async fn metrics(State(server): State<Shared>) -> Answer<Response> {
    let text = blocking(move || {
        let counts = server.store.counts().map_err(ApiError::from)?;
        let memory = memory_info();
        let running = server.running();
        let fraction = |running: &Running| lock(&running.progress).as_ref().map(|progress| progress.fraction);
        let fractions: f64 = running.iter().filter_map(|running| fraction(running)).sum();
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
            // A string takes every line.
            let _ = writeln!(
                text,
                "# HELP sd_generate_{name} {help}\n# TYPE sd_generate_{name} {kind}"
            );
            for (labels, value) in values {
                let _ = writeln!(text, "sd_generate_{name}{labels} {value}");
            }
        };
        let states: Vec<(String, f64)> = counts
            .iter()
            .map(|(state, count)| (format!("{{state=\"{}\"}}", state.name()), *count as f64))
            .collect();
        metric("jobs", "gauge", "Jobs that are kept, by state.", &states);
        let totals = &server.totals;
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed) as f64;
        let ended = [
            ("done", &totals.done),
            ("failed", &totals.failed),
            ("cancelled", &totals.cancelled),
        ];
        let ended = ended.map(|(state, count)| (format!("{{state=\"{state}\"}}"), load(count)));
        metric("jobs_ended_total", "counter", "Jobs that have ended.", &ended);
        let single = |value: f64| [(String::new(), value)];
        metric(
            "jobs_accepted_total",
            "counter",
            "Jobs that were accepted.",
            &single(load(&totals.accepted)),
        );
        metric(
            "requests_refused_total",
            "counter",
            "Requests without a key, from other pages, or too many.",
            &single(load(&totals.refused)),
        );
        metric(
            "images_total",
            "counter",
            "Images that were generated.",
            &single(load(&totals.images)),
        );
        metric(
            "busy_seconds_total",
            "counter",
            "Time in which jobs ran.",
            &single(load(&totals.busy) / 1000.0),
        );
        metric(
            "progress_ratio",
            "gauge",
            "How far the running jobs are, as their mean.",
            &single(fractions / running.len().max(1) as f64),
        );
        metric(
            "loaded_bytes",
            "gauge",
            "Weights and prompts that stay in memory between jobs.",
            &single(server.loaded() as f64),
        );
        metric(
            "process_bytes",
            "gauge",
            "Memory of the process.",
            &single(memory.process.0 as f64),
        );
        metric(
            "uptime_seconds",
            "gauge",
            "Since the server began.",
            &single(server.uptime().as_secs_f64()),
        );
        Ok::<_, ApiError>(text)
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
