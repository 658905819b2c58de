//! What whoever starts the server decides.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sd_catalog::Configuration;

use crate::access::Keys;

/// What whoever starts the server decides.
#[derive(Debug)]
pub struct Options {
    /// The address to listen on.
    pub address: SocketAddr,
    /// The folder of jobs and their images.
    pub folder: PathBuf,
    /// Who may connect. Without keys everyone who reaches the address may.
    pub keys: Keys,
    /// Names of this machine under which clients may ask for it, beside its addresses and `localhost`.
    pub host_names: Vec<String>,
    /// Origins of other pages that may use the server, such as `https://studio.example`.
    pub origins: Vec<String>,
    /// The only models that requests may name. Without them, all that are on this machine.
    pub models: Option<Vec<String>>,
    /// The user's configuration, the lowest layer of settings.
    pub configuration: Configuration,
    /// After how long without a job what is loaded is given back.
    pub idle_after: Duration,
    /// How long ended jobs and their images are kept.
    pub keep_for: Duration,
    /// How many bytes of images are kept. The oldest are removed first.
    pub keep_bytes: u64,
    /// What a request may ask for.
    pub limits: Limits,
    /// Whether prompts are logged.
    pub logs_prompts: bool,
    /// The queue through which workers on other machines run the jobs. Without one they run in this process.
    #[cfg(feature = "cluster")]
    pub queue: Option<crate::cluster::QueueOptions>,
}

/// What a request may ask for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Images of a job.
    pub images: u64,
    /// Pixels of a side, before upscaling.
    pub side: usize,
    /// Denoising steps.
    pub steps: u64,
    /// Characters of a prompt.
    pub prompt: usize,
    /// Bytes of a request, images in it included.
    pub body: usize,
    /// Bytes of all requests that are just coming, without uploads.
    pub bodies: u64,
    /// Bytes of an uploaded file.
    pub upload: u64,
    /// Bytes of all uploaded files that are kept for later requests.
    pub uploads: u64,
    /// Jobs of one user that wait.
    pub waiting: usize,
    /// Connections that are open at a time.
    pub connections: usize,
    /// Requests of one address in a minute, if they are limited.
    pub per_minute: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            images: 16,
            side: 4096,
            steps: 200,
            prompt: 20_000,
            body: 64 << 20,
            bodies: 256 << 20,
            upload: 64 << 20,
            uploads: 1 << 30,
            waiting: 1000,
            connections: 512,
            per_minute: None,
        }
    }
}
