//! `/api/events` and `/api/jobs/ID/events`: what happens to jobs, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use super::body::blocking;
use super::error::Answer;
use super::job_path::JobPath;
use super::jobs;
use crate::access::User;
use crate::events::JobEvent;

/// Between two signs of life.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Events that wait for a client that reads slowly.
const WAITING: usize = 16;

type Events = Sse<axum::response::sse::KeepAliveStream<ReceiverStream<Result<Event, Infallible>>>>;

pub(super) async fn of_all(State(server): State<Shared>, Extension(user): Extension<User>) -> Events {
    let events = server.events.listen();
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        // A client that is too far behind is sent no more: it connects again, and asks for the jobs.
        let mut events = events;
        while let Ok(event) = events.recv().await {
            if server.may_see(&user, &event.user) && sender.send(Ok(of(&event))).await.is_err() {
                return;
            }
        }
    });
    sse(ReceiverStream::new(receiver))
}

pub(super) async fn of_job(
    State(server): State<Shared>,
    Extension(user): Extension<User>,
    JobPath(id): JobPath,
) -> Answer<Events> {
    // Before the job is looked at, so that no change is missed between the two.
    let mut events = server.events.listen();
    let look = async move || {
        let (server, user, id) = (server.clone(), user.clone(), id.clone());
        blocking(move || jobs::view(&server, &user, &id)).await
    };
    let mut view = look().await?;
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        loop {
            let seen = Event::default().event("job").data(json!(view).to_string());
            if sender.send(Ok(seen)).await.is_err() || view.state.is_ended() {
                return;
            }
            loop {
                match events.recv().await {
                    Ok(event) if event.job == view.id => {
                        if sender.send(Ok(of(&event))).await.is_err() || event.is_last {
                            return;
                        }
                    }
                    Ok(_) => {}
                    // Some events were missed: the job may have ended.
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return,
                }
            }
            view = match look().await {
                Ok(view) => view,
                Err(_) => return,
            };
        }
    });
    Ok(sse(ReceiverStream::new(receiver)))
}

fn of(event: &JobEvent) -> Event {
    Event::default().event(event.kind).data(event.data.to_string())
}

/// A response with a stream of events.
pub(super) fn sse<S: Stream<Item = Result<Event, Infallible>> + Send + 'static>(
    stream: S,
) -> Sse<axum::response::sse::KeepAliveStream<S>> {
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}
