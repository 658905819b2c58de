//! What the metadata records of a run: the parts that were left out, and the warnings.

use serde::{Deserialize, Serialize};

/// A requested part that failed, and that a run was continued without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What it is, such as ``the LoRA `detail` ``.
    pub what: String,
    /// Why it failed.
    pub reason: String,
    /// When it failed, in local time.
    pub at: String,
}

impl Failure {
    /// A failure at the current time.
    pub(crate) fn now(what: &str, reason: String) -> Self {
        Self {
            what: what.to_owned(),
            reason,
            at: now(),
        }
    }
}

/// A warning for the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// The text.
    pub message: String,
    /// When, in local time.
    pub at: String,
}

impl Warning {
    /// A warning at the current time.
    pub(crate) fn now(message: String) -> Self {
        Self { message, at: now() }
    }
}

/// The local time.
fn now() -> String {
    crate::clock::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}
