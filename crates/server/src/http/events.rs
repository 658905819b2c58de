//! `/api/events` and `/api/jobs/ID/events`: what happens to jobs, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use super::body::blocking;
use super::error::{Answer, ApiError};
use super::jobs::id;
use crate::job::JobId;

/// Between two signs of life.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that wait for a client that reads slowly.
const WAITING: usize = 16;

type Events = Sse<axum::response::sse::KeepAliveStream<ReceiverStream<Result<Event, Infallible>>>>;

pub(super) async fn of_all(State(server): State<Shared>) -> Events {
    stream(server, None, Vec::new())
}

pub(super) async fn of_job(State(server): State<Shared>, Path(name): Path<String>) -> Answer<Events> {
    let id = id(&name)?;
    // The stream begins before the job is looked at, so that no change is missed between the two.
    let (shared, job_id) = (server.clone(), id.clone());
    let view = blocking(move || {
        let job = shared.store.job(&job_id).map_err(ApiError::from)?;
        let job = job.ok_or_else(|| ApiError::not_found("job"))?;
        shared.view(job).map_err(ApiError::from)
    })
    .await?;
    let is_ended = view.state.is_ended();
    let first = Event::default().event("job").data(json!(view).to_string());
    Ok(stream(server, (!is_ended).then_some(id), vec![(first, is_ended)]))
}

/// The events of one job, or of all. The `first` are sent at once; one of them may be the last.
fn stream(server: Shared, only: Option<JobId>, first: Vec<(Event, bool)>) -> Events {
    let mut events = server.events.listen();
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        for (event, is_last) in first {
            if sender.send(Ok(event)).await.is_err() || is_last {
                return;
            }
        }
        loop {
            let event = match events.recv().await {
                Ok(event) => event,
                // The client asks for the jobs again.
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            if only.as_ref().is_some_and(|only| *only != event.job) {
                continue;
            }
            let sent = Event::default().event(event.kind).data(event.data.to_string());
            let is_last = event.is_last && only.is_some();
            if sender.send(Ok(sent)).await.is_err() || is_last {
                return;
            }
        }
    });
    Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// A stream of events for a client of another interface.
pub(super) fn sse<S: Stream<Item = Result<Event, Infallible>> + Send + 'static>(
    stream: S,
) -> Sse<axum::response::sse::KeepAliveStream<S>> {
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}
