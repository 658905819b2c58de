//! `/health` and `/ready`: whether the server lives, and whether it can take jobs.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::Shared;
use super::body::blocking;
use super::error::json_response;

pub(super) async fn health() -> Response {
    json_response(StatusCode::OK, &json!({ "status": "ok" }))
}

pub(super) async fn ready(State(server): State<Shared>) -> Response {
    let shared = server.clone();
    let waiting = blocking(move || {
        shared.try_disk()?;
        shared.store.waiting_count()
    })
    .await;
    let reason = match (waiting, server.stalled()) {
        (_, _) if server.is_stopping() => "the server stops".to_owned(),
        (_, Some(reason)) => reason,
        (Err(error), None) => error.message,
        (Ok(waiting), None) => {
            return json_response(StatusCode::OK, &json!({ "status": "ready", "waiting": waiting }));
        }
    };
    json_response(
        StatusCode::SERVICE_UNAVAILABLE,
        &json!({ "status": "not_ready", "reason": reason }),
    )
}
