//! [`JobId`]: the name of a job, which nobody can guess.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Characters of an id.
const LENGTH: usize = 32;

/// The name of a job: 128 random bits. Whoever knows it may fetch the images of the job, so that their addresses work
/// in programs that send no key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct JobId(String);

impl JobId {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(crate) fn random() -> crate::Result<Self> {
        let mut bytes = [0; LENGTH / 2];
        getrandom::fill(&mut bytes).map_err(|error| crate::Error::Folder {
            path: "the system's random numbers".into(),
            source: std::io::Error::other(error.to_string()),
        })?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The id of `text`, if it can be one. It is then safe as the name of a folder.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_id =
            text.len() == LENGTH && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_id.then(|| Self(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for JobId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("it is no id of a job")
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_are_taken() {
        let id = JobId::random().unwrap();
        assert_eq!(JobId::parse(id.as_str()), Some(id.clone()));
        assert_ne!(JobId::random().unwrap(), id);
        for text in ["", "..", "../../etc/passwd", &"A".repeat(32), &"a".repeat(33)] {
            assert_eq!(JobId::parse(text), None, "{text}");
        }
    }
}
