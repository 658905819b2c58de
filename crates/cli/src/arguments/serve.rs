//! The arguments of `generate serve`, `generate worker` and `generate ps`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use sd_catalog::parse;
use sd_pipeline::{Bytes, DeviceChoice};

use super::threads::threads;

/// What the jobs of a server or a worker run with.
#[derive(Debug, Args)]
pub(crate) struct EngineArguments {
    /// The memory budget of a job
    #[arg(long, value_name = "SIZE", value_parser = parse::memory)]
    pub(crate) memory: Option<Bytes>,
    /// The device: auto, cpu, cuda, cuda:N or metal
    #[arg(long, value_name = "DEVICE", value_parser = parse::device)]
    pub(crate) device: Option<DeviceChoice>,
    /// After how long without a job the model is given back, such as 90s or 5m
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub(crate) idle_after: Duration,
    /// CPU threads; their number changes no image [default: the CPUs that the process may use]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub(crate) threads: Option<NonZeroUsize>,
}

/// Serves images over HTTP, with a page, a queue, and the interfaces of OpenAI and stable-diffusion-webui
#[derive(Debug, Args)]
#[command(
    override_usage = "generate serve [OPTIONS]",
    after_help = "Examples:\n  generate serve\n  generate serve --listen 0.0.0.0:7860 --token-file keys.txt --host-name studio.local\n\n\
                  docs/serving.md describes the interfaces."
)]
pub(crate) struct ServeArguments {
    /// The address and port to listen on; beyond this machine only with a key
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7860")]
    pub(crate) listen: SocketAddr,
    /// The port, on the address of this machine alone
    #[arg(long, value_name = "PORT", conflicts_with = "listen")]
    pub(crate) port: Option<u16>,
    /// The key that clients must send [env: SD_GENERATE_TOKEN]
    #[arg(long, value_name = "KEY", conflicts_with = "token_file")]
    pub(crate) token: Option<String>,
    /// A file with the keys of clients, `NAME:KEY` in each line
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// A name of this machine under which clients ask for it
    #[arg(long, value_name = "NAME")]
    pub(crate) host_name: Vec<String>,
    /// The origin of another page that may use the server, such as `https://studio.example`
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) origin: Vec<String>,
    /// A model that requests may name; without it, all that are on this machine
    #[arg(long = "allow-model", value_name = "REF")]
    pub(crate) allow_model: Vec<String>,
    /// The folder of jobs and their images; by default that of the user's state
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
    /// How long the images of ended jobs are kept, such as 12h or 7d
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration)]
    pub(crate) keep_for: Duration,
    /// How much the images of ended jobs may take; the oldest are removed first
    #[arg(long, value_name = "SIZE", default_value = "10GB", value_parser = parse::memory)]
    pub(crate) keep: Bytes,
    /// How much uploaded images may take, which are kept for a day
    #[arg(long, value_name = "SIZE", default_value = "1GB", value_parser = parse::memory)]
    pub(crate) keep_uploads: Bytes,
    /// The most images of a job
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) most_images: u64,
    /// The most jobs of one user that wait
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) most_waiting: usize,
    /// The most requests of one address in a minute
    #[arg(long, value_name = "N")]
    pub(crate) most_per_minute: Option<u32>,
    /// The most connections at a time
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) most_connections: usize,
    /// The NATS server through which workers run the jobs, such as `nats://HOST`; several with commas
    #[cfg(feature = "cluster")]
    #[arg(long, value_name = "URL")]
    pub(crate) queue: Option<String>,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// Leave images where workers put them, once they are fetched
    #[cfg(feature = "cluster")]
    #[arg(long, requires = "queue")]
    pub(crate) keep_results: bool,
    /// Write prompts to the log
    #[arg(long)]
    pub(crate) log_prompts: bool,
}

/// What a server and its workers must agree on.
#[cfg(feature = "cluster")]
#[derive(Debug, Args)]
pub(crate) struct ClusterArguments {
    /// A file of credentials (.creds) for the queue
    #[arg(long, value_name = "FILE", requires = "queue")]
    pub(crate) queue_credentials: Option<PathBuf>,
    /// Where workers put images: a folder, or s3://BUCKET/PREFIX [default: in the queue]
    #[arg(long, value_name = "PLACE", requires = "queue")]
    pub(crate) results: Option<String>,
}

/// Runs the jobs of servers that are started with --queue
#[cfg(feature = "cluster")]
#[derive(Debug, Args)]
#[command(
    override_usage = "generate worker --queue <URL> [OPTIONS]",
    after_help = "Examples:\n  generate worker --queue nats://queue.local --memory 12GB\n  \
                  generate worker --queue tls://queue.local --queue-credentials worker.creds\n\n\
                  docs/cluster.md describes workers and their queue."
)]
pub(crate) struct WorkerArguments {
    /// The NATS server, such as `nats://HOST` or `tls://HOST`; several with commas
    #[arg(long, value_name = "URL")]
    pub(crate) queue: String,
    #[command(flatten)]
    pub(crate) cluster: ClusterArguments,
    /// A model that it runs; without it, all that are on this machine
    #[arg(long = "allow-model", value_name = "REF")]
    pub(crate) allow_model: Vec<String>,
    /// The folder for jobs that run; by default in that of the user's state
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
}

/// Lists the jobs of a running server
#[derive(Debug, Args)]
#[command(override_usage = "generate ps [OPTIONS]")]
pub(crate) struct PsArguments {
    /// The folder of the server's jobs; by default that of the user's state
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    /// List ended jobs too
    #[arg(long)]
    pub(crate) all: bool,
    /// Print one JSON event per line
    #[arg(long)]
    pub(crate) json: bool,
}

/// A time such as `90s`, `5m`, `12h` or `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| "it is no time, such as 90s, 5m, 12h or 7d".to_owned())?;
    let seconds = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        "" => return Err(format!("{text}s or {text}m?")),
        unit => return Err(format!("`{unit}` is none of s, m, h and d")),
    };
    number
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or_else(|| "it is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in ["", "5", "m", "5 m", "5w", "99999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
