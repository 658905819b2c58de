//! [`Keys`]: the secrets that clients send, and the users that they stand for.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use crate::{Error, Result};

/// The longest file of keys, in bytes.
const LONGEST_FILE: u64 = 1 << 20;
/// The least characters of a key.
const LEAST: usize = 8;

/// The secrets that clients send, each with the name of a user.
#[derive(Clone, Default)]
pub struct Keys(Vec<(String, String)>);

/// The user of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User(pub(crate) String);

// Without the keys.
impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} keys", self.0.len())
    }
}

impl Keys {
    /// No keys: everyone may connect.
    pub fn none() -> Self {
        Self::default()
    }

    /// One key for everyone.
    ///
    /// # Errors
    /// It is too short.
    pub fn one(key: String) -> Result<Self> {
        match key.len() < LEAST {
            true => Err(Error::ShortKey { least: LEAST }),
            false => Ok(Self(vec![("local".to_owned(), key)])),
        }
    }

    /// The keys of a file: `NAME:KEY` or `KEY` in each line. Empty lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// The file cannot be read, has no key, or one that is too short.
    pub fn read(file: &Path) -> Result<Self> {
        let wrong = |reason: String| Error::Keys {
            file: file.to_owned(),
            reason,
        };
        let text = sd_catalog::read_text(file, LONGEST_FILE).map_err(|error| wrong(error.to_string()))?;
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys = lines.map(|line| line.split_once(':').unwrap_or(("local", line)));
        let keys: Vec<(String, String)> = keys
            .map(|(name, key)| (name.to_owned(), key.to_owned()))
            .collect();
        if keys.is_empty() {
            return Err(wrong("there is none".to_owned()));
        }
        if let Some((name, _)) = keys.iter().find(|(_, key)| key.len() < LEAST) {
            return Err(wrong(format!(
                "that of `{name}` has fewer than {LEAST} characters"
            )));
        }
        Ok(Self(keys))
    }

    /// Whether everyone may connect.
    pub fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there are several users.
    pub(crate) fn are_of_several(&self) -> bool {
        self.0.iter().any(|(name, _)| *name != self.0[0].0)
    }

    /// The user whose key an `Authorization` header has: as a bearer token, or as the password of basic authentication.
    /// The time that this takes does not depend on the keys.
    pub(crate) fn user(&self, authorization: Option<&str>) -> Option<User> {
        let (scheme, value) = authorization?.split_once(' ')?;
        let sent = match scheme.to_ascii_lowercase().as_str() {
            "bearer" => value.trim().to_owned(),
            "basic" => {
                let pair = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
                pair.split_once(':')?.1.to_owned()
            }
            _ => return None,
        };
        let mut found = None;
        for (name, key) in &self.0 {
            if bool::from(sent.as_bytes().ct_eq(key.as_bytes())) {
                found = Some(User(name.clone()));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_token_or_a_password() {
        let keys = Keys(vec![
            ("ann".to_owned(), "first-key".to_owned()),
            ("ben".to_owned(), "second-key".to_owned()),
        ]);
        let user = |header: &str| keys.user(Some(header)).map(|user| user.0);
        assert_eq!(user("Bearer first-key").as_deref(), Some("ann"));
        assert_eq!(user("bearer second-key").as_deref(), Some("ben"));
        let basic = STANDARD.encode("anyone:second-key");
        assert_eq!(user(&format!("Basic {basic}")).as_deref(), Some("ben"));
        for wrong in [
            "Bearer",
            "Bearer first",
            "Digest first-key",
            "Basic !",
            "first-key",
        ] {
            assert_eq!(user(wrong), None, "{wrong}");
        }
        assert_eq!(keys.user(None), None);
    }

    #[test]
    fn short_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys");
        for (text, is_fine) in [
            ("# all\nann:long-enough\n\nlong-enough-too", true),
            ("", false),
            ("ann:short", false),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(Keys::read(&file).is_ok(), is_fine, "{text}");
        }
    }
}
