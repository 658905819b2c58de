//! `/api/uploads`: images that later requests use. They are written to disk while they come.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

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

pub(super) async fn upload(State(server): State<Shared>, body: Body) -> Answer<Response> {
    let id = JobId::random()?;
    let file = server.uploads().join(id.as_str());
    let mut part = Part::new(server, file.with_extension("part"));
    receive(body, &mut part).await?;
    let (width, height) = blocking({
        let part = part.path.clone();
        move || {
            let image =
                SourceImage::open(&part).map_err(|error| ApiError::invalid("body", error.to_string()))?;
            fs::rename(&part, &file).map_err(|source| {
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

/// A file that is written while it comes. It is removed unless it is renamed first.
pub(super) struct Part {
    server: Shared,
    pub(super) path: PathBuf,
    written: u64,
}

impl Part {
    pub(super) fn new(server: Shared, path: PathBuf) -> Self {
        Self {
            server,
            path,
            written: 0,
        }
    }

    /// Counts `bytes` that have come, beside `kept` bytes of uploads that are kept.
    ///
    /// # Errors
    /// These are more than an upload, or all uploads with those that come, may have.
    fn count(&mut self, bytes: u64, kept: u64) -> Answer<()> {
        let limits = self.server.options.limits;
        self.written += bytes;
        let coming = self.server.uploading.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.written > limits.upload {
            return Err(too_large(limits.upload));
        }
        if coming > limits.uploads.saturating_sub(kept) {
            return Err(too_large(limits.uploads.saturating_sub(kept).min(limits.upload)));
        }
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.server.uploading.fetch_sub(self.written, Ordering::Relaxed);
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes a body to the file of `part`.
///
/// # Errors
/// It has more bytes than are taken, the client goes away, or the disk fails.
pub(super) async fn receive(body: Body, part: &mut Part) -> Answer<()> {
    let path = part.path.clone();
    let failed = |source| {
        ApiError::from(Error::Folder {
            path: path.clone(),
            source,
        })
    };
    let folder = part.server.uploads();
    let kept = blocking(move || Ok::<_, ApiError>(bytes_kept(&folder))).await?;
    let mut file = tokio::fs::File::create(&path).await.map_err(failed)?;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| unread(&error))?;
        part.count(chunk.len() as u64, kept)?;
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)
}

/// The bytes of the uploads in `folder`, without those that come.
fn bytes_kept(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let kept = entries.filter(|entry| Path::new(&entry.file_name()).extension().is_none());
    kept.filter_map(|entry| Some(entry.metadata().ok()?.len())).sum()
}
