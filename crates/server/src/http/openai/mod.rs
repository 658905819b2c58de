//! OpenAI's images: `/v1/images/generations`, `/v1/images/edits` and `/v1/models`.
//!
//! The fields are those of OpenAI's API reference. What this program draws with and OpenAI's service has not (steps,
//! seeds, LoRA, ControlNets) is taken under the names of `/api/jobs`, as the libraries' `extra_body` sends it. Fields
//! that no image depends on here are ignored; a transparent background is refused.

mod edits;
mod fields;
mod reply;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use sd_pipeline::bundle::Kind;
use serde_json::{Map, Value, json};

use super::Shared;
use super::body::{self, Body, blocking};
use super::error::{Answer, ApiError, json_response};
use super::models::here;
use super::outcome::{Awaited, check_done};
use crate::access::User;
use fields::{Task, Wanted};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/images/generations", post(generations))
        .route("/v1/images/edits", post(edits::edits))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
}

async fn generations(
    State(server): State<Shared>,
    Extension(user): Extension<User>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = async {
        let fields = body::json::<Map<String, Value>>(body).await?;
        answer(server, user, &headers, Task::Generation, fields).await
    };
    shaped(answer.await)
}

/// An answer in the shape of this interface.
fn shaped(answer: Answer<Response>) -> Response {
    answer.unwrap_or_else(|error| error.as_openai())
}

/// Generates the images that `fields` ask for, and answers with them, or with a stream of events.
async fn answer(
    server: Shared,
    user: User,
    headers: &HeaderMap,
    task: Task,
    fields: Map<String, Value>,
) -> Answer<Response> {
    let models = names(&server).await?;
    let Wanted { request, mut reply } = fields::wanted(fields, task, &models)?;
    reply.address = address(headers);
    // A name that a client gives its own users, so that these take turns.
    let user = match &reply.user {
        Some(name) if server.options.keys.are_none() => name.clone(),
        _ => user.0,
    };
    let awaited = Awaited::submit(&server, request, user).await?;
    if reply.streams {
        return Ok(reply::stream(awaited, reply).into_response());
    }
    let (job, files) = awaited.ended().await?;
    check_done(&job)?;
    let body = blocking(move || reply::body(&job, &files, &reply)).await?;
    Ok(json_response(StatusCode::OK, &body))
}

/// The address of this server, as the client has asked for it: through a proxy that adds encryption, or as it is.
fn address(headers: &HeaderMap) -> String {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = match text("x-forwarded-proto") {
        Some("https") => "https",
        _ => "http",
    };
    format!("{scheme}://{}", text("host").unwrap_or_default())
}

async fn models(State(server): State<Shared>) -> Response {
    shaped(names(&server).await.map(|names| {
        let data: Vec<Value> = names.iter().map(|name| described(name)).collect();
        json_response(StatusCode::OK, &json!({ "object": "list", "data": data }))
    }))
}

async fn model(State(server): State<Shared>, name: Result<Path<String>, PathRejection>) -> Response {
    let is_own = |names: Vec<String>| {
        let Path(name) = name.ok()?;
        names.contains(&name).then_some(name)
    };
    shaped(names(&server).await.and_then(|names| {
        let name = is_own(names).ok_or_else(|| ApiError::not_found("model"))?;
        Ok(json_response(StatusCode::OK, &described(&name)))
    }))
}

async fn names(server: &Shared) -> Answer<Vec<String>> {
    let server = server.clone();
    blocking(move || Ok::<_, ApiError>(here(&server.terms().catalog(), Kind::Model))).await
}

fn described(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "local" })
}
