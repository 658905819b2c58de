//! `/api/uploads`: images that later requests use. They are written to disk while they come.

use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::StreamExt;
use sd_pipeline::source_image::SourceImage;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::Shared;
use super::body::{blocking, unread};
use super::error::{Answer, ApiError, json_response};
use crate::Error;
use crate::job::JobId;
use crate::retention::bytes_in;

pub(super) async fn upload(State(server): State<Shared>, body: Body) -> Answer<Response> {
    let id = JobId::random()?;
    let folder = server.uploads();
    let limits = server.options.limits;
    let used = blocking({
        let folder = folder.clone();
        move || Ok::<_, ApiError>(bytes_in(&folder))
    })
    .await?;
    let most = limits.upload.min(limits.uploads.saturating_sub(used));
    let file = folder.join(id.as_str());
    let part = Part(file.with_extension("part"));
    receive(body, &part.0, most).await?;
    let (width, height) = blocking({
        let part = part.0.clone();
        move || {
            let image =
                SourceImage::open(&part).map_err(|error| ApiError::invalid("body", error.to_string()))?;
            // Others may have come meanwhile.
            if bytes_in(&folder) > limits.uploads {
                return Err(too_large(0));
            }
            std::fs::rename(&part, &file).map_err(|source| {
                ApiError::from(Error::Folder {
                    path: file.clone(),
                    source,
                })
            })?;
            Ok::<_, ApiError>(image.sides())
        }
    })
    .await?;
    let answer = json!({ "upload": id, "width": width, "height": height });
    Ok(json_response(StatusCode::CREATED, &answer))
}

fn too_large(most: u64) -> ApiError {
    let message = format!("this server takes at most {most} bytes now");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}

/// A file that is removed unless it is renamed first.
pub(super) struct Part(pub(super) PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Writes a body to `path`.
///
/// # Errors
/// It has more than `most` bytes, the client goes away, or the disk fails.
pub(super) async fn receive(body: Body, path: &Path, most: u64) -> Answer<()> {
    let failed = |source| {
        ApiError::from(Error::Folder {
            path: path.to_owned(),
            source,
        })
    };
    let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
    let mut chunks = body.into_data_stream();
    let mut written = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| unread(&error))?;
        written += chunk.len() as u64;
        if written > most {
            return Err(too_large(most));
        }
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)
}
