//! What a preset or other settings need from the hub.

use sd_hub::Reference;
use sd_pipeline::bundle::Kind;

use crate::error::Result;
use crate::local::{local_path, with_ending};
use crate::models_path::ModelsPath;
use crate::names::{named, reference};
use crate::settings::Settings;
use crate::upscaler;

/// Something on the hub that should be in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The repository, or one file of it.
    pub reference: Reference,
    /// The kind of thing, if known; otherwise its files show it.
    pub kind: Option<Kind>,
}

/// What `settings` need from the hub, each once: the names that are hub ids, and the default upscaling
/// network. Local files and folders, and what `models_path` has, are left out.
///
/// # Errors
/// A name is that of several files of `models_path`, or a folder of it is missing.
pub fn wanted(settings: &Settings, models_path: &ModelsPath) -> Result<Vec<Wanted>> {
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
        if models_path.find(kind.into(), &name)?.is_some() {
            continue;
        }
        let part = Wanted {
            reference,
            kind: Some(kind),
        };
        if !wanted.contains(&part) {
            wanted.push(part);
        }
    }
    Ok(wanted)
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
        let none = ModelsPath::default();
        let names: Vec<String> = wanted(&settings, &none)
            .unwrap()
            .into_iter()
            .map(|wanted| wanted.reference.to_string())
            .collect();
        assert_eq!(names, ["me/model", "me/nets:x4.pth", "me/lora"]);
        let demo = Settings {
            model: Some("demo".to_owned()),
            ..Settings::default()
        };
        assert!(wanted(&demo, &none).unwrap().is_empty());
        // A file of another program may have the form of an id.
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("checkpoints/me")).unwrap();
        std::fs::write(folder.path().join("checkpoints/me/model.safetensors"), "").unwrap();
        let kept = ModelsPath::new(vec![folder.path().to_owned()]);
        assert_eq!(wanted(&settings, &kept).unwrap().len(), 2);
    }
}
