//! [`Connection`]: the stream of jobs and the buckets, made if they are not there.

use std::time::Duration;

use async_nats::connection::State as ConnectionState;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, Consumer};
use async_nats::jetstream::object_store::{self, ObjectStore};
use async_nats::jetstream::stream::{self, DirectGetErrorKind, DiscardPolicy, RetentionPolicy, Stream};
use async_nats::jetstream::{self, Context, kv};
use async_nats::{Client, ConnectOptions};

use super::error::{ClusterError, Result};
use super::options::QueueOptions;
use super::subject::{ALL_JOBS, Route};

/// After how long without a sign of its worker a job is delivered to another.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(12);
/// How long a message with the id of an earlier one is taken for the same.
const DUPLICATES: Duration = Duration::from_secs(120);
/// How long what belongs to no job any more is kept.
const LOST_AFTER: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The most workers of a consumer, each of which waits or has a job.
const MOST_WORKERS: i64 = 20_000;
/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(4);

/// A connection to the queue.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) context: Context,
    pub(crate) jobs: Stream,
    pub(crate) statuses: kv::Store,
    pub(crate) files: ObjectStore,
}

impl Connection {
    /// Connects. After that, a connection that is lost is made again without end.
    ///
    /// # Errors
    /// The server cannot be reached, refuses the credentials, or has no JetStream.
    pub(crate) async fn open(options: &QueueOptions, name: &str) -> Result<Self> {
        let addresses: Vec<&str> = options.address.split(',').map(str::trim).collect();
        let mut connecting = ConnectOptions::new().name(name).request_timeout(Some(ANSWER));
        if let Some(file) = &options.credentials {
            let read = connecting.credentials_file(file).await;
            connecting = read.map_err(|source| ClusterError::Credentials {
                file: file.clone(),
                source,
            })?;
        }
        let client = connecting.connect(addresses).await;
        let client = client.map_err(ClusterError::queue("connect"))?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(ANSWER);
        let jobs = context.get_or_create_stream(stream::Config {
            name: "sd-jobs".to_owned(),
            subjects: vec![ALL_JOBS.to_owned()],
            retention: RetentionPolicy::WorkQueue,
            // A job has a subject of its own, and so it cannot be there twice.
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            discard_new_per_subject: true,
            duplicate_window: DUPLICATES,
            allow_direct: true,
            ..stream::Config::default()
        });
        let jobs = jobs
            .await
            .map_err(ClusterError::queue("make the stream of jobs"))?;
        // The stream of a bucket of keys, in which what is done with can be deleted without a trace.
        let bucket = context.get_or_create_stream(stream::Config {
            name: "KV_sd-status".to_owned(),
            subjects: vec!["$KV.sd-status.>".to_owned()],
            max_messages_per_subject: 1,
            max_age: LOST_AFTER,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            allow_direct: true,
            ..stream::Config::default()
        });
        bucket.await.map_err(ClusterError::queue("make a bucket"))?;
        let statuses = context.get_key_value("sd-status").await;
        let statuses = statuses.map_err(ClusterError::queue("open a bucket"))?;
        let files = object_bucket(&context, "sd-files").await?;
        Ok(Self {
            client,
            context,
            jobs,
            statuses,
            files,
        })
    }

    /// Whether it is connected now.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == ConnectionState::Connected
    }

    /// Whether the stream has a job that no worker has acknowledged.
    ///
    /// # Errors
    /// The queue fails.
    pub(crate) async fn has_job(&self, subject: &str) -> Result<bool> {
        match self.jobs.direct_get_last_for_subject(subject).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(false),
            Err(error) => Err(ClusterError::queue("look for a job")(error)),
        }
    }

    /// Removes a job from the stream, if it is there.
    ///
    /// # Errors
    /// The queue fails.
    pub(crate) async fn remove_job(&self, subject: &str) -> Result<()> {
        // Not by a purge of its subject, after which consumers of NATS 2.9 leave other jobs out.
        let sequence = match self.jobs.direct_get_last_for_subject(subject).await {
            Ok(message) => message.sequence,
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(ClusterError::queue("look for a job")(error)),
        };
        let removed = self.jobs.delete_message(sequence).await;
        removed.map(drop).map_err(ClusterError::queue("remove a job"))
    }

    /// The consumer that all workers of a route share.
    ///
    /// # Errors
    /// The queue fails, or has another one of this name.
    pub(crate) async fn consumer(&self, route: &Route) -> Result<Consumer<pull::Config>> {
        let name = route.consumer();
        let consumer = self.jobs.create_consumer(pull::Config {
            durable_name: Some(name),
            filter_subject: route.filter(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            // Workers count the deliveries, and say that a job has failed. The server would keep it in silence.
            max_deliver: -1,
            max_ack_pending: MOST_WORKERS,
            max_waiting: MOST_WORKERS,
            ..pull::Config::default()
        });
        consumer.await.map_err(ClusterError::queue("make a consumer"))
    }
}

/// The bucket of objects `name`.
///
/// # Errors
/// The queue fails.
pub(crate) async fn object_bucket(context: &Context, name: &str) -> Result<ObjectStore> {
    if let Ok(bucket) = context.get_object_store(name).await {
        return Ok(bucket);
    }
    let bucket = context.create_object_store(object_store::Config {
        bucket: name.to_owned(),
        max_age: LOST_AFTER,
        ..object_store::Config::default()
    });
    bucket.await.map_err(ClusterError::queue("make a bucket"))
}
