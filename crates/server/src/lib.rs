//! Serves images over HTTP: a queue of jobs that outlives the process, and the interfaces that other programs know.
//!
//! A request becomes a `JobRequest`, whatever interface it comes through (`http`). It is planned
//! before it is accepted (`prepare`) and written to the `Store` before it is answered. One thread
//! (`worker`) takes the next job (`queue`), runs it on its `Engine`, and reports what happens
//! to everyone who listens (`events`). A server that was killed goes on with every job, the one that ran from its
//! last step. Who may connect, and with what, is in `access`.
//!
//! With the feature `cluster` the jobs can also run on other machines (the module of that name).

mod access;
#[cfg(feature = "cluster")]
mod cluster;
mod error;
mod events;
mod http;
mod job;
mod listed;
mod lock;
mod log;
mod model_facts;
mod options;
mod prepare;
mod queue;
mod retention;
mod running;
mod server;
mod serving;
mod store;
mod submit;
mod worker;

pub use access::Keys;
#[cfg(feature = "cluster")]
pub use cluster::{ClusterError, QueueOptions, WorkerOptions, work};
pub use error::{Error, Result};
pub use listed::{ListedJob, jobs};
pub use log::JOBS;
pub use options::{Limits, Options};
pub use serving::serve;
