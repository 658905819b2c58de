//! `/api/jobs`: jobs are submitted, listed, cancelled and removed, and their images fetched.

use axum::Extension;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::Shared;
use super::body::{self, Body, blocking};
use super::error::{Answer, ApiError, json_response};
use super::job_path::{ImagePath, JobPath};
use crate::access::User;
use crate::error::Error;
use crate::job::{JobId, JobRequest, JobView, State as JobState};
use crate::server::Server;
use crate::store::Filter;
use crate::submit::submit as add;

/// The most jobs of a list, and how many it has if nobody says.
const MOST: usize = 500;
const DEFAULT: usize = 50;

/// Which jobs a list has.
#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    /// Names of states, separated by commas.
    state: Option<String>,
    limit: Option<usize>,
    before: Option<String>,
}

pub(super) async fn submit(
    State(server): State<Shared>,
    Extension(user): Extension<User>,
    body: Body,
) -> Answer<Response> {
    let request: JobRequest = body::json(body).await?;
    let view = blocking(move || {
        let job = add(&server, request, user.0).map_err(ApiError::from)?;
        server.view(job).map_err(ApiError::from)
    })
    .await?;
    Ok(json_response(StatusCode::ACCEPTED, &json!(view)))
}

pub(super) async fn list(
    State(server): State<Shared>,
    Extension(user): Extension<User>,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Answer<Response> {
    let Query(query) = query
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", error.body_text()))?;
    let names = query
        .state
        .as_deref()
        .unwrap_or_default()
        .split(',')
        .filter(|name| !name.is_empty());
    let states = names.map(|name| {
        JobState::named(name)
            .ok_or_else(|| ApiError::invalid("state", format!("`{name}` is no state of a job")))
    });
    let filter = Filter {
        states: states.collect::<Result<_, _>>()?,
        user: server.options.keys.are_of_several().then_some(user.0),
        before: query.before.as_deref().map(before).transpose()?,
        limit: query.limit.unwrap_or(DEFAULT).min(MOST),
    };
    let views = blocking(move || -> Result<Vec<JobView>, Error> {
        let jobs = server.store.list(&filter)?;
        jobs.into_iter().map(|job| server.view(job)).collect()
    })
    .await?;
    Ok(json_response(StatusCode::OK, &json!({ "jobs": views })))
}

pub(super) async fn show(
    State(server): State<Shared>,
    Extension(user): Extension<User>,
    JobPath(id): JobPath,
) -> Answer<Response> {
    let view = blocking(move || view(&server, &user, &id)).await?;
    Ok(json_response(StatusCode::OK, &json!(view)))
}

pub(super) async fn cancel(
    State(server): State<Shared>,
    Extension(user): Extension<User>,
    JobPath(id): JobPath,
) -> Answer<Response> {
    let view = blocking(move || {
        view(&server, &user, &id)?;
        match server.cancel(&id)? {
            None => Err(ApiError::not_found("job")),
            Some(false) => Err(ApiError::new(
                StatusCode::CONFLICT,
                "ended",
                "the job has ended already",
            )),
            Some(true) => view(&server, &user, &id),
        }
    })
    .await?;
    Ok(json_response(StatusCode::OK, &json!(view)))
}

pub(super) async fn remove(
    State(server): State<Shared>,
    Extension(user): Extension<User>,
    JobPath(id): JobPath,
) -> Answer<Response> {
    blocking(move || {
        view(&server, &user, &id)?;
        match (server.remove(&id)?, server.store.has(&id)?) {
            (true, _) => Ok(StatusCode::NO_CONTENT.into_response()),
            (false, true) => Err(ApiError::new(
                StatusCode::CONFLICT,
                "not_ended",
                "the job has not ended: cancel it first",
            )),
            (false, false) => Err(ApiError::not_found("job")),
        }
    })
    .await
}

pub(super) async fn image(State(server): State<Shared>, ImagePath(id, index): ImagePath) -> Answer<Response> {
    let (bytes, file) = blocking(move || file(&server, &id, index, false)).await?;
    let kind = match file.rsplit_once('.').map(|(_, extension)| extension) {
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        _ => "image/png",
    };
    let headers = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (
            header::CACHE_CONTROL,
            "private, max-age=31536000, immutable".to_owned(),
        ),
        (
            header::CONTENT_DISPOSITION,
            format!("inline; filename=\"{file}\""),
        ),
    ];
    Ok((headers, bytes).into_response())
}

pub(super) async fn metadata(
    State(server): State<Shared>,
    Extension(user): Extension<User>,
    ImagePath(id, index): ImagePath,
) -> Answer<Response> {
    let (bytes, _) = blocking(move || {
        view(&server, &user, &id)?;
        file(&server, &id, index, true)
    })
    .await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

/// The id of the job before those of a list.
fn before(text: &str) -> Answer<JobId> {
    JobId::parse(text).ok_or_else(|| ApiError::invalid("before", format!("`{text}` is no id of a job")))
}

/// A job that `user` may see.
///
/// # Errors
/// There is none, or the data base fails.
pub(super) fn view(server: &Server, user: &User, id: &JobId) -> Answer<JobView> {
    let job = server.store.job(id)?;
    let job = job.filter(|job| server.may_see(user, &job.user));
    Ok(server.view(job.ok_or_else(|| ApiError::not_found("job"))?)?)
}

/// The file of an image, or its metadata, and the name of the image.
fn file(server: &Server, id: &JobId, index: usize, is_metadata: bool) -> Answer<(Vec<u8>, String)> {
    let image = server.image(id, index)?;
    let image = image.ok_or_else(|| ApiError::not_found("image"))?;
    let mut path = server.folder_of(id).images().join(&image.name);
    if is_metadata {
        path.set_extension("json");
    }
    let bytes = std::fs::read(path).map_err(|_| ApiError::not_found("image"))?;
    Ok((bytes, image.name))
}
