//! The directories of the current user, from the environment: run states, the prompt cache, the
//! configuration.

use std::env;
use std::path::PathBuf;

use sd_pipeline::UserDirs;

/// The program's name among the user's directories.
const PROGRAM: &str = "sd-generate";

/// The directories of the current user: `$SD_GENERATE_STATE` and `$SD_GENERATE_CACHE` if they are set; else
/// those of the XDG base directories on Linux, of the Library on macOS, and of the local application data on
/// Windows. Nothing is created or read.
pub fn user_dirs() -> UserDirs {
    UserDirs {
        state: absolute("SD_GENERATE_STATE").or_else(|| Some(state_of_user()?.join(PROGRAM))),
        cache: absolute("SD_GENERATE_CACHE").or_else(|| Some(cache_of_user()?.join(PROGRAM))),
    }
}

/// The user's configuration file: `$SD_GENERATE_CONFIG` if it is set, else `sd-generate/config.toml` in the
/// user's configuration folder. It need not exist.
pub(crate) fn configuration_file() -> Option<PathBuf> {
    absolute("SD_GENERATE_CONFIG")
        .or_else(|| Some(configurations_of_user()?.join(PROGRAM).join("config.toml")))
}

#[cfg(target_os = "macos")]
fn configurations_of_user() -> Option<PathBuf> {
    state_of_user()
}

#[cfg(windows)]
fn configurations_of_user() -> Option<PathBuf> {
    absolute("APPDATA")
}

#[cfg(not(any(target_os = "macos", windows)))]
fn configurations_of_user() -> Option<PathBuf> {
    xdg("XDG_CONFIG_HOME").or_else(|| Some(env::home_dir()?.join(".config")))
}

#[cfg(target_os = "macos")]
fn state_of_user() -> Option<PathBuf> {
    Some(env::home_dir()?.join("Library/Application Support"))
}

#[cfg(target_os = "macos")]
fn cache_of_user() -> Option<PathBuf> {
    Some(env::home_dir()?.join("Library/Caches"))
}

#[cfg(windows)]
fn state_of_user() -> Option<PathBuf> {
    absolute("LOCALAPPDATA")
}

#[cfg(windows)]
fn cache_of_user() -> Option<PathBuf> {
    // Beside the run states, which have their own folder.
    absolute("LOCALAPPDATA")
}

#[cfg(not(any(target_os = "macos", windows)))]
fn state_of_user() -> Option<PathBuf> {
    xdg("XDG_STATE_HOME").or_else(|| Some(env::home_dir()?.join(".local/state")))
}

#[cfg(not(any(target_os = "macos", windows)))]
fn cache_of_user() -> Option<PathBuf> {
    xdg("XDG_CACHE_HOME").or_else(|| Some(env::home_dir()?.join(".cache")))
}

/// A base directory. Relative ones are ignored, as specified.
#[cfg(not(any(target_os = "macos", windows)))]
fn xdg(variable: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
}

/// The absolute path of an environment variable, if it is one.
fn absolute(variable: &str) -> Option<PathBuf> {
    let folder = env::var_os(variable).filter(|folder| !folder.is_empty())?;
    std::path::absolute(folder).ok()
}
