//! What requests may name, and the settings that clients read and set.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sd_catalog::styles;
use sd_pipeline::bundle::Kind;
use sd_pipeline::scheduler::{SamplerKind, ScheduleKind};
use serde_json::{Map, Value, json};

use super::super::Shared;
use super::super::body::{self, Body, blocking};
use super::super::error::{Answer, ApiError, json_response};
use super::super::models::here;
use super::fields::without_hash;
use super::shaped;
use crate::lock::lock;

fn list(values: impl Iterator<Item = Value>) -> Response {
    json_response(StatusCode::OK, &Value::from_iter(values))
}

async fn names(server: &Shared, kind: Kind) -> Answer<Vec<String>> {
    let server = server.clone();
    blocking(move || Ok::<_, ApiError>(here(&server.terms().catalog(), kind))).await
}

/// A list of the names of a kind, each as `entry` has it.
async fn listed(server: Shared, kind: Kind, entry: fn(&String) -> Value) -> Response {
    shaped(
        names(&server, kind)
            .await
            .map(|names| list(names.iter().map(entry))),
    )
}

pub(super) async fn samplers() -> Response {
    list(SamplerKind::ALL.iter().map(|sampler| {
        json!({ "name": sampler.name(), "aliases": [sampler.name().to_lowercase().replace(' ', "_")], "options": {} })
    }))
}

pub(super) async fn schedulers() -> Response {
    list(ScheduleKind::ALL.iter().map(|schedule| {
        json!({
            "name": schedule.name(),
            "label": schedule.label(),
            "aliases": null,
            "default_rho": -1.0,
            "need_inner_model": false,
        })
    }))
}

pub(super) async fn models(State(server): State<Shared>) -> Response {
    listed(server, Kind::Model, |name| {
        json!({ "title": name, "model_name": name, "hash": null, "sha256": null, "filename": name, "config": null })
    })
    .await
}

pub(super) async fn loras(State(server): State<Shared>) -> Response {
    listed(
        server,
        Kind::Lora,
        |name| json!({ "name": name, "alias": name, "path": name, "metadata": {} }),
    )
    .await
}

pub(super) async fn upscalers(State(server): State<Shared>) -> Response {
    listed(
        server,
        Kind::Upscaler,
        |name| json!({ "name": name, "model_name": name, "model_path": null, "model_url": null, "scale": 4 }),
    )
    .await
}

pub(super) async fn styles() -> Response {
    list(styles::ALL.iter().map(|style| {
        json!({ "name": style.name, "prompt": style.words, "negative_prompt": style.negative_prompt })
    }))
}

pub(super) async fn none() -> Response {
    list(std::iter::empty())
}

pub(super) async fn scripts() -> Response {
    json_response(
        StatusCode::OK,
        &json!({ "txt2img": ["controlnet"], "img2img": ["controlnet"] }),
    )
}

pub(super) async fn embeddings() -> Response {
    json_response(StatusCode::OK, &json!({ "loaded": {}, "skipped": {} }))
}

pub(super) async fn flags() -> Response {
    json_response(StatusCode::OK, &json!({ "api": true }))
}

pub(super) async fn options(State(server): State<Shared>) -> Response {
    let chosen = lock(&server.chosen_model).clone();
    let default = server.options.configuration.defaults.model.clone();
    let model = chosen
        .or(default)
        .unwrap_or_else(|| sd_catalog::demo_model().name);
    let body = json!({
        "sd_model_checkpoint": model,
        "sd_checkpoint_hash": null,
        "sd_vae": "Automatic",
        "samples_format": "png",
        "CLIP_stop_at_last_layers": 1,
    });
    json_response(StatusCode::OK, &body)
}

/// Sets the model of later requests that name none. Other settings are refused.
pub(super) async fn set_options(State(server): State<Shared>, body: Body) -> Response {
    shaped(set(server, body).await)
}

async fn set(server: Shared, body: Body) -> Answer<Response> {
    let settings: Map<String, Value> = body::json(body).await?;
    let mut chosen = None;
    for (name, value) in settings {
        match (name.as_str(), value) {
            ("sd_model_checkpoint", Value::String(title)) => {
                let model = without_hash(&title);
                if !names(&server, Kind::Model).await?.contains(&model) {
                    return Err(ApiError::new(
                        StatusCode::NOT_FOUND,
                        "not_found",
                        format!("there is no model `{model}`"),
                    ));
                }
                chosen = Some(model);
            }
            // What clients send back as they have read it.
            ("sd_checkpoint_hash" | "sd_vae" | "samples_format" | "CLIP_stop_at_last_layers", _) => {}
            (name, _) => {
                return Err(ApiError::invalid(
                    name,
                    format!("the setting `{name}` is not supported"),
                ));
            }
        }
    }
    if chosen.is_some() {
        *lock(&server.chosen_model) = chosen;
    }
    Ok(json_response(StatusCode::OK, &json!({})))
}
