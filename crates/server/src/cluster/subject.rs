//! The names of the queue: subjects, consumers and keys.
//!
//! | name | what |
//! |---|---|
//! | `sd.jobs.MODEL.CLASS.FRONT_END.JOB` | a job that waits or runs, in the stream `sd-jobs` |
//! | `MODEL_CLASS` | the durable consumer of all workers that run jobs of this model and class |
//! | `FRONT_END.JOB` | the status of a job, in the bucket `sd-status` |
//! | `sd.events.FRONT_END.JOB` | progress and previews, which nothing keeps |
//! | `sd.watch.FRONT_END` | says that someone watches jobs of this front end: workers send previews |
//! | `sd.cancel.FRONT_END.JOB` | tells the worker that its job was cancelled |

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};

use crate::job::JobId;

/// The subjects of the stream of jobs.
pub(crate) const ALL_JOBS: &str = "sd.jobs.>";

const GIB: u64 = 1 << 30;

/// The memory that a job needs, as the next power of two of GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemoryClass(u32);

impl MemoryClass {
    /// The class of a job that fits into `bytes`, and into no less.
    pub(crate) fn needing(bytes: u64) -> Self {
        Self(bytes.div_ceil(GIB).next_power_of_two().trailing_zeros())
    }

    /// The class of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let size: u64 = name.strip_suffix('g')?.parse().ok()?;
        size.is_power_of_two().then(|| Self(size.trailing_zeros()))
    }

    /// The classes whose jobs fit into a budget of `bytes`, the largest first. Jobs of the smallest are always tried.
    pub(crate) fn within(bytes: u64) -> Vec<Self> {
        let largest = (bytes / GIB).max(1).ilog2();
        (0..=largest).rev().map(Self).collect()
    }
}

impl fmt::Display for MemoryClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}g", 1_u64 << self.0.min(63))
    }
}

/// The jobs of one model and class.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Route {
    pub(crate) model: String,
    pub(crate) class: MemoryClass,
}

impl Route {
    /// The name of the consumer that workers share.
    pub(crate) fn consumer(&self) -> String {
        format!("{}_{}", token(&self.model), self.class)
    }

    /// The subjects of its jobs.
    pub(crate) fn filter(&self) -> String {
        format!("sd.jobs.{}.{}.>", token(&self.model), self.class)
    }

    /// The subject of the job `key`.
    pub(crate) fn subject(&self, key: &JobKey) -> String {
        format!("sd.jobs.{}.{}.{key}", token(&self.model), self.class)
    }
}

/// A job of one of the front ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobKey {
    /// The id of the front end.
    pub(crate) front_end: JobId,
    pub(crate) job: JobId,
}

impl JobKey {
    /// The job of a key of the bucket of statuses.
    pub(crate) fn parse(key: &str) -> Option<Self> {
        let (front_end, job) = key.split_once('.')?;
        Some(Self {
            front_end: JobId::parse(front_end)?,
            job: JobId::parse(job)?,
        })
    }

    pub(crate) fn events(&self) -> String {
        format!("sd.events.{self}")
    }

    pub(crate) fn watch(&self) -> String {
        watch(&self.front_end)
    }

    pub(crate) fn cancel(&self) -> String {
        format!("sd.cancel.{self}")
    }

    /// The name of an object of the job.
    pub(crate) fn object(&self, name: &str) -> String {
        format!("{}/{}/{name}", self.front_end, self.job)
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.front_end, self.job)
    }
}

/// The subject on which a front end says that its jobs are watched.
pub(crate) fn watch(front_end: &JobId) -> String {
    format!("sd.watch.{front_end}")
}

/// `name` as one word of a subject. Two names never have the same.
fn token(name: &str) -> String {
    let mut token = String::new();
    for byte in name.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' => token.push(char::from(byte)),
            // A string takes everything.
            _ => drop(write!(token, "={byte:02X}")),
        }
    }
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_of_a_class_fit_into_its_workers() {
        for (bytes, class) in [
            (1, "1g"),
            (GIB, "1g"),
            (GIB + 1, "2g"),
            (9 * GIB, "16g"),
            (16 * GIB, "16g"),
        ] {
            assert_eq!(MemoryClass::needing(bytes).to_string(), class, "{bytes}");
            assert_eq!(MemoryClass::parse(class), Some(MemoryClass::needing(bytes)));
        }
        let names = |bytes| {
            MemoryClass::within(bytes)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(12 * GIB), ["8g", "4g", "2g", "1g"]);
        assert_eq!(names(GIB / 2), ["1g"]);
    }

    #[test]
    fn every_model_has_a_word_of_its_own() {
        assert_eq!(token("org/model-1.0"), "org=2Fmodel-1=2E0");
        assert_ne!(token("a_1g"), token("a=5F1g"));
        let route = Route {
            model: "a.*>b c".to_owned(),
            class: MemoryClass::needing(1),
        };
        assert_eq!(route.filter().split('.').count(), 5);
        assert!(!route.consumer().contains(['.', '*', '>', ' ']));
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        let key = JobKey {
            front_end: JobId::random().unwrap(),
            job: JobId::random().unwrap(),
        };
        assert_eq!(JobKey::parse(&key.to_string()), Some(key.clone()));
        assert_eq!(JobKey::parse(key.job.as_str()), None);
    }
}
