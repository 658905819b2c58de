//! Hints for errors of the hub and of its cache.

use std::io;

use sd_hub::Error;
use sd_pipeline::Bytes;

use super::{Failure, INTERRUPTED, NO_MODEL, USAGE, chain};

impl Failure {
    /// `name` is neither a preset nor an id.
    pub(crate) fn no_such_name(name: &str) -> Self {
        let hint =
            "an id reads owner/name, with a revision owner/name@revision; `--quality help` lists the presets";
        Self {
            message: format!("`{name}` is not the id of a repository on the hub"),
            hint: Some(hint.to_owned()),
            code: USAGE,
        }
    }

    /// What was given as a token is none.
    pub(crate) fn no_token(endpoint: &str) -> Self {
        Self {
            message: "there is no token in what was given".to_owned(),
            hint: Some(format!(
                "{endpoint}/settings/tokens makes one: hf_ and letters, without spaces"
            )),
            code: USAGE,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            message: message(&error),
            hint: Some(hint(&error)),
            code: match error {
                Error::Stopped => INTERRUPTED,
                _ => NO_MODEL,
            },
        }
    }
}

/// The error in one line, with bytes as people read them.
fn message(error: &Error) -> String {
    match error {
        Error::DiskFull { folder, wanted, free } => format!(
            "there is no room for {} in `{}`: {} are free",
            Bytes(*wanted),
            folder.display(),
            Bytes(*free)
        ),
        other => chain(other),
    }
}

/// The way out.
fn hint(error: &Error) -> String {
    let room =
        "make room (`generate models rm ID` removes a model), or name a folder on another disk with HF_HOME";
    match error {
        Error::Offline { what } => {
            format!("`generate models pull {what}`, without HF_HUB_OFFLINE, gets it")
        }
        Error::NoRepository { has_token, .. } => {
            let private = match has_token {
                true => "a private one must be open to the account of your token",
                false => "a private one wants `generate login` first",
            };
            format!("make sure that it is spelled as on its page, owner/name; {private}")
        }
        Error::NoRevision { .. } => {
            "make sure of the branch, tag or commit; without one the main branch is meant".to_owned()
        }
        Error::NoFile { id, .. } => format!("the page of `{id}` lists its files"),
        Error::Gated { page, has_token, .. } => match has_token {
            true => format!(
                "accept the licence on {page} with the account that you are logged in with, then try again"
            ),
            false => format!("accept the licence on {page}, then `generate login`"),
        },
        Error::TokenRefused { endpoint } => {
            format!("`generate login` with a token of {endpoint}/settings/tokens; one in HF_TOKEN wins over it")
        }
        Error::Forbidden { .. } => "the token must be allowed to read it; `generate login` takes another".to_owned(),
        Error::NoNetwork { .. } => {
            "look at the connection; HTTPS_PROXY and HF_ENDPOINT are obeyed, and what is here needs no network".to_owned()
        }
        Error::GaveUp { .. } | Error::Busy { .. } => {
            "try again later: a download goes on where it stopped".to_owned()
        }
        Error::BadReply { .. } => {
            "HF_ENDPOINT, where it is set, must be a hub of Hugging Face or a mirror of one".to_owned()
        }
        Error::Mismatch { .. } => {
            "something on the way changes the file, or the hub is about to: try again later".to_owned()
        }
        Error::DiskFull { .. } => room.to_owned(),
        Error::Cache { source, .. } => match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => room.to_owned(),
            _ => "make sure that the folder can be written, or name another with HF_HOME".to_owned(),
        },
        Error::BeingFetched { .. } => "wait for it, or stop that process first".to_owned(),
        Error::NoThread { .. } => "end other programs, or raise the limit of processes (ulimit -u)".to_owned(),
        Error::NotCached { .. } => "`generate models list` shows what there is".to_owned(),
        Error::Stopped => "the same command goes on where it stopped".to_owned(),
        _ => "`generate models list` shows what is here".to_owned(),
    }
}
