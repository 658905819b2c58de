//! The interfaces: this program's own (`/api`), that of OpenAI's images (`/v1`), that of stable-diffusion-webui
//! (`/sdapi`), and the page.

mod body;
mod coming_bodies;
mod connections;
mod error;
mod events;
mod guard;
mod health;
mod job_path;
mod jobs;
mod memory;
mod metrics;
mod models;
mod openai;
mod openapi;
mod outcome;
mod page;
mod plan;
mod read_image;
mod uploads;
mod webui;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "cluster")]
pub(crate) use models::here;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use tokio::net::TcpListener;

use crate::access::Rates;
use crate::server::Server;

/// What handlers share.
pub(crate) type Shared = Arc<Server>;

/// Serves until `stopped` is over, and then for at most `farewell` those who are still connected.
pub(crate) async fn serve(
    listener: TcpListener,
    server: Shared,
    stopped: impl Future<Output = ()>,
    farewell: Duration,
) {
    let most = server.options.limits.connections;
    connections::serve(listener, router(server), most, stopped, farewell).await;
}

fn router(server: Shared) -> Router {
    let limits = server.options.limits;
    let guard = guard::Guard {
        server: server.clone(),
        rates: Arc::new(Rates::default()),
    };
    let bodies = coming_bodies::ComingBodies::new(limits.bodies);
    let uploads = Router::new()
        .route("/api/uploads", post(uploads::upload))
        .route("/api/read-image", post(read_image::read_image))
        // They are written to disk while they come, and counted there.
        .layer(DefaultBodyLimit::disable());
    Router::new()
        .route("/api/jobs", get(jobs::list).post(jobs::submit))
        .route("/api/jobs/{id}", get(jobs::show).delete(jobs::remove))
        .route("/api/jobs/{id}/cancel", post(jobs::cancel))
        .route("/api/jobs/{id}/events", get(events::of_job))
        .route("/api/jobs/{id}/images/{index}", get(jobs::image))
        .route("/api/jobs/{id}/images/{index}/metadata", get(jobs::metadata))
        .route("/api/events", get(events::of_all))
        .route("/api/plan", post(plan::plan))
        .route("/api/models", get(models::models))
        .route("/api/memory", get(memory::memory))
        .route(openapi::PATH, get(openapi::openapi))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .merge(page::routes())
        .merge(openai::routes())
        .merge(webui::routes())
        .layer(DefaultBodyLimit::max(limits.body))
        .layer(middleware::from_fn_with_state(bodies, coming_bodies::count))
        .merge(uploads)
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::wrong_method)
        .layer(middleware::from_fn_with_state(guard, guard::check))
        .with_state(server)
}
