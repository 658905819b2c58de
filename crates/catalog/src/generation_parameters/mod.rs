//! What an image was generated with, as its file says: the sidecar of this program, the `parameters` text of
//! stable-diffusion-webui, or the graph of ComfyUI.
//!
//! [`GenerationParameters::read`] is the only way in. The file comes from anywhere: each part of it has a limit,
//! and nothing that it names is downloaded. A setting that it has and this program has not is never dropped in
//! silence: either an option must replace it ([`Unmet`]), or it is listed as a difference.

mod comfyui;
mod embedded_text;
mod exif;
mod infotext;
mod located;
mod sidecar;
#[cfg(test)]
mod tests;
mod webui;

pub use located::Given;

use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use sd_pipeline::InitImage;

use crate::controlnet::ControlImage;
use crate::error::{Error, Result};
use crate::settings::Settings;

/// The longest sidecar, in bytes. It holds the timeline of a run.
const LONGEST_SIDECAR: u64 = 64 << 20;
/// The longest text inside an image, in bytes.
const LONGEST_TEXT: u64 = 4 << 20;

/// What an image was generated with.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationParameters {
    /// What says so.
    pub source: ParametersSource,
    /// The prompt.
    pub prompt: String,
    /// The settings. Those that the file leaves out are open.
    pub settings: Settings,
    /// The initial image of image-to-image, if the file says where it is.
    pub init: Option<InitImage>,
    /// The control images, if the file says where they are.
    pub control_images: Vec<ControlImage>,
    /// The settings as options of the command line, without their dashes, in the order of the file.
    pub options: Vec<(&'static str, String)>,
    /// Settings that an option must replace.
    pub unmet: Vec<Unmet>,
    /// Settings that this program does not have, so that an image will differ.
    pub differences: Vec<String>,
    /// The beginning of the SHA-256 of the model's file.
    pub model_hash: Option<String>,
    /// The strength of image-to-image from an initial image that the file does not hold.
    strength: Option<f64>,
    /// The ControlNets of control images that the file does not hold, with their scales.
    controlnets: Vec<(String, f64)>,
}

/// What says how an image was generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParametersSource {
    /// The `.json` file of this program, which is complete. Its names are those that the user typed.
    Sidecar {
        /// The version that wrote it.
        version: String,
    },
    /// The `parameters` text that stable-diffusion-webui and others write.
    Infotext {
        /// The version that wrote it, if it says so.
        version: Option<String>,
    },
    /// The graph of ComfyUI.
    ComfyUi,
}

/// A setting that cannot be used as it is. One of the options settles it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    /// The setting, as the file writes it.
    pub setting: String,
    /// What is wrong with it.
    pub reason: String,
    /// The options that replace it, without their dashes.
    pub options: Vec<&'static str>,
    /// Whether it is something that is not on this machine.
    pub is_missing: bool,
}

impl fmt::Display for ParametersSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sidecar { version } => write!(formatter, "the .json file of {version}"),
            Self::Infotext { version: None } => formatter.write_str("a parameters text"),
            Self::Infotext {
                version: Some(version),
            } if version.starts_with('v') || version.starts_with(|first: char| first.is_ascii_digit()) => {
                write!(
                    formatter,
                    "the parameters text of stable-diffusion-webui {version}"
                )
            }
            Self::Infotext {
                version: Some(version),
            } => write!(formatter, "the parameters text of {version}"),
            Self::ComfyUi => formatter.write_str("the graph of ComfyUI"),
        }
    }
}

impl ParametersSource {
    /// The name for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sidecar { .. } => "sidecar",
            Self::Infotext { .. } => "parameters",
            Self::ComfyUi => "comfyui",
        }
    }
}

impl GenerationParameters {
    /// Reads what the file at `path` says: a PNG, JPEG or WebP image, or a `.json` file. The sidecar beside an
    /// image of this program precedes the text inside it, because it is complete.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or does not say how an image was generated.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |reason: String| Error::NoParameters {
            file: path.to_owned(),
            reason,
        };
        let mut file = sd_files::open(path).map_err(|error| failed(error.to_string()))?;
        let mut start = Vec::new();
        let read = (&mut file).take(16).read_to_end(&mut start);
        read.map_err(|error| failed(error.to_string()))?;
        let is_json = start.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        if is_json {
            return of_json(path).map_err(failed);
        }
        let texts = embedded_text::read(path, &start).map_err(failed)?;
        let inside = of_texts(&texts);
        match (sidecar::beside(path), inside) {
            (Some(sidecar), Ok(Some(inside))) if sidecar.settings.seed == inside.settings.seed => Ok(sidecar),
            (Some(sidecar), Ok(None) | Err(_)) => Ok(sidecar),
            (_, Ok(Some(inside))) => Ok(inside),
            (None, Ok(None)) => Err(failed(match texts.foreign {
                Some(program) => format!("it holds the settings of {program}, which are not read"),
                None => "it holds neither a parameters text nor a graph of ComfyUI".to_owned(),
            })),
            (None, Err(reason)) => Err(failed(reason)),
        }
    }

    /// The strength of image-to-image, for an initial image that the file does not hold.
    pub fn strength(&self) -> Option<f64> {
        self.strength
    }

    fn new(source: ParametersSource) -> Self {
        Self {
            source,
            prompt: String::new(),
            settings: Settings::default(),
            init: None,
            control_images: Vec::new(),
            options: Vec::new(),
            unmet: Vec::new(),
            differences: Vec::new(),
            model_hash: None,
            strength: None,
            controlnets: Vec::new(),
        }
    }

    /// Sets `option` to `text`, which the file writes under `key`. A text that this program does not take is kept
    /// as [`Unmet`].
    fn set(&mut self, option: &'static str, key: &str, text: &str) {
        let outcome = match option {
            // A list or a random seed is none that an image has.
            "seed" if text.parse::<u64>().is_err() => Err("it is no whole number".to_owned()),
            _ => self.settings.set(option, text),
        };
        match outcome {
            Ok(()) => self.options.push((option, text.to_owned())),
            Err(reason) => {
                let reason = reason
                    .split_once("': ")
                    .map_or(reason.as_str(), |(_, reason)| reason);
                self.unmet.push(Unmet {
                    setting: format!("{key}: {text}"),
                    reason: reason.to_owned(),
                    options: vec![option],
                    is_missing: false,
                });
            }
        }
    }
}

/// The `parameters` text of stable-diffusion-webui in a PNG, JPEG or WebP image, if it has one.
pub fn parameters_text(image: &[u8]) -> Option<String> {
    embedded_text::of_bytes(image).ok()?.parameters
}

/// The parameters in the JSON file at `path`: a sidecar of this program, or a graph of ComfyUI.
fn of_json(path: &Path) -> std::result::Result<GenerationParameters, String> {
    if let Some(found) = sidecar::read(path)? {
        return Ok(found);
    }
    let text = sd_files::read_text_at_most(path, LONGEST_TEXT).map_err(|error| error.to_string())?;
    comfyui::read(&text)
}

/// The parameters in the texts of an image: webui's text first, as other programs write it beside their own.
fn of_texts(texts: &embedded_text::Texts) -> std::result::Result<Option<GenerationParameters>, String> {
    if let Some(text) = &texts.parameters {
        return infotext::parse(text).map(|text| Some(webui::parameters(text)));
    }
    texts.graph.as_deref().map(comfyui::read).transpose()
}

/// What a reader of a limited part says at its end.
fn cut(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the file is truncated".to_owned(),
        _ => error.to_string(),
    }
}
