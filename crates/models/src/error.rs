//! Why a network cannot be made or cannot run.

/// The result of every call into this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a network cannot be made or cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The network's files are wrong.
    #[error(transparent)]
    Weights(#[from] sd_weights::Error),
    /// A tensor operation failed, for instance because the device has no memory left.
    #[error("tensor operation failed")]
    Tensor(#[from] candle_core::Error),
    /// The configuration asks for what this network cannot be.
    #[error("the configuration of the {network} cannot be used: {reason}")]
    Config {
        /// The network.
        network: &'static str,
        /// Which field, what it says, and what is possible.
        reason: String,
    },
    /// A file holds no network that makes pictures larger, or none that is known.
    #[error("`{}` cannot be used as an upscaler: {reason}", file.display())]
    Upscaler {
        /// The file.
        file: std::path::PathBuf,
        /// What was found, and what is known.
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
