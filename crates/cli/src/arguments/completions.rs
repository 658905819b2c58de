//! The arguments of `generate completions` and `generate man`.

use clap::Args;
use clap_complete::Shell;

/// Prints a script that completes commands and options in a shell
#[derive(Debug, Args)]
#[command(
    override_usage = "generate completions SHELL",
    after_help = "Examples:\n  \
                  generate completions bash > ~/.local/share/bash-completion/completions/generate\n  \
                  generate completions zsh > ~/.zfunc/_generate\n  \
                  generate completions fish > ~/.config/fish/completions/generate.fish"
)]
pub(crate) struct CompletionsArguments {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

/// Prints the manual page, or that of a command, for man
#[derive(Debug, Args)]
#[command(override_usage = "generate man [COMMAND...]")]
pub(crate) struct ManArguments {
    /// Command, such as `models pull`
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}
