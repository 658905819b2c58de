//! Names on the hub, and how they differ from paths.

use sd_hub::Reference;
use sd_pipeline::bundle::Kind;
use sd_pipeline::prompt::Prompt;

use crate::lora::scaled;
use crate::presets;
use crate::settings::Settings;
use crate::upscaler::LANCZOS;

/// File extensions. A name with one is a path, even if it has the form of an id.
const ENDINGS: [&str; 5] = [".safetensors", ".pth", ".ckpt", ".bin", ".gguf"];

/// The hub reference of `name`, if it has the form of an id rather than of a path. Renamed repositories get
/// their current id.
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
                .filter(|name| *name != LANCZOS)
                .map(|name| (Kind::Upscaler, name.clone())),
        )
        .chain(loras.chain(tags).map(|name| (Kind::Lora, name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_the_prompt_name_files_too() {
        let tags = named(&Settings::default(), "a cat <lora:me/second:1> <lora:here:1>");
        let tags: Vec<&str> = tags.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(tags, ["me/second", "here"]);
    }

    #[test]
    fn names_on_the_hub_are_distinguished_from_paths() {
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
