//! `/api/read-image`: the settings that an image was generated with, as a request.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sd_catalog::GenerationParameters;
use serde_json::{Map, Value, json};

use super::Shared;
use super::body::blocking;
use super::error::{Answer, ApiError, json_response};
use super::uploads::{Part, receive};
use crate::job::JobId;

pub(super) async fn read_image(State(server): State<Shared>, body: Body) -> Answer<Response> {
    let id = JobId::random()?;
    let path = server.uploads().join(format!("{id}.read"));
    let mut part = Part::new(server, path);
    receive(body, &mut part).await?;
    let parameters = blocking(move || {
        GenerationParameters::read(&part.path).map_err(|error| {
            ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "says_nothing",
                error.to_string(),
            )
        })
    })
    .await?;
    Ok(json_response(StatusCode::OK, &restored(&parameters)))
}

/// The settings as the body of a request, and what cannot be restored.
pub(super) fn restored(parameters: &GenerationParameters) -> Value {
    let mut request = Map::new();
    request.insert("prompt".to_owned(), json!(parameters.prompt));
    for (option, text) in &parameters.options {
        let (field, value) = field(option, text);
        if let Some(value) = value {
            match request.get_mut(field) {
                Some(Value::Array(values)) => values.push(json!(text)),
                _ => drop(request.insert(field.to_owned(), value)),
            }
        }
    }
    let unmet = parameters
        .unmet
        .iter()
        .map(|unmet| format!("{}: {}", unmet.setting, unmet.reason));
    let differences = parameters.differences.iter().cloned();
    json!({
        "request": request,
        "source": parameters.source.to_string(),
        "unmet": unmet.chain(differences).collect::<Vec<_>>(),
    })
}

/// The field of a request for an option of the command line, and its value. None for what no request has.
fn field<'a>(option: &'a str, text: &str) -> (&'a str, Option<Value>) {
    let number = || {
        text.parse::<i64>()
            .ok()
            .map(Value::from)
            .or_else(|| text.parse::<f64>().ok().map(Value::from))
    };
    match option {
        "quality" => ("preset", Some(json!(text))),
        "negative-prompt" => ("negative_prompt", Some(json!(text))),
        "steps" | "cfg" | "seed" | "n" | "upscale" | "strength" => (option, number()),
        "guidance-rescale" => ("guidance_rescale", number()),
        "clip-skip" => ("clip_skip", number()),
        "refiner-switch" => ("refiner_switch", number()),
        "jpeg-quality" => ("jpeg_quality", number()),
        "lora" => ("lora", Some(json!([text]))),
        "style" | "size" | "rng" | "model" | "sampler" | "scheduler" | "refiner" | "upscaler" => {
            (option, Some(json!(text)))
        }
        _ => (option, None),
    }
}
