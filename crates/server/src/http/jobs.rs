//! `/api/jobs`: jobs are submitted, listed, cancelled and removed, and their images fetched.

use axum::Extension;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::Shared;
use super::body::{self, Body, blocking};
use super::error::{Answer, ApiError, json_response};
use crate::access::User;
use crate::error::Error;
use crate::job::{JobId, JobRequest, JobView, State as JobState};
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
    let request: JobRequest = body::json(body)?;
    let view = blocking(move || {
        let job = add(&server, request, user.0).map_err(ApiError::from)?;
        server.view(job).map_err(ApiError::from)
    })
    .await?;
    Ok(json_response(StatusCode::ACCEPTED, &json!(view)))
}

pub(super) async fn list(
    State(server): State<Shared>,
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
        before: query.before.as_deref().map(id).transpose()?,
        limit: query.limit.unwrap_or(DEFAULT).min(MOST),
    };
    let views = blocking(move || -> Result<Vec<JobView>, Error> {
        let jobs = server.store.list(&filter)?;
        let waiting = server.store.waiting()?;
        let view = |job: crate::job::Job| {
            let position = waiting.iter().position(|other| other.id == job.id);
            server.view_at(job, position.map(|index| index + 1))
        };
        Ok(jobs.into_iter().map(view).collect())
    })
    .await?;
    Ok(json_response(StatusCode::OK, &json!({ "jobs": views })))
}

pub(super) async fn show(State(server): State<Shared>, Path(name): Path<String>) -> Answer<Response> {
    let view = view(server, id(&name)?).await?;
    Ok(json_response(StatusCode::OK, &json!(view)))
}

pub(super) async fn cancel(State(server): State<Shared>, Path(name): Path<String>) -> Answer<Response> {
    let id = id(&name)?;
    let cancelled = blocking({
        let (server, id) = (server.clone(), id.clone());
        move || server.cancel(&id)
    })
    .await?;
    match cancelled {
        None => Err(ApiError::not_found("job")),
        Some(false) => Err(ApiError::new(
            StatusCode::CONFLICT,
            "ended",
            "the job has ended already",
        )),
        Some(true) => Ok(json_response(StatusCode::OK, &json!(view(server, id).await?))),
    }
}

pub(super) async fn remove(State(server): State<Shared>, Path(name): Path<String>) -> Answer<Response> {
    let id = id(&name)?;
    let (is_removed, is_there) = blocking(move || -> Result<(bool, bool), Error> {
        Ok((server.remove(&id)?, server.store.job(&id)?.is_some()))
    })
    .await?;
    match (is_removed, is_there) {
        (true, _) => Ok(StatusCode::NO_CONTENT.into_response()),
        (false, true) => Err(ApiError::new(
            StatusCode::CONFLICT,
            "not_ended",
            "the job has not ended: cancel it first",
        )),
        (false, false) => Err(ApiError::not_found("job")),
    }
}

pub(super) async fn image(
    State(server): State<Shared>,
    Path((name, index)): Path<(String, String)>,
) -> Answer<Response> {
    let (bytes, file) = file(server, id(&name)?, &index, false).await?;
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
    Path((name, index)): Path<(String, String)>,
) -> Answer<Response> {
    let (bytes, _) = file(server, id(&name)?, &index, true).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response())
}

/// The id of a path.
pub(super) fn id(text: &str) -> Answer<JobId> {
    JobId::parse(text).ok_or_else(|| ApiError::not_found("job"))
}

async fn view(server: Shared, id: JobId) -> Answer<JobView> {
    blocking(move || {
        let job = server.store.job(&id).map_err(ApiError::from)?;
        let job = job.ok_or_else(|| ApiError::not_found("job"))?;
        server.view(job).map_err(ApiError::from)
    })
    .await
}

/// The file of an image, or its metadata, and the name of the image.
async fn file(server: Shared, id: JobId, index: &str, is_metadata: bool) -> Answer<(Vec<u8>, String)> {
    let index: usize = index.parse().map_err(|_| ApiError::not_found("image"))?;
    blocking(move || {
        let job = server.store.job(&id).map_err(ApiError::from)?;
        let image = job.and_then(|mut job| (index < job.images.len()).then(|| job.images.swap_remove(index)));
        let image = image.ok_or_else(|| ApiError::not_found("image"))?;
        let mut path = server.folder_of(&id).images().join(&image.name);
        if is_metadata {
            path.set_extension("json");
        }
        let bytes = std::fs::read(path).map_err(|_| ApiError::not_found("image"))?;
        Ok::<_, ApiError>((bytes, image.name))
    })
    .await
}
