//! [`Configuration`]: the user's file of default settings and presets.
//!
//! ```toml
//! models_path = ["~/ComfyUI/models", "~/stable-diffusion-webui/models"]
//!
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
//! The keys of its sections are the options of the command line without their dashes.

use std::collections::BTreeMap;
use std::env;
use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::error::{Error, Result};
use crate::presets::{ALL, AUTO, Preset};
use crate::settings::Settings;
use crate::similar::similar;
use crate::user_dirs::configuration_file;

/// The longest configuration that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// The user's settings for all runs.
#[derive(Debug, Default)]
pub struct Configuration {
    /// The lowest layer of settings.
    pub defaults: Settings,
    /// Presets by their names. One may extend another, which its `quality` names.
    pub presets: BTreeMap<String, Settings>,
    /// The folders in which other programs keep their models. They need not exist.
    pub models_path: Vec<PathBuf>,
}

impl Configuration {
    /// The configuration of the current user; empty if there is no file.
    ///
    /// # Errors
    /// The file cannot be read or parsed.
    pub fn of_user() -> Result<Self> {
        match configuration_file() {
            Some(file) => Self::read(&file),
            None => Ok(Self::default()),
        }
    }

    fn read(file: &Path) -> Result<Self> {
        let wrong = |reason: String| Error::Configuration {
            file: file.to_owned(),
            reason,
        };
        match sd_files::read_text_at_most(file, LONGEST) {
            Ok(text) => Self::parse(&text).map_err(wrong),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// The settings of the preset `name`, the user's own or a built-in one. A preset of the user that extends
    /// its own name extends the built-in one.
    ///
    /// # Errors
    /// No preset has the name, or presets extend each other in a circle.
    pub fn preset(&self, name: &str) -> Result<Settings> {
        let mut settings = Settings::default();
        let mut seen = Vec::new();
        let mut next = Some(name.to_owned());
        while let Some(name) = next {
            let own = self.presets.get(&name).filter(|_| !seen.contains(&name));
            let layer = match (own, Preset::find(&name)) {
                (Some(own), _) => own.clone(),
                (None, Some(preset)) => preset.into(),
                (None, None) if seen.contains(&name) => {
                    return Err(Error::PresetCircle { name, through: seen });
                }
                (None, None) => {
                    let similar = similar(&name, self.preset_names()).map(str::to_owned);
                    return Err(Error::NoPreset { name, similar });
                }
            };
            seen.push(name);
            next = layer.quality.clone();
            settings = settings.over(layer);
        }
        Ok(settings)
    }

    /// The names of the user's presets and the built-in ones.
    fn preset_names(&self) -> impl Iterator<Item = &str> {
        let own = self.presets.keys().map(String::as_str);
        own.chain(ALL.iter().map(|preset| preset.name)).chain([AUTO])
    }

    /// Parses `text`. An error is one line.
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let sections: Table = text.parse().map_err(|error| place_and_reason(text, &error))?;
        let mut configuration = Self::default();
        for (name, section) in sections {
            match (name.as_str(), section) {
                ("models_path", folders) => {
                    configuration.models_path = models_path(folders)?;
                }
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
                        "`{name}` is neither models_path, nor [defaults], nor one of [presets.NAME]"
                    ));
                }
            }
        }
        Ok(configuration)
    }
}

/// The folders of `models_path`: one, or a list.
fn models_path(value: Value) -> std::result::Result<Vec<PathBuf>, String> {
    let values = match value {
        Value::Array(values) => values,
        value => vec![value],
    };
    let folders = values.into_iter().map(|value| match value {
        Value::String(text) if !text.is_empty() => Ok(sd_files::native(in_home(text))),
        _ => Err("models_path: expected the path of a folder, or a list of such paths".to_owned()),
    });
    folders.collect()
}

/// The settings of one section.
fn settings(table: Table) -> std::result::Result<Settings, String> {
    let mut settings = Settings::default();
    for (name, value) in table {
        set(&mut settings, &name, value).map_err(|reason| format!("{name}: {reason}"))?;
    }
    Ok(settings)
}

/// Sets one of `settings`. A list sets it once per value.
fn set(settings: &mut Settings, name: &str, value: Value) -> std::result::Result<(), String> {
    match value {
        Value::String(text) => settings.set(name, &in_home(text)),
        Value::Integer(number) => settings.set(name, &number.to_string()),
        Value::Float(number) => settings.set(name, &number.to_string()),
        Value::Boolean(value) => settings.set_flag(name, value),
        Value::Array(values) => values
            .into_iter()
            .try_for_each(|value| set(settings, name, value)),
        Value::Datetime(_) | Value::Table(_) => {
            Err("expected a string, a number, true, false or a list of these".to_owned())
        }
    }
}

/// `text` with `~/` at its beginning, on Windows also `~\`, replaced by the user's home folder.
fn in_home(text: String) -> String {
    let rest = text
        .strip_prefix('~')
        .and_then(|rest| rest.strip_prefix(std::path::is_separator));
    match (rest, env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest).to_string_lossy().into_owned(),
        _ => text,
    }
}

/// The line and the reason of a TOML error.
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
    use sd_pipeline::{Bytes, ImageSize, SizeChoice};

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
        assert_eq!(portrait.size, ImageSize::new(512, 768).ok().map(SizeChoice::from));
        assert_eq!(portrait.cfg, Some(5.5));
        assert_eq!(portrait.lora, ["a", "b:0.5"]);
    }

    #[test]
    fn models_path_is_a_folder_or_a_list() {
        let folders = |text: &str| Configuration::parse(text).unwrap().models_path;
        let home = env::home_dir().unwrap();
        assert_eq!(folders("models_path = \"/models\""), [Path::new("/models")]);
        assert_eq!(
            folders("models_path = [\"~/ComfyUI/models\", \"b\"]\n[defaults]\nsteps = 3"),
            [home.join("ComfyUI/models"), PathBuf::from("b")]
        );
        assert!(folders("").is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, expected) in [
            ("models_path = [3]", "models_path: expected the path"),
            ("models_path = \"\"", "models_path: expected the path"),
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
                "[defaults] steps: expected a string, a number",
            ),
            ("[presets]\nmine = 3", "`presets.mine` is not a section"),
        ] {
            let reason = Configuration::parse(text).unwrap_err();
            assert!(reason.starts_with(expected), "{text:?}: {reason}");
            assert!(!reason.contains('\n'), "{reason}");
        }
    }
}
