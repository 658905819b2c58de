//! The models that an image's parameters name, on this machine. Nothing is downloaded because an image names it.

use std::path::Path;

use sd_pipeline::bundle::{FileKind, Kind};
use sd_pipeline::prompt::Prompt;

use super::{GenerationParameters, ParametersSource, Unmet};
use crate::catalog::{Catalog, Location};
use crate::error::{Error, Result};
use crate::known_hash::KnownHash;
use crate::lora::scaled;
use crate::names;
use crate::presets::DEMO;
use crate::settings::Settings;
use crate::similar::similar;
use crate::upscaler::LANCZOS;

/// What the command line has in place of an image's parameters.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// Whether there is a prompt.
    pub prompt: bool,
    /// The number of control images.
    pub control_images: usize,
}

impl GenerationParameters {
    /// Replaces the names of models, which other programs write without their folders, by names that options take.
    /// Names that `given` replaces are left out. What is not on this machine becomes [`Unmet`].
    ///
    /// # Errors
    /// A name is that of several files, or a folder of `models_path` is missing. What a sidecar names is not in the
    /// hub's cache.
    pub fn locate(&mut self, catalog: &Catalog, given: Given<'_>) -> Result<()> {
        let typed = given.settings;
        let settings = &mut self.settings;
        if typed.model.is_some() || typed.quality.is_some() {
            settings.model = None;
        } else if settings.model.is_none() {
            self.unmet.push(Unmet {
                setting: "Model".to_owned(),
                reason: "the picture does not say which model generated it".to_owned(),
                options: MODEL.to_vec(),
                is_missing: true,
            });
        }
        if typed.refiner.is_some() {
            settings.refiner = None;
        }
        if typed.upscaler.is_some() {
            settings.upscaler = None;
        }
        if typed.vae.is_some() {
            settings.vae = None;
        }
        if !typed.controlnet.is_empty() {
            settings.controlnet.clear();
        }
        if given.prompt {
            self.prompt.clear();
        }
        if !matches!(self.source, ParametersSource::Sidecar { .. }) {
            self.find_names(catalog, given)?;
        }
        self.check_downloads(catalog)
    }

    /// Finds what other programs name.
    fn find_names(&mut self, catalog: &Catalog, given: Given<'_>) -> Result<()> {
        if let Some(name) = self.settings.model.take() {
            let hash = self.model_hash.clone();
            self.settings.model =
                self.found(catalog, Kind::Model, "Model", &name, hash.as_deref(), &MODEL)?;
        }
        if let Some(name) = self.settings.refiner.take() {
            self.settings.refiner = self.found(catalog, Kind::Model, "Refiner", &name, None, &["refiner"])?;
        }
        if let Some(name) = self.settings.upscaler.take() {
            self.settings.upscaler = match name.as_str() {
                LANCZOS => Some(name),
                _ => self.found(catalog, Kind::Upscaler, "Upscaler", &name, None, &["upscaler"])?,
            };
        }
        if let Some(name) = self.settings.vae.take() {
            let text = name.to_string_lossy();
            match catalog.models_path().find(FileKind::Vae, &text)? {
                Some(path) => self.settings.vae = Some(path.to_owned()),
                None => self
                    .unmet
                    .push(missing("VAE", &text, "autoencoder", None, &["vae"])),
            }
        }
        for text in std::mem::take(&mut self.settings.lora) {
            let lora = scaled(&text);
            if let Some(name) = self.found(catalog, Kind::Lora, "LoRA", lora.name, None, &["lora"])? {
                let scaled = format!("{name}:{}:{}", lora.text_scale, lora.scale);
                self.settings.lora.push(scaled);
            }
        }
        for tag in Prompt::parse(&self.prompt).loras {
            let Some(name) = self.found(catalog, Kind::Lora, "LoRA", &tag.name, None, &["prompt"])? else {
                continue;
            };
            // A name that the prompt's own look-up finds stays as it is written.
            if !matches!(catalog.locate(Kind::Lora, &tag.name), Ok(Location::Here(_))) {
                for (opening, end) in [("<lora:", ":"), ("<lora:", ">"), ("<lyco:", ":"), ("<lyco:", ">")] {
                    let written = format!("{opening}{}{end}", tag.name);
                    self.prompt = self.prompt.replace(&written, &format!("{opening}{name}{end}"));
                }
            }
        }
        self.find_controlnets(catalog, given)
    }

