//! `--lora` and `<lora:…>`: from names to files.

use std::path::{Path, PathBuf};

use sd_pipeline::LoraChoice;
use sd_pipeline::bundle::Kind;
use sd_pipeline::prompt::Prompt;

use crate::hint::Failure;
use crate::installed;
use crate::settings::Settings;

/// The LoRA files that were asked for, by settings and then in the prompt.
pub(crate) fn chosen(prompt: &str, settings: &Settings) -> Result<Vec<LoraChoice>, Failure> {
    let by_option = settings.lora.iter().map(|text| {
        let (name, scale) = with_scale(text);
        choice(name, scale)
    });
    let tags = Prompt::parse(prompt).loras.into_iter();
    let in_prompt = tags.map(|tag| choice(&tag.name, tag.scale));
    by_option.chain(in_prompt).collect()
}

/// The LoRA that the user calls `name`.
fn choice(name: &str, scale: f64) -> Result<LoraChoice, Failure> {
    Ok(LoraChoice {
        name: name.to_owned(),
        file: file(name)?,
        scale,
    })
}

/// `REF:SCALE` in its parts. A colon may also belong to a path.
pub(crate) fn with_scale(text: &str) -> (&str, f64) {
    let parts = text.rsplit_once(':');
    match parts.and_then(|(name, scale)| Some((name, scale.parse::<f64>().ok()?))) {
        Some((name, scale)) if scale.is_finite() && !name.is_empty() => (name, scale),
        _ => (text, 1.0),
    }
}

/// The file that `name` means: a file, with or without its ending, or the only one of its kind in a folder.
fn file(name: &str) -> Result<PathBuf, Failure> {
    let place = Path::new(name);
    let with_ending = PathBuf::from(format!("{name}.safetensors"));
    if place.is_file() {
        return Ok(place.to_owned());
    }
    if with_ending.is_file() {
        return Ok(with_ending);
    }
    let place = match installed::reference(name) {
        Some(reference) if !place.exists() => {
            installed::locate(&reference).ok_or_else(|| Failure::not_installed(Kind::Lora, &reference))?
        }
        _ => place.to_owned(),
    };
    if place.is_file() {
        return Ok(place);
    }
    installed::only_file(Kind::Lora, name, &place, &["safetensors"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_may_follow_a_name() {
        assert_eq!(with_scale("a/b.safetensors:0.8"), ("a/b.safetensors", 0.8));
        assert_eq!(with_scale("a/b.safetensors"), ("a/b.safetensors", 1.0));
        assert_eq!(with_scale("C:\\lora"), ("C:\\lora", 1.0));
        assert_eq!(with_scale("name:-1"), ("name", -1.0));
        assert_eq!(with_scale("name:inf"), ("name:inf", 1.0));
    }
}
