//! `/api/memory`: the memory of the machine and of the job that runs.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use sd_pipeline::memory::memory_info;
use serde_json::json;

use super::Shared;
use super::body::blocking;
use super::error::{Answer, ApiError, json_response};
use crate::lock::lock;

pub(super) async fn memory(State(server): State<Shared>) -> Answer<Response> {
    let report = blocking(move || {
        let memory = memory_info();
        // Of those on other machines nothing is kept.
        let running = server.running();
        let timeline = running
            .first()
            .map(|running| lock(&running.readings).clone())
            .unwrap_or_default();
        // While a job runs, its readings are newer.
        let used = timeline.last().and_then(|reading| reading.device);
        let device = server.device().map(|device| {
            json!({
                "name": device.gpu,
                "used": used.unwrap_or(device.memory.used.0),
                "total": device.memory.total,
            })
        });
        let budget = timeline.last().and_then(|reading| reading.budget);
        let budget = budget.or(server
            .options
            .configuration
            .defaults
            .memory
            .map(|budget| budget.0));
        Ok::<_, ApiError>(json!({
            "budget": budget.unwrap_or(memory.system_available.0 + memory.process.0),
            "process": memory.process,
            "process_peak": memory.process_peak,
            "system_total": memory.system_total,
            "system_available": memory.system_available,
            "loaded": server.loaded(),
            "device": device,
            "timeline": timeline,
        }))
    })
    .await?;
    Ok(json_response(StatusCode::OK, &report))
}
