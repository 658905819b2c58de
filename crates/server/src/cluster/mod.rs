//! Many machines: a server as a front end, and workers that run its jobs, on NATS JetStream.
//!
//! The front end ([`dispatch`]) keeps its interfaces and its store. It publishes jobs to a work-queue stream, a few more
//! than workers can take, in the order of its own queue. Each job has a subject that names its model and the budget
//! that it needs ([`subject`]); a worker ([`work`]) pulls from the subjects that it can run. What becomes of a job is its
//! [`Status`](status::Status) in a bucket of keys, which is written with the revision that was read, so that one writer
//! wins. Source images and the state of runs are in a bucket of objects ([`files`]), images where
//! [`results`] puts them.
//!
//! A worker that dies does not acknowledge its job, which JetStream then delivers to another. That one fetches the state
//! of the run and goes on from its last step. Images are stored under the id of their job and their number: a job that
//! two workers finish has its images once.

mod connection;
mod dispatcher;
mod error;
mod files;
mod options;
mod results;
mod settle;
mod status;
mod subject;
mod worker;

pub use error::ClusterError;
pub use options::{QueueOptions, WorkerOptions};

pub(crate) use dispatcher::dispatch;
pub use worker::work;
