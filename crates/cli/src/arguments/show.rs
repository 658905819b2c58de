//! The arguments of `generate show`.

use std::path::PathBuf;

use clap::Args;

/// Prints the prompt and the settings of a PNG, JPEG, WebP or .json file
#[derive(Debug, Args)]
#[command(override_usage = "generate show PICTURE [--json]")]
pub(crate) struct ShowArguments {
    /// Image of this program, of stable-diffusion-webui or of ComfyUI, or its .json file
    #[arg(value_name = "PICTURE")]
    pub(crate) picture: PathBuf,

    /// Print one JSON event per line
    #[arg(long)]
    pub(crate) json: bool,
}
