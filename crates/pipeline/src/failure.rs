//! What was asked for and could not be had.

use jiff::ZonedDateTime;
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
            at: ZonedDateTime::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        }
    }
}
