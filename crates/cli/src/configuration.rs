//! The user's configuration file: defaults for what is not typed, and presets of the user's own.
//!
//! ```toml
//! [defaults]
//! memory = "8GB"
//! output = "~/Pictures/generated"
//!
//! [presets.portrait]
//! quality = "photorealistic"
//! size = "512x768"
//! lora = ["~/lora/film.safetensors:0.6"]
//! ```
//!
//! Its words are the command line's options without their dashes.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use sd_pipeline::configuration_file;
use toml::{Table, Value};

use crate::hint::Failure;
use crate::settings::Settings;

/// The longest configuration that is read.
const LONGEST: u64 = 1 << 20;

/// What the user has settled beforehand.
#[derive(Debug, Default)]
pub(crate) struct Configuration {
    /// What is neither typed nor said by a preset.
    pub(crate) defaults: Settings,
    /// Presets by their names. One may go on from another, which its `quality` names.
    pub(crate) presets: BTreeMap<String, Settings>,
}

impl Configuration {
    /// The configuration of the user who runs the program; an empty one where there is no file.
    pub(crate) fn of_user() -> Result<Self, Failure> {
        match configuration_file() {
            Some(file) => Self::read(&file),
            None => Ok(Self::default()),
        }
    }

    fn read(file: &Path) -> Result<Self, Failure> {
        let wrong = |reason: String| Failure::configuration(file, &reason);
        match sd_files::read_text_at_most(file, LONGEST) {
            Ok(text) => Self::parse(&text).map_err(wrong),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// Reads `text`; what is wrong with it is said in one line.
    fn parse(text: &str) -> Result<Self, String> {
        let sections: Table = text.parse().map_err(|error| place_and_reason(text, &error))?;
        let mut configuration = Self::default();
        for (name, section) in sections {
            match (name.as_str(), section) {
                ("defaults", Value::Table(table)) => {
                    configuration.defaults =
                        settings(table).map_err(|reason| format!("[defaults] {reason}"))?;
                }
                ("presets", Value::Table(presets)) => {
                    for (name, preset) in presets {
                        let Value::Table(table) = preset else {
                            return Err(format!("`presets.{name}` is not a section"));
                        };
                        let preset =
                            settings(table).map_err(|reason| format!("[presets.{name}] {reason}"))?;
                        configuration.presets.insert(name, preset);
                    }
                }
                _ => {
                    return Err(format!(
                        "`{name}` is neither [defaults] nor one of [presets.NAME]"
                    ));
                }
            }
        }
        Ok(configuration)
    }
}

/// The settings of one section.
fn settings(table: Table) -> Result<Settings, String> {
    let mut words = Vec::new();
    for (name, value) in table {
        let mut alone = words_of(&name, value).map_err(|reason| format!("{name}: {reason}"))?;
        // By themselves first, so that what is wrong has a name.
        Settings::from_words(alone.clone()).map_err(|reason| format!("{name}: {reason}"))?;
        words.append(&mut alone);
    }
    Settings::from_words(words)
}

/// One setting as it would be typed.
fn words_of(name: &str, value: Value) -> Result<Vec<OsString>, String> {
    let option = |value: String| OsString::from(format!("--{name}={value}"));
    Ok(match value {
        Value::String(text) => vec![option(in_home(text))],
        Value::Integer(number) => vec![option(number.to_string())],
        Value::Float(number) => vec![option(number.to_string())],
        Value::Boolean(true) => vec![OsString::from(format!("--{name}"))],
        Value::Boolean(false) => Vec::new(),
        Value::Array(values) => {
            let words: Result<Vec<_>, _> = values.into_iter().map(|value| words_of(name, value)).collect();
            words?.concat()
        }
        Value::Datetime(_) | Value::Table(_) => {
            return Err("a text, a number, true, false or a list of these goes here".to_owned());
        }
    })
}

/// `~/` at the beginning is the user's home, as a shell would have it.
fn in_home(text: String) -> String {
    match (text.strip_prefix("~/"), env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest).to_string_lossy().into_owned(),
        _ => text,
    }
}

/// The line and the reason of an error of TOML's.
fn place_and_reason(text: &str, error: &toml::de::Error) -> String {
    let line = |start: usize| {
        text.as_bytes()[..start.min(text.len())]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count()
            + 1
    };
    match error.span() {
        Some(span) => format!("line {}: {}", line(span.start), error.message()),
        None => error.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use sd_pipeline::{Bytes, ImageSize};

    use super::*;

    #[test]
    fn sections_are_read_as_they_would_be_typed() {
        let configuration = Configuration::parse(
            "[defaults]\nmemory = \"8GB\"\nsteps = 12\nstrict = true\n\
             [presets.portrait]\nquality = \"fast\"\nsize = \"512x768\"\ncfg = 5.5\nlora = [\"a\", \"b:0.5\"]\n",
        )
        .unwrap();
        assert_eq!(configuration.defaults.memory, Some(Bytes(8 << 30)));
        assert_eq!(configuration.defaults.steps, Some(12));
        assert!(configuration.defaults.strict);
        let portrait = &configuration.presets["portrait"];
        assert_eq!(portrait.quality.as_deref(), Some("fast"));
        assert_eq!(portrait.size, ImageSize::new(512, 768).ok());
        assert_eq!(portrait.cfg, Some(5.5));
        assert_eq!(portrait.lora, ["a", "b:0.5"]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, expected) in [
            ("[defaults]\nsteps = \n", "line 2: "),
            ("steps = 3", "`steps` is neither"),
            ("[default]\nsteps = 3", "`default` is neither"),
            ("[defaults]\nsteps = 0", "[defaults] steps: "),
            ("[presets.mine]\nmemory = \"lots\"", "[presets.mine] memory: "),
            (
                "[defaults]\nprompt = \"x\"",
                "[defaults] prompt: this cannot be set",
            ),
            (
                "[defaults]\nsteps = 1979-05-27",
                "[defaults] steps: a text, a number",
            ),
            ("[presets]\nmine = 3", "`presets.mine` is not a section"),
        ] {
            let reason = Configuration::parse(text).unwrap_err();
            assert!(reason.starts_with(expected), "{text:?}: {reason}");
            assert!(!reason.contains('\n'), "{reason}");
        }
    }
}
