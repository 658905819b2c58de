//! [`Puller`]: takes the next job that a worker can run.

use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::{AckKind, Message};
use futures_util::StreamExt;
use futures_util::future::{FutureExt, select_all};

use crate::cluster::connection::Connection;
use crate::cluster::error::{ClusterError, Result};
use crate::cluster::subject::Route;

/// How long a request for a job waits at the server.
const PULL: Duration = Duration::from_secs(10);
/// The most jobs of the loaded model that go before those of others.
const MOST_TOGETHER: usize = 16;

/// Takes the next job of the routes of a worker.
pub(super) struct Puller {
    /// By model, and within a model the jobs that need the most memory first: few workers can run them.
    routes: Vec<(Route, Consumer<pull::Config>)>,
    /// The model of the last job, and how many there were of it in a row.
    last: Option<(String, usize)>,
}

impl Puller {
    /// # Errors
    /// The queue fails.
    pub(super) async fn open(connection: &Connection, routes: &[Route]) -> Result<Self> {
        let mut consumers = Vec::new();
        for route in routes {
            consumers.push((route.clone(), connection.consumer(route).await?));
        }
        Ok(Self {
            routes: consumers,
            last: None,
        })
    }

    /// Makes the consumers again that are gone.
    ///
    /// # Errors
    /// The queue fails.
    pub(super) async fn renew(&mut self, connection: &Connection) -> Result<()> {
        for (route, consumer) in &mut self.routes {
            *consumer = connection.consumer(route).await?;
        }
        Ok(())
    }

    /// The next job, or none if there is none for a while. A job of the loaded model is taken before others, but not for
    /// long.
    ///
    /// # Errors
    /// The queue fails.
    pub(super) async fn next(&mut self) -> Result<Option<Message>> {
        if let Some((model, in_a_row)) = &self.last
            && *in_a_row < MOST_TOGETHER
        {
            let loaded = self.routes.iter().filter(|(route, _)| route.model == *model);
            for (_, consumer) in loaded {
                if let Some(message) = at_once(consumer).await? {
                    let in_a_row = in_a_row + 1;
                    self.last = Some((model.clone(), in_a_row));
                    return Ok(Some(message));
                }
            }
        }
        let pulls = self.routes.iter().map(|(_, consumer)| in_time(consumer).boxed());
        let (first, index, others) = select_all(pulls).await;
        // What another route has answered at the same moment goes to the next worker.
        for other in others {
            if let Some(Ok(Some(message))) = other.now_or_never() {
                let given_back = message.ack_with(AckKind::Nak(None)).await;
                given_back.map_err(ClusterError::queue("give a job back"))?;
            }
        }
        let message = first?;
        if message.is_some() {
            self.last = Some((self.routes[index].0.model.clone(), 1));
        }
        Ok(message)
    }
}

/// A job that waits.
async fn at_once(consumer: &Consumer<pull::Config>) -> Result<Option<Message>> {
    let pulled = consumer.fetch().max_messages(1).messages().await;
    first_of(pulled).await
}

/// The first job of a while.
async fn in_time(consumer: &Consumer<pull::Config>) -> Result<Option<Message>> {
    let pulled = consumer.batch().max_messages(1).expires(PULL).messages().await;
    first_of(pulled).await
}

async fn first_of<E: std::error::Error + Send + Sync + 'static>(
    pulled: std::result::Result<pull::Batch, E>,
) -> Result<Option<Message>> {
    let mut batch = pulled.map_err(ClusterError::queue("ask for a job"))?;
    batch
        .next()
        .await
        .transpose()
        .map_err(ClusterError::queue("take a job"))
}
