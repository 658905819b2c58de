//! Names that mean something on the hub, told apart from paths.

use sd_hub::Reference;
use sd_pipeline::bundle::Kind;
use sd_pipeline::prompt::Prompt;

use crate::fetch::Wanted;
use crate::local::{local_path, with_ending};
use crate::lora::scaled;
use crate::settings::Settings;
use crate::{presets, upscaler};

/// Endings of files. A name with one is a path, also where it reads like an id.
const ENDINGS: [&str; 5] = [".safetensors", ".pth", ".ckpt", ".bin", ".gguf"];

/// What `name` means on the hub, if it reads like an id rather than like a path. Ids that have moved are replaced by those of
/// today.
pub fn reference(name: &str) -> Option<Reference> {
    let reference: Reference = name.parse().ok()?;
    let is_path = reference.file.is_none() && ENDINGS.iter().any(|ending| name.ends_with(ending));
    if is_path {
        return None;
    }
    let id = presets::moved(reference.id.as_str()).parse().ok()?;
    Some(Reference { id, ..reference })
}

/// Every model, ControlNet, LoRA and upscaler that `settings` and the tags of `prompt` name.
pub(crate) fn named(settings: &Settings, prompt: &str) -> Vec<(Kind, String)> {
    let models = [&settings.model, &settings.refiner].into_iter().flatten();
    let loras = settings.lora.iter().map(|text| scaled(text).name.to_owned());
    let tags = Prompt::parse(prompt).loras.into_iter().map(|tag| tag.name);
    models
        .map(|name| (Kind::Model, name.clone()))
        .chain(
            settings
                .controlnet
                .iter()
                .map(|name| (Kind::ControlNet, name.clone())),
        )
        .chain(
            settings
                .upscaler
                .iter()
                .map(|name| (Kind::Upscaler, name.clone())),
        )
        .chain(loras.chain(tags).map(|name| (Kind::Lora, name)))
        .collect()
}

/// What `settings` use on the hub, each once: what they name there, and the default network that they upscale with. Names of
/// files and folders on this machine are left out.
pub fn wanted(settings: &Settings) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    let default_upscaler = match (&settings.upscaler, settings.upscale) {
        (None, Some(factor)) => upscaler::default_name(factor),
        _ => None,
    };
    let default_upscaler = default_upscaler.map(|name| (Kind::Upscaler, name.to_owned()));
    for (kind, name) in named(settings, "").into_iter().chain(default_upscaler) {
        let is_local = local_path(&name).is_some() || kind == Kind::Lora && with_ending(&name).is_file();
        let Some(reference) = reference(&name).filter(|_| !is_local) else {
            continue;
        };
        let part = Wanted {
            reference,
            kind: Some(kind),
        };
        if !wanted.contains(&part) {
            wanted.push(part);
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_settings_name_on_the_hub_is_wanted_once() {
        let settings = Settings {
            model: Some("me/model".to_owned()),
            refiner: Some("me/model".to_owned()),
            upscaler: Some("me/nets:x4.pth".to_owned()),
            lora: vec!["me/lora:0.5".to_owned(), "lora.safetensors".to_owned()],
            ..Settings::default()
        };
        let names: Vec<String> = wanted(&settings)
            .into_iter()
            .map(|wanted| wanted.reference.to_string())
            .collect();
        assert_eq!(names, ["me/model", "me/nets:x4.pth", "me/lora"]);
        let tags = named(&Settings::default(), "a cat <lora:me/second:1> <lora:here:1>");
        let tags: Vec<&str> = tags.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(tags, ["me/second", "here"]);
        let demo = Settings {
            model: Some("demo".to_owned()),
            ..Settings::default()
        };
        assert!(wanted(&demo).is_empty());
    }

    #[test]
    fn names_on_the_hub_are_told_from_paths() {
        for name in [
            "stabilityai/stable-diffusion-3.5-large",
            "Lykon/DreamShaper-8@v1",
            "a/b:c/d.pth",
        ] {
            assert_eq!(
                reference(name).map(|found| found.to_string()).as_deref(),
                Some(name)
            );
        }
        for path in [
            "demo",
            "./model",
            "../a",
            "/a/b",
            "a/b/c",
            "loras/mine.safetensors",
            "a/x4.pth",
        ] {
            assert_eq!(reference(path), None, "{path}");
        }
        let moved = reference("runwayml/stable-diffusion-v1-5").unwrap();
        assert_eq!(moved.to_string(), "stable-diffusion-v1-5/stable-diffusion-v1-5");
    }
}
