//! What went otherwise than asked: what could not be had, and what the user was warned of.

use serde::{Deserialize, Serialize};

/// Something that was asked for, and that a run went on without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What it was: ``the LoRA `detail` ``, say.
    pub what: String,
    /// Why it could not be had.
    pub reason: String,
    /// When that was found, in local time.
    pub at: String,
}

impl Failure {
    /// A failure that was found now.
    pub(crate) fn now(what: &str, reason: String) -> Self {
        Self {
            what: what.to_owned(),
            reason,
            at: now(),
        }
    }
}

/// Something that the user was warned of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What was said.
    pub message: String,
    /// When, in local time.
    pub at: String,
}

impl Warning {
    /// A warning that is given now.
    pub(crate) fn now(message: String) -> Self {
        Self { message, at: now() }
    }
}

/// The local time.
fn now() -> String {
    crate::clock::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}
