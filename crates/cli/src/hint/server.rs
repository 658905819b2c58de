//! The hints of a server that cannot start.

use sd_server::Error;

use super::{FAILED, Failure, USAGE};

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (hint, code) = match &error {
            Error::Unprotected { .. } => (
                "set SD_GENERATE_TOKEN or --token-file, or listen on 127.0.0.1",
                USAGE,
            ),
            Error::Address { .. } => (
                "another program may use the port: --port names another one",
                FAILED,
            ),
            Error::Keys { .. } => ("the file has a key, or NAME:KEY, in each line", USAGE),
            Error::ShortKey { .. } => ("`openssl rand -hex 16` prints one that nobody guesses", USAGE),
            Error::NoStateFolder => ("--folder names one", USAGE),
            Error::InUse { .. } => ("one server uses a folder: --folder names another one", FAILED),
            Error::NoJobs { .. } => (
                "`generate serve` makes some; --folder names another folder",
                FAILED,
            ),
            Error::Folder { .. } | Error::Store(_) => (
                "the folder of the server must be writable and have space; --folder names another one",
                FAILED,
            ),
            #[cfg(feature = "cluster")]
            Error::Cluster(_) => (
                "docs/cluster.md describes the queue, and what front ends and workers must agree on",
                FAILED,
            ),
            _ => return Self::other(error.to_string()),
        };
        Self {
            message: error.to_string(),
            hint: Some(hint.to_owned()),
            code,
        }
    }
}
