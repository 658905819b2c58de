//! stable-diffusion-webui's interface (`/sdapi/v1`): what its clients use.
//!
//! Settings that this program has not are refused by name where they are set; those at their defaults are ignored.

mod fields;
mod infotext;
mod lists;
mod progress;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sd_catalog::parameters_text;
use serde_json::{Map, Value, json};

use super::Shared;
use super::body::{self, Body, blocking};
use super::error::{Answer, ApiError, json_response};
use super::outcome::{Awaited, check_done};
use crate::access::User;
use crate::job::{Job, State as JobState};
use crate::lock::lock;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/sdapi/v1/txt2img", post(txt2img))
        .route("/sdapi/v1/img2img", post(img2img))
        .route("/sdapi/v1/png-info", post(infotext::png_info))
        .route("/sdapi/v1/progress", get(progress::progress))
        .route("/sdapi/v1/interrupt", post(progress::interrupt))
        .route("/sdapi/v1/skip", post(progress::interrupt))
        .route("/sdapi/v1/memory", get(progress::memory))
        .route("/sdapi/v1/unload-checkpoint", post(progress::unload))
        .route("/sdapi/v1/reload-checkpoint", post(progress::nothing))
        .route("/sdapi/v1/refresh-checkpoints", post(progress::nothing))
        .route("/sdapi/v1/refresh-loras", post(progress::nothing))
        .route("/sdapi/v1/options", get(lists::options).post(lists::set_options))
        .route("/sdapi/v1/cmd-flags", get(lists::flags))
        .route("/sdapi/v1/samplers", get(lists::samplers))
        .route("/sdapi/v1/schedulers", get(lists::schedulers))
        .route("/sdapi/v1/sd-models", get(lists::models))
        .route("/sdapi/v1/sd-vae", get(lists::none))
        .route("/sdapi/v1/loras", get(lists::loras))
        .route("/sdapi/v1/upscalers", get(lists::upscalers))
        .route("/sdapi/v1/latent-upscale-modes", get(lists::none))
        .route("/sdapi/v1/prompt-styles", get(lists::styles))
        .route("/sdapi/v1/scripts", get(lists::scripts))
        .route("/sdapi/v1/embeddings", get(lists::embeddings))
}

/// A handler's answer in the shape of this interface.
fn shaped(answer: Answer<Response>) -> Response {
    answer.unwrap_or_else(|error| error.as_webui())
}

async fn txt2img(State(server): State<Shared>, Extension(user): Extension<User>, body: Body) -> Response {
    shaped(generated(server, user, body, false).await)
}

async fn img2img(State(server): State<Shared>, Extension(user): Extension<User>, body: Body) -> Response {
    shaped(generated(server, user, body, true).await)
}

async fn generated(server: Shared, user: User, body: Body, is_img2img: bool) -> Answer<Response> {
    let sent: Map<String, Value> = body::json(body).await?;
    let chosen = lock(&server.chosen_model).clone();
    let request = fields::request(&sent, is_img2img, chosen)?;
    let sends_images = sent.get("send_images").and_then(Value::as_bool).unwrap_or(true);
    let (job, files) = Awaited::submit(&server, request, user.0).await?.ended().await?;
    // As there, a request that was interrupted is answered with the images that are finished.
    if job.state != JobState::Cancelled || job.images.is_empty() {
        check_done(&job)?;
    }
    let body = blocking(move || {
        let files: Result<Vec<Vec<u8>>, _> = files.iter().map(std::fs::read).collect();
        let files = files.map_err(|_| ApiError::not_found("image"))?;
        let texts = files.iter().map(|file| parameters_text(file).unwrap_or_default());
        let info = info(&job, texts.collect());
        let images: Vec<String> = match sends_images {
            true => files.iter().map(|file| STANDARD.encode(file)).collect(),
            false => Vec::new(),
        };
        Ok::<_, ApiError>(json!({ "images": images, "parameters": echo(sent), "info": info.to_string() }))
    })
    .await?;
    Ok(json_response(StatusCode::OK, &body))
}

/// The request as it came, without its images.
fn echo(mut sent: Map<String, Value>) -> Value {
    for name in ["init_images", "mask"] {
        if sent.contains_key(name) {
            sent.insert(name.to_owned(), Value::Null);
        }
    }
    Value::from(sent)
}

fn info(job: &Job, texts: Vec<String>) -> Value {
    let seeds: Vec<u64> = job.images.iter().map(|image| image.seed).collect();
    let of_all = |text: &str| vec![text.to_owned(); job.images.len()];
    let negative = job.request.negative_prompt.as_deref().unwrap_or_default();
    let (width, height) = job
        .images
        .first()
        .map_or((0, 0), |image| (image.width, image.height));
    json!({
        "prompt": job.request.prompt,
        "all_prompts": of_all(&job.request.prompt),
        "negative_prompt": negative,
        "all_negative_prompts": of_all(negative),
        "seed": seeds.first(),
        "all_seeds": seeds,
        "subseed": 0,
        "all_subseeds": vec![0; seeds.len()],
        "subseed_strength": 0,
        "width": width,
        "height": height,
        "sampler_name": job.request.sampler,
        "cfg_scale": job.request.cfg,
        "steps": job.request.steps,
        "batch_size": job.images.len(),
        "sd_model_name": job.model,
        "infotexts": texts,
        "job_timestamp": job.created.to_string(),
        "index_of_first_image": 0,
        "version": concat!("sd-generate ", env!("CARGO_PKG_VERSION")),
    })
}
