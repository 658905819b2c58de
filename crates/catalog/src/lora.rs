//! LoRA files in settings and prompts: names with scales.

use std::path::Path;

use sd_pipeline::prompt::Prompt;

use crate::error::{Error, Result};
use crate::settings::Settings;

/// The name of a LoRA with its scales.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scaled<'a> {
    /// The name that the user gave it.
    pub(crate) name: &'a str,
    /// The scale for the text encoders.
    pub(crate) text_scale: f64,
    /// The scale for the denoising network.
    pub(crate) scale: f64,
}

/// The LoRAs of `settings` and then of the tags of `prompt`: name, scale for the text encoders, scale for the
/// network.
///
/// # Errors
/// A tag is malformed.
pub(crate) fn named(settings: &Settings, prompt: &str) -> Result<Vec<(String, f64, f64)>> {
    let prompt = Prompt::parse(prompt);
    if let Some(tag) = prompt.unread.first() {
        return Err(Error::UnreadTag { tag: tag.to_string() });
    }
    let of_settings = settings.lora.iter().map(|text| scaled(text));
    let of_settings = of_settings.map(|lora| (lora.name.to_owned(), lora.text_scale, lora.scale));
    let of_prompt = prompt.loras.into_iter();
    let of_prompt = of_prompt.map(|tag| (tag.name, tag.text_scale, tag.scale));
    Ok(of_settings.chain(of_prompt).collect())
}

/// Splits `NAME`, `NAME:SCALE` or `NAME:TEXT_ENCODERS:NETWORK`. A colon may also be part of a path.
pub(crate) fn scaled(text: &str) -> Scaled<'_> {
    let whole = Scaled {
        name: text,
        text_scale: 1.0,
        scale: 1.0,
    };
    if Path::new(text).exists() {
        return whole;
    }
    let Some((name, scale)) = with_number(text) else {
        return whole;
    };
    match with_number(name) {
        Some((name, text_scale)) => Scaled {
            name,
            text_scale,
            scale,
        },
        None => Scaled {
            name,
            text_scale: scale,
            scale,
        },
    }
}

/// Splits `NAME:NUMBER`.
fn with_number(text: &str) -> Option<(&str, f64)> {
    let (name, number) = text.rsplit_once(':')?;
    let number = number.parse().ok().filter(|number: &f64| number.is_finite())?;
    (!name.is_empty()).then_some((name, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_may_follow_a_name() {
        for (text, name, text_scale, scale) in [
            ("a/b.safetensors:0.8", "a/b.safetensors", 0.8, 0.8),
            ("a/b.safetensors", "a/b.safetensors", 1.0, 1.0),
            ("C:\\lora", "C:\\lora", 1.0, 1.0),
            ("C:\\lora:0.5", "C:\\lora", 0.5, 0.5),
            ("name:-1", "name", -1.0, -1.0),
            ("name:0.2:1", "name", 0.2, 1.0),
            (
                "loras:epoch2.safetensors:0.2:1",
                "loras:epoch2.safetensors",
                0.2,
                1.0,
            ),
            ("name:inf", "name:inf", 1.0, 1.0),
        ] {
            let expected = Scaled {
                name,
                text_scale,
                scale,
            };
            assert_eq!(scaled(text), expected, "{text}");
        }
    }
}
