//! What OpenAI's clients are sent: a list of images, or a stream of events.

use std::convert::Infallible;
use std::path::PathBuf;

use axum::response::sse::{Event, KeepAliveStream, Sse};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::super::body::blocking;
use super::super::error::{Answer, ApiError};
use super::super::events::sse;
use super::super::outcome::{Awaited, check_done};
use super::fields::{ReplyForm, Task};
use crate::job::Job;

/// Events that wait for a client that reads slowly.
const WAITING: usize = 4;

/// The images of a job.
///
/// # Errors
/// A file is gone.
pub(super) fn body(job: &Job, files: &[PathBuf], form: &ReplyForm) -> Answer<Value> {
    let data = job
        .images
        .iter()
        .zip(files)
        .enumerate()
        .map(|(index, (image, file))| {
            let mut entry = json!({ "revised_prompt": null, "seed": image.seed });
            if form.as_addresses {
                entry["url"] = json!(format!("{}/api/jobs/{}/images/{index}", form.address, job.id));
            } else {
                entry["b64_json"] = json!(encoded(file)?);
            }
            Ok(entry)
        });
    let data = data.collect::<Answer<Vec<Value>>>()?;
    let size = job
        .images
        .first()
        .map(|image| format!("{}x{}", image.width, image.height));
    Ok(json!({
        "created": job.created / 1000,
        "data": data,
        "background": "opaque",
        "output_format": form.format,
        "quality": "high",
        "size": size,
        "usage": usage(),
    }))
}

/// Nothing is counted here.
fn usage() -> Value {
    json!({
        "input_tokens": 0,
        "input_tokens_details": { "image_tokens": 0, "text_tokens": 0 },
        "output_tokens": 0,
        "total_tokens": 0,
    })
}

fn encoded(file: &PathBuf) -> Answer<String> {
    let bytes = std::fs::read(file).map_err(|_| ApiError::not_found("image"))?;
    Ok(STANDARD.encode(bytes))
}

type Events = Sse<KeepAliveStream<ReceiverStream<Result<Event, Infallible>>>>;

/// The events of a job: as many images that are not finished as were asked for, then the finished ones.
pub(super) fn stream(mut awaited: Awaited, form: ReplyForm) -> Events {
    let (sender, receiver) = mpsc::channel(WAITING);
    let named = move |what: &str| {
        let of = match form.task {
            Task::Generation => "image_generation",
            Task::Edit => "image_edit",
        };
        format!("{of}.{what}")
    };
    tokio::spawn(async move {
        let mut sent = 0;
        while let Some(event) = awaited.next().await {
            // The first preview is sent at once: a quick job has no other. Each further one when the next part of the steps is done.
            let (step, steps) = (event.data["step"].as_u64(), event.data["steps"].as_u64());
            let (Some(step), Some(steps)) = (step, steps) else {
                continue;
            };
            let is_due = sent == 0 || step * (form.partial_images + 1) >= (sent + 1) * steps;
            if event.kind != "preview" || sent >= form.partial_images || !is_due {
                continue;
            }
            let data = json!({
                "type": named("partial_image"),
                "b64_json": event.data["png"],
                "partial_image_index": sent,
                "output_format": "png",
                "background": "opaque",
                "quality": "high",
                "size": null,
                "created_at": now(),
            });
            if sender.send(Ok(event_of(&data))).await.is_err() {
                // The job is cancelled with `awaited`.
                return;
            }
            sent += 1;
        }
        match finished(awaited, form.clone()).await {
            Ok(body) => {
                for image in body["data"].as_array().into_iter().flatten() {
                    let mut data = json!({
                        "type": named("completed"),
                        "output_format": form.format,
                        "background": "opaque",
                        "quality": "high",
                        "size": body["size"],
                        "created_at": body["created"],
                        "usage": usage(),
                    });
                    for name in ["b64_json", "url", "seed"] {
                        if let Some(value) = image.get(name) {
                            data[name] = value.clone();
                        }
                    }
                    if sender.send(Ok(event_of(&data))).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                let error = json!({ "type": "error", "error": error.openai_object() });
                let _ = sender.send(Ok(event_of(&error))).await;
            }
        }
    });
    sse(ReceiverStream::new(receiver))
}

/// The body of a reply with the images of a job, once it has ended.
async fn finished(awaited: Awaited, form: ReplyForm) -> Answer<Value> {
    let (job, files) = awaited.ended().await?;
    check_done(&job)?;
    blocking(move || body(&job, &files, &form)).await
}

fn event_of(data: &Value) -> Event {
    Event::default()
        .event(data["type"].as_str().unwrap_or("error"))
        .data(data.to_string())
}

fn now() -> i64 {
    crate::store::now() / 1000
}
