//! What runs, and how it is stopped.

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use sd_pipeline::memory::memory_info;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::Shared;
use super::super::error::json_response;
use crate::access::User;
use crate::lock::lock;

#[derive(Debug, Default, Deserialize)]
pub(super) struct ProgressQuery {
    #[serde(default)]
    skip_current_image: Option<String>,
}

pub(super) async fn progress(
    State(server): State<Shared>,
    Extension(user): Extension<User>,
    query: Result<Query<ProgressQuery>, QueryRejection>,
) -> Response {
    let skips = query.ok().and_then(|Query(query)| query.skip_current_image);
    let skips = matches!(skips.as_deref(), Some("true" | "True" | "1"));
    let all = server.running_of(&user);
    // This interface knows one job at a time: the one that has run the longest.
    let running = all.first();
    let (progress, preview) = match running {
        Some(running) => (lock(&running.progress).clone(), lock(&running.preview).clone()),
        None => (None, None),
    };
    let is_cancelled = running.is_some_and(|running| running.is_cancelled());
    let of = |value: fn(&crate::job::Progress) -> Value| progress.as_ref().map_or(json!(0), value);
    let image = preview.filter(|_| !skips).map(|preview| preview.png);
    let body = json!({
        "progress": of(|progress| json!(progress.fraction)),
        "eta_relative": of(|progress| json!(progress.seconds_left.unwrap_or(0.0))),
        "state": {
            "skipped": false,
            "interrupted": is_cancelled,
            "stopping_generation": is_cancelled,
            "job": running.map_or(String::new(), |running| running.id.to_string()),
            "job_count": all.len(),
            "job_timestamp": "",
            "job_no": of(|progress| json!(progress.image)),
            "sampling_step": of(|progress| json!(progress.step)),
            "sampling_steps": of(|progress| json!(progress.steps)),
        },
        "current_image": image,
        "textinfo": progress.as_ref().map(|progress| progress.stage.clone()),
    });
    json_response(StatusCode::OK, &body)
}

/// Cancels the jobs of the user that run.
pub(super) async fn interrupt(State(server): State<Shared>, Extension(user): Extension<User>) -> Response {
    for running in server.running_of(&user) {
        running.cancel();
    }
    json_response(StatusCode::OK, &json!({}))
}

pub(super) async fn memory() -> Response {
    let memory = memory_info();
    let ram =
        json!({ "free": memory.system_available, "used": memory.process, "total": memory.system_total });
    json_response(StatusCode::OK, &json!({ "ram": ram, "cuda": {} }))
}

/// Gives the memory of the model back.
pub(super) async fn unload(State(server): State<Shared>) -> Response {
    server.release();
    json_response(StatusCode::OK, &json!({}))
}

/// Models are found anew with each request.
pub(super) async fn nothing() -> Response {
    json_response(StatusCode::OK, &json!({}))
}
