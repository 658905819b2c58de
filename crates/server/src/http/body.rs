//! Bodies of requests, and work that blocks.

use std::io;
use std::time::Duration;

use axum::body::{self, Bytes, HttpBody};
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use futures_util::{StreamExt, stream};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::error::{Answer, ApiError};

/// The longest pause in a request, and the longest time that one takes.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// A body of more bytes is parsed where others do not wait for it.
const LONG: usize = 256 << 10;

/// The body of a request, or why there is none.
pub(crate) type Body = Result<Bytes, BytesRejection>;

/// The bytes of a body.
///
/// # Errors
/// It is too long, or the connection was lost.
pub(crate) fn bytes(body: Body) -> Answer<Bytes> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "the request is longer than this server takes",
        ),
        _ => unread(&rejection),
    })
}

/// The error of a body that cannot be read: it has come too slowly, beside too many others, or not to its end.
pub(super) fn unread(error: &(dyn std::error::Error + 'static)) -> ApiError {
    let mut next = Some(error);
    while let Some(error) = next {
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::TimedOut) => {
                return ApiError::new(StatusCode::REQUEST_TIMEOUT, "too_slow", error.to_string());
            }
            Some(io::ErrorKind::ResourceBusy) => {
                return ApiError {
                    retry_after: Some(5),
                    ..ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", error.to_string())
                };
            }
            _ => next = error.source(),
        }
    }
    let message = format!("the request has not come to its end: {error}");
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", message)
}

/// A body that ends with an error if it comes too slowly, so that nobody can keep connections busy.
pub(super) fn in_time(body: body::Body) -> body::Body {
    if body.is_end_stream() {
        return body;
    }
    let end = Instant::now() + LONGEST;
    let chunks = stream::try_unfold(body.into_data_stream(), move |mut chunks| async move {
        let latest = end.min(Instant::now() + LONGEST_PAUSE);
        match timeout_at(latest, chunks.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(chunk))) => Ok(Some((chunk, chunks))),
            Ok(Some(Err(error))) => Err(io::Error::other(error)),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the request comes too slowly",
            )),
        }
    });
    body::Body::from_stream(chunks)
}

/// The value of a JSON body.
///
/// # Errors
/// It is no JSON, or not of this form.
pub(crate) async fn json<T: DeserializeOwned + Send + 'static>(body: Body) -> Answer<T> {
    let bytes = bytes(body)?;
    match bytes.len() > LONG {
        true => blocking(move || from_slice(&bytes)).await,
        false => from_slice(&bytes),
    }
}

/// The value of JSON.
///
/// # Errors
/// It is no JSON, or not of this form. The error names the field.
pub(crate) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let message = error.into_inner().to_string();
        match path.as_str() {
            "." | "?" => ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", message),
            _ => ApiError::invalid(path, message),
        }
    })?;
    deserializer
        .end()
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", error.to_string()))?;
    Ok(value)
}

/// Runs `work`, which waits for the disk or computes, on a thread that may.
///
/// # Errors
/// Those of `work`; or it has panicked.
pub(crate) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Answer<T>
where
    T: Send + 'static,
    E: Into<ApiError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(error) => {
            tracing::error!("a request has failed: {error}. This is a bug.");
            Err(ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "bug",
                "the server has a bug; its log says more",
            ))
        }
    }
}
