//! The layers of settings: command line, then preset, then the user's configuration.

use crate::configuration::Configuration;
use crate::error::Result;
use crate::lora::scaled;
use crate::presets::{AUTO, Preset};
use crate::settings::Settings;

/// Settings with every layer applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Layered {
    /// The name of the preset, if one is used.
    pub preset: Option<String>,
    /// The settings.
    pub settings: Settings,
}

/// The layers of one run, the lowest last.
#[derive(Debug)]
pub struct Layers {
    pub(crate) typed: Settings,
    preset: PresetLayer,
    pub(crate) defaults: Settings,
}

/// The layer between the command line and the configuration.
#[derive(Debug)]
enum PresetLayer {
    /// No preset.
    Absent,
    /// The preset of this name.
    Named(String, Box<Settings>),
    /// The best preset that fits.
    Best,
}

impl Layers {
    /// The layers for the settings `typed` on the command line. A typed preset overrides a model of the
    /// configuration, and a typed model overrides a preset of the configuration. Without either the best
    /// preset is chosen.
    ///
    /// # Errors
    /// No preset has the name, or presets extend each other in a circle.
    pub fn new(typed: Settings, configuration: &Configuration) -> Result<Self> {
        let defaults = &configuration.defaults;
        let default = match (&typed.model, &defaults.quality, &defaults.model) {
            (Some(_), _, _) | (None, None, Some(_)) => None,
            (None, Some(quality), _) => Some(quality.as_str()),
            (None, None, None) => Some(AUTO),
        };
        let preset = match typed.quality.as_deref().or(default) {
            None => PresetLayer::Absent,
            Some(AUTO) => PresetLayer::Best,
            Some(name) => PresetLayer::Named(name.to_owned(), Box::new(configuration.preset(name)?)),
        };
        Ok(Self {
            typed,
            preset,
            defaults: defaults.clone(),
        })
    }

    /// The layers for the settings `typed` on the command line over those of an image. The configuration sets only
    /// what does not change the image, and there is a preset only if one is typed.
    ///
    /// # Errors
    /// No preset has the name, or presets extend each other in a circle.
    pub fn over_image(typed: Settings, mut image: Settings, configuration: &Configuration) -> Result<Self> {
        let preset = match typed.quality.as_deref() {
            None => PresetLayer::Absent,
            Some(AUTO) => PresetLayer::Best,
            Some(name) => PresetLayer::Named(name.to_owned(), Box::new(configuration.preset(name)?)),
        };
        // A LoRA that the image has already gets the typed scale.
        let replaced: Vec<&str> = typed.lora.iter().map(|text| scaled(text).name).collect();
        image.lora.retain(|text| !replaced.contains(&scaled(text).name));
        Ok(Self {
            typed,
            preset,
            defaults: image.over(configuration.defaults.of_machine()),
        })
    }

    /// The settings, unless the best preset is still to be chosen.
    pub fn settled(&self) -> Option<Layered> {
        match &self.preset {
            PresetLayer::Absent => Some(Layered {
                preset: None,
                settings: self.typed.clone().over(self.defaults.clone()),
            }),
            PresetLayer::Named(name, preset) => Some(self.with(name, (**preset).clone())),
            PresetLayer::Best => None,
        }
    }

    /// The settings with a built-in preset.
    pub(crate) fn with_preset(&self, preset: &Preset) -> Layered {
        self.with(preset.name, preset.into())
    }

    fn with(&self, name: &str, preset: Settings) -> Layered {
        Layered {
            preset: Some(name.to_owned()),
            settings: self.typed.clone().over(preset).over(self.defaults.clone()),
        }
    }
}
