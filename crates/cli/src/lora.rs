//! `--lora` and `<lora:…>`: from names to files.

use std::path::{Path, PathBuf};

use sd_pipeline::LoraChoice;
use sd_pipeline::bundle::Kind;
use sd_pipeline::prompt::Prompt;

use crate::hint::Failure;
use crate::local_models;
use crate::settings::Settings;

/// A LoRA as an option names it, with how much of it is added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scaled<'a> {
    /// What the user calls it.
    pub(crate) name: &'a str,
    /// For the text encoders.
    text_scale: f64,
    /// For the denoising network.
    scale: f64,
}

/// The LoRA files that were asked for, by settings and then in the prompt.
///
/// # Errors
/// One is not on this machine, or a tag cannot be read.
pub(crate) fn chosen(prompt: &str, settings: &Settings) -> Result<Vec<LoraChoice>, Failure> {
    let Prompt {
        loras: tags, unread, ..
    } = Prompt::parse(prompt);
    if let Some(tag) = unread.first() {
        let failure = Failure::usage(format!("`{tag}` in the prompt cannot be read"));
        let hint = "a LoRA is named as <lora:NAME>, <lora:NAME:SCALE>, or <lora:NAME:TE:UNET> with a scale for the text \
                    encoders and one for the network";
        return Err(failure.advising(hint.to_owned()));
    }
    let by_option = settings.lora.iter().map(|text| scaled(text));
    let in_prompt = tags.iter().map(|tag| Scaled {
        name: &tag.name,
        text_scale: tag.text_scale,
        scale: tag.scale,
    });
    by_option.chain(in_prompt).map(Scaled::choice).collect()
}

impl Scaled<'_> {
    fn choice(self) -> Result<LoraChoice, Failure> {
        Ok(LoraChoice {
            name: self.name.to_owned(),
            file: file(self.name)?,
            scale: self.scale,
            text_scale: self.text_scale,
        })
    }
}

/// `REF`, `REF:SCALE` or `REF:TE:UNET` in its parts. A colon may also belong to a path.
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

/// `NAME:NUMBER` in its parts.
fn with_number(text: &str) -> Option<(&str, f64)> {
    let (name, number) = text.rsplit_once(':')?;
    let number = number.parse().ok().filter(|number: &f64| number.is_finite())?;
    (!name.is_empty()).then_some((name, number))
}

/// The file that is called `name` without its ending.
pub(crate) fn with_ending(name: &str) -> PathBuf {
    local_models::place(&format!("{name}.safetensors"))
}

/// The file that `name` means: a file, with or without its ending, one in a folder (`FOLDER:FILE`), or the one of a folder or
/// a repository that is usual or the only one.
fn file(name: &str) -> Result<PathBuf, Failure> {
    let with_ending = with_ending(name);
    if !Path::new(name).is_file() && with_ending.is_file() {
        return Ok(with_ending);
    }
    let place = match local_models::reference(name) {
        Some(reference) if !local_models::is_here(name) => local_models::whole(Kind::Lora, &reference)?,
        _ => local_models::place(name),
    };
    local_models::only_file(Kind::Lora, name, &place)
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
