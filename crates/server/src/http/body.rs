//! Bodies of requests, and work that blocks.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use serde::de::DeserializeOwned;

use super::error::{Answer, ApiError};

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
        _ => ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", rejection.body_text()),
    })
}

/// The value of a JSON body.
///
/// # Errors
/// It is no JSON, or not of this form.
pub(crate) fn json<T: DeserializeOwned>(body: Body) -> Answer<T> {
    from_slice(&bytes(body)?)
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
