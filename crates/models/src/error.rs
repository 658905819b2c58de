//! Errors of loading and running networks.

/// The result of every call into this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of loading and running networks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The network's files are damaged or do not fit.
    #[error(transparent)]
    Weights(#[from] sd_weights::Error),
    /// A tensor operation failed, for instance because the device is out of memory.
    #[error("tensor operation failed")]
    Tensor(#[from] candle_core::Error),
    /// The configuration is impossible or not supported.
    #[error("the configuration of the {network} cannot be used: {reason}")]
    Config {
        /// The network.
        network: &'static str,
        /// The setting, its value, and what is possible.
        reason: String,
    },
    /// A file holds no super-resolution network, or an unsupported one.
    #[error("`{}` cannot be used as an upscaler: {reason}", file.display())]
    Upscaler {
        /// The file.
        file: std::path::PathBuf,
        /// What was found, and what is supported.
        reason: String,
    },
    /// An input does not have the shape that the network takes.
    #[error("the {network} was given {found}, and takes {wanted}")]
    Input {
        /// The network.
        network: &'static str,
        /// What it was given.
        found: String,
        /// What it takes.
        wanted: String,
    },
}
