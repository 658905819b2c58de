//! OpenAI's images: `/v1/images/generations`, `/v1/images/edits` and `/v1/models`.
//!
//! The fields are those of OpenAI's API reference. What this program draws with and OpenAI's service has not (steps,
//! seeds, LoRA, ControlNets) is taken under the names of `/api/jobs`, as the libraries' `extra_body` sends it. Fields
//! that no image depends on here are ignored; a transparent background is refused.

mod edits;
mod fields;
mod reply;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use sd_pipeline::bundle::Kind;
use serde_json::{Map, Value, json};

use super::Shared;
use super::body::{self, Body, blocking};
use super::error::{Answer, ApiError, json_response};
use super::models::here;
use super::outcome::Awaited;
use crate::access::User;
use crate::prepare;
use fields::Wanted;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/images/generations", post(generations))
        .route("/v1/images/edits", post(edits::edits))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
}

async fn generations(State(server): State<Shared>, Extension(user): Extension<User>, body: Body) -> Response {
    let fields = body::json::<Map<String, Value>>(body);
    match fields {
        Ok(fields) => answer(server, user, fields).await,
        Err(error) => error.as_openai(),
    }
}

/// Generates the images that `fields` ask for, and answers with them, or with a stream of events.
async fn answer(server: Shared, user: User, fields: Map<String, Value>) -> Response {
    match answered(server, user, fields).await {
        Ok(response) => response,
        Err(error) => error.as_openai(),
    }
}

async fn answered(server: Shared, user: User, fields: Map<String, Value>) -> Answer<Response> {
    let models = blocking({
        let server = server.clone();
        move || Ok::<_, ApiError>(here(&prepare::catalog(&server.options), Kind::Model))
    })
    .await?;
    let Wanted { request, reply } = fields::wanted(fields, &models)?;
    // A name that a client gives its own users, so that these take turns.
    let user = match &reply.user {
        Some(name) if server.options.keys.are_none() => name.clone(),
        _ => user.0,
    };
    let awaited = Awaited::submit(&server, request, user).await?;
    if reply.streams {
        return Ok(reply::stream(awaited, reply).into_response());
    }
    let (job, files) = awaited.images().await?;
    let body = blocking(move || reply::body(&job, &files, &reply)).await?;
    Ok(json_response(StatusCode::OK, &body))
}

async fn models(State(server): State<Shared>) -> Response {
    match names(server).await {
        Ok(names) => {
            let data: Vec<Value> = names.iter().map(|name| described(name)).collect();
            json_response(StatusCode::OK, &json!({ "object": "list", "data": data }))
        }
        Err(error) => error.as_openai(),
    }
}

async fn model(
    State(server): State<Shared>,
    axum::extract::Path(name): axum::extract::Path<String>,
) -> Response {
    match names(server).await {
        Ok(names) if names.contains(&name) => json_response(StatusCode::OK, &described(&name)),
        Ok(_) => ApiError::not_found("model").as_openai(),
        Err(error) => error.as_openai(),
    }
}

async fn names(server: Shared) -> Answer<Vec<String>> {
    blocking(move || Ok::<_, ApiError>(here(&prepare::catalog(&server.options), Kind::Model))).await
}

fn described(name: &str) -> Value {
    json!({ "id": name, "object": "model", "created": 0, "owned_by": "local" })
}
