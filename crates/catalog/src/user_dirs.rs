//! The directories of the current user, from the environment: run states, the prompt cache, the
//! configuration.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use sd_pipeline::UserDirs;

/// The program's name among the user's directories.
const PROGRAM: &str = "sd-generate";

/// The directories of the current user: `$SD_GENERATE_STATE` and `$SD_GENERATE_CACHE` if they are set; else
/// those of the XDG base directories on Linux, of the Library on macOS, and of the local application data on
/// Windows. Nothing is created or read.
pub fn user_dirs() -> UserDirs {
    let user = User::current();
    UserDirs {
        state: absolute("SD_GENERATE_STATE").or_else(|| Some(user.state()?.join(PROGRAM))),
        cache: absolute("SD_GENERATE_CACHE").or_else(|| Some(user.cache()?.join(PROGRAM))),
    }
}

/// The user's configuration file: `$SD_GENERATE_CONFIG` if it is set, else `sd-generate/config.toml` in the
/// user's configuration folder. It need not exist.
pub(crate) fn configuration_file() -> Option<PathBuf> {
    absolute("SD_GENERATE_CONFIG")
        .or_else(|| Some(User::current().configuration()?.join(PROGRAM).join("config.toml")))
}

/// The absolute path of an environment variable, if it is one.
fn absolute(variable: &str) -> Option<PathBuf> {
    let folder = env::var_os(variable).filter(|folder| !folder.is_empty())?;
    std::path::absolute(folder).ok()
}

/// The systems that differ in where programs keep the files of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    /// macOS.
    Mac,
    /// Windows.
    Windows,
    /// Linux and other Unix systems.
    Xdg,
}

impl System {
    const THIS: Self = if cfg!(target_os = "macos") {
        Self::Mac
    } else if cfg!(windows) {
        Self::Windows
    } else {
        Self::Xdg
    };
}

/// A user, as the environment describes one.
struct User {
    system: System,
    variable: fn(&str) -> Option<OsString>,
    home: Option<PathBuf>,
}

impl User {
    fn current() -> Self {
        Self {
            system: System::THIS,
            variable: |name| env::var_os(name),
            home: env::home_dir(),
        }
    }

    /// The parent of programs' configurations.
    fn configuration(&self) -> Option<PathBuf> {
        match self.system {
            System::Mac => self.state(),
            // What follows a user from one machine to another.
            System::Windows => self.folder("APPDATA"),
            System::Xdg => self
                .folder("XDG_CONFIG_HOME")
                .or_else(|| self.below_home(&[".config"])),
        }
    }

    /// The parent of what programs keep between two runs.
    fn state(&self) -> Option<PathBuf> {
        match self.system {
            System::Mac => self.below_home(&["Library", "Application Support"]),
            System::Windows => self.folder("LOCALAPPDATA"),
            System::Xdg => self
                .folder("XDG_STATE_HOME")
                .or_else(|| self.below_home(&[".local", "state"])),
        }
    }

    /// The parent of what programs can make again.
    fn cache(&self) -> Option<PathBuf> {
        match self.system {
            System::Mac => self.below_home(&["Library", "Caches"]),
            // Beside the run states, which have their own folder.
            System::Windows => self.folder("LOCALAPPDATA"),
            System::Xdg => self
                .folder("XDG_CACHE_HOME")
                .or_else(|| self.below_home(&[".cache"])),
        }
    }

    /// The folder that a variable of the environment names. Relative ones are ignored, as XDG specifies.
    fn folder(&self, variable: &str) -> Option<PathBuf> {
        (self.variable)(variable)
            .map(PathBuf::from)
            .filter(|folder| folder.is_absolute())
    }

    fn below_home(&self, names: &[&str]) -> Option<PathBuf> {
        let home = self.home.clone()?;
        Some(names.iter().fold(home, |folder, name| folder.join(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An absolute path on the system that the tests run on.
    fn at(name: &str) -> PathBuf {
        env::temp_dir().join(name)
    }

    fn folders(system: System, variable: fn(&str) -> Option<OsString>) -> [Option<PathBuf>; 3] {
        let user = User {
            system,
            variable,
            home: Some(at("me")),
        };
        [user.configuration(), user.state(), user.cache()]
    }

    #[test]
    fn each_system_has_its_own_folders() {
        let nothing = |_: &str| None;
        let below_home = |names: &[&str]| Some(names.iter().fold(at("me"), |folder, name| folder.join(name)));
        assert_eq!(
            folders(System::Xdg, nothing),
            [
                below_home(&[".config"]),
                below_home(&[".local", "state"]),
                below_home(&[".cache"])
            ]
        );
        let support = below_home(&["Library", "Application Support"]);
        assert_eq!(
            folders(System::Mac, nothing),
            [support.clone(), support, below_home(&["Library", "Caches"])]
        );
        // Windows sets its variables for every user; without them nothing is kept.
        assert_eq!(folders(System::Windows, nothing), [None, None, None]);
    }

    #[test]
    fn variables_name_them_where_the_system_has_such() {
        let set = |name: &str| {
            let is_known = name.starts_with("XDG_") || name.ends_with("APPDATA");
            is_known.then(|| at(name).into_os_string())
        };
        let named = |names: [&str; 3]| names.map(|name| Some(at(name)));
        assert_eq!(
            folders(System::Xdg, set),
            named(["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"])
        );
        assert_eq!(
            folders(System::Windows, set),
            named(["APPDATA", "LOCALAPPDATA", "LOCALAPPDATA"])
        );
        let relative = |_: &str| Some(OsString::from("here"));
        assert_eq!(folders(System::Xdg, relative)[0], Some(at("me").join(".config")));
    }
}
