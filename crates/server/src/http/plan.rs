//! `/api/plan`: the memory and the time that a job would take.

use std::fs;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::Shared;
use super::body::{self, Body, blocking};
use super::error::{Answer, ApiError, json_response};
use crate::job::{JobId, JobRequest};
use crate::prepare::{self, JobFolder};
use crate::submit::Refused;

pub(super) async fn plan(State(server): State<Shared>, body: Body) -> Answer<Response> {
    let mut request: JobRequest = body::json(body).await?;
    let planned = blocking(move || {
        let id = JobId::random().map_err(ApiError::from)?;
        let folder = JobFolder::new(server.jobs().join(format!("plan-{id}")));
        let planned = planned(&server, &mut request, &folder);
        let _ = fs::remove_dir_all(folder.path());
        // What it has loaded is given back later.
        server.wake();
        planned
    })
    .await?;
    Ok(json_response(StatusCode::OK, &planned))
}

fn planned(server: &Shared, request: &mut JobRequest, folder: &JobFolder) -> Answer<serde_json::Value> {
    let stored = folder.inputs().store(request, &server.uploads());
    stored.map_err(Refused::from)?;
    let resolved = prepare::request(request, folder, server.terms())?;
    let planned = server.terms().planned(&resolved)?;
    let (plan, recipe) = (&planned.plan, &planned.recipe);
    Ok(json!({
        "predicted_peak": plan.predicted_peak,
        "budget": plan.budget,
        "smallest_budget": plan.smallest_budget,
        "resident_budget": plan.resident_budget,
        "seconds": plan.duration.map(|duration| duration.as_secs_f64()),
        "streams": plan.streams(),
        "size": recipe.size.to_string(),
        "steps": recipe.steps,
        "model": resolved.model.name,
        "text": plan.to_string(),
        "fallback": planned.fallback,
    }))
}