    /// Finds the ControlNets of control images that the command line names in the place of those of the image.
    fn find_controlnets(&mut self, catalog: &Catalog, given: Given<'_>) -> Result<()> {
        let controlnets = std::mem::take(&mut self.controlnets);
        if given.control_images == 0 || controlnets.is_empty() || !given.settings.controlnet.is_empty() {
            return Ok(());
        }
        if controlnets.len() != given.control_images {
            self.unmet.push(Unmet {
                setting: "ControlNet".to_owned(),
                reason: format!(
                    "the picture has {} control images, and {} are given",
                    controlnets.len(),
                    given.control_images
                ),
                options: vec!["controlnet"],
                is_missing: false,
            });
            return Ok(());
        }
        for (name, scale) in controlnets {
            if let Some(name) = self.found(
                catalog,
                Kind::ControlNet,
                "ControlNet",
                &name,
                None,
                &["controlnet"],
            )? {
                self.settings.controlnet.push(name);
            }
            if given.settings.control_scale.is_empty() {
                self.settings.control_scale.push(scale);
            }
        }
        Ok(())
    }

    /// The name that options take for what another program calls `name`. None, with an entry in `unmet`, if it is
    /// not on this machine.
    fn found(
        &mut self,
        catalog: &Catalog,
        kind: Kind,
        key: &str,
        name: &str,
        hash: Option<&str>,
        options: &[&'static str],
    ) -> Result<Option<String>> {
        let is_own = matches!(&self.source, ParametersSource::Infotext { version: Some(version) }
            if version.starts_with("sd-generate "));
        if is_own && kind == Kind::Model && name == DEMO {
            return Ok(Some(name.to_owned()));
        }
        if let Some(found) = here(catalog, kind, name, hash)? {
            return Ok(Some(found));
        }
        let shown = match hash {
            Some(hash) => format!("{name} (hash {hash})"),
            None => name.to_owned(),
        };
        let known = catalog.names(kind);
        let near = similar(name, known.iter().map(String::as_str));
        self.unmet.push(missing(key, &shown, kind.title(), near, options));
        Ok(None)
    }

    /// Refuses names of the hub that are not in its cache.
    fn check_downloads(&self, catalog: &Catalog) -> Result<()> {
        for (kind, name) in names::named(&self.settings, &self.prompt) {
            if let Ok(Location::OnHub(reference)) = catalog.locate(kind, &name) {
                return Err(Error::NotInstalled { kind, reference });
            }
        }
        Ok(())
    }
}

/// The options that name another model.
const MODEL: [&str; 3] = ["model", "quality", "pro"];

fn missing(key: &str, name: &str, title: &str, near: Option<&str>, options: &[&'static str]) -> Unmet {
    let near = near
        .map(|near| format!("; did you mean `{near}`?"))
        .unwrap_or_default();
    Unmet {
        setting: format!("{key}: {name}"),
        reason: format!("no {title} of that name is on this machine{near}"),
        options: options.to_vec(),
        is_missing: true,
    }
}

/// The name of the file below `models_path` or in the hub's cache that another program calls `name`, or whose known
/// hash begins with `hash`.
fn here(catalog: &Catalog, kind: Kind, name: &str, hash: Option<&str>) -> Result<Option<String>> {
    let models_path = catalog.models_path();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    if let Some(path) = models_path.find(kind.into(), name)? {
        return Ok(Some(text(path)));
    }
    if let Some(hash) = hash.filter(|hash| hash.len() >= 8) {
        let files = models_path.files().iter();
        let mut files = files.filter(|file| file.kind.is_none_or(|own| own == kind.into()));
        let is_same = |known: KnownHash| known.sha256.starts_with(&hash.to_ascii_lowercase());
        if let Some(file) = files.find(|file| KnownHash::beside(&file.path).is_some_and(is_same)) {
            return Ok(Some(text(&file.path)));
        }
    }
    let ids = catalog.cache().repositories().into_iter();
    let ids = ids.map(|repository| repository.id.to_string());
    let mut called: Vec<String> = ids.filter(|id| id.rsplit('/').next() == Some(name)).collect();
    match called.len() {
        0 | 1 => Ok(called.pop()),
        _ => Err(Error::SeveralKept {
            name: name.to_owned(),
            files: called,
        }),
    }
}
