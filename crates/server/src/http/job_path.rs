//! The job, and the image, that the address of a request names.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::error::ApiError;
use crate::job::JobId;

/// The job of `/api/jobs/ID` and the addresses below it.
pub(super) struct JobPath(pub(super) JobId);

/// The image of `/api/jobs/ID/images/INDEX` and the addresses below it.
pub(super) struct ImagePath(pub(super) JobId, pub(super) usize);

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let name = Path::<String>::from_request_parts(parts, state).await;
        let id = name.ok().and_then(|Path(name)| JobId::parse(&name));
        id.map(Self).ok_or_else(|| ApiError::not_found("job"))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ImagePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let names = Path::<(String, String)>::from_request_parts(parts, state).await;
        let found = names.ok().and_then(|Path((name, index))| {
            let is_number = index.bytes().all(|byte| byte.is_ascii_digit());
            Some((JobId::parse(&name)?, index.parse().ok().filter(|_| is_number)?))
        });
        let (id, index) = found.ok_or_else(|| ApiError::not_found("image"))?;
        Ok(Self(id, index))
    }
}
