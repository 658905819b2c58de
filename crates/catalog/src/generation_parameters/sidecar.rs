//! The `.json` file that this program writes beside an image.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use sd_pipeline::prompt::Prompt;
use sd_pipeline::{Choices, ControlChoice, InitImage, Prediction, Strength, TypeChoice};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::{GenerationParameters, LONGEST_SIDECAR, ParametersSource, Unmet};
use crate::controlnet::ControlImage;
use crate::parse;
use crate::upscaler::LANCZOS;

/// What the version of this program's sidecars starts with.
const PROGRAM: &str = "sd-generate ";

/// Keys of settings.
const SETTINGS: [&str; 25] = [
    "prompt",
    "negative_prompt",
    "seed",
    "rng",
    "steps",
    "guidance_scale",
    "guidance_rescale",
    "width",
    "height",
    "sampler",
    "schedule",
    "clip_skip",
    "img2img",
    "model",
    "loras",
    "embeddings",
    "controlnet",
    "upscale",
    "upscale_method",
    "refiner",
    "refiner_settings",
    "choices",
    "device",
    "dtype",
    "version",
];
/// Keys that earlier builds wrote, and what they are called today.
const RENAMED: [(&str, &str); 1] = [("over", "img2img")];
/// Keys of what is known of an image beside its settings. The words of a style are in the prompt, and the settings of
/// a preset are under their own keys.
const FACTS: [&str; 17] = [
    "schema",
    "style",
    "model_sha256",
    "lora",
    "quality_preset",
    "num_images",
    "image_index",
    "filename",
    "pipeline_type",
    "memory_optimizations",
    "started",
    "generation_time",
    "failures",
    "warnings",
    "memory",
    "preview",
    "files",
];

/// The values of the wanted keys, and the keys that are unknown. Nothing else is held.
struct Fields {
    values: BTreeMap<String, Value>,
    unknown: Vec<String>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the settings of an image")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        /// More unknown keys are no sidecar.
        const MOST_UNKNOWN: usize = 1 << 10;
        let mut fields = Fields {
            values: BTreeMap::new(),
            unknown: Vec::new(),
        };
        while let Some(key) = map.next_key::<String>()? {
            let renamed = RENAMED.iter().find(|(before, _)| *before == key);
            let key = renamed.map_or(key, |(_, today)| (*today).to_owned());
            if SETTINGS.contains(&key.as_str()) {
                fields.values.insert(key, map.next_value()?);
                continue;
            }
            map.next_value::<IgnoredAny>()?;
            if !FACTS.contains(&key.as_str()) && fields.unknown.len() < MOST_UNKNOWN {
                fields.unknown.push(key);
            }
        }
        Ok(fields)
    }
}

impl Fields {
    /// The value of `key`; None if it is absent or null.
    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, String> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(value)
                .map(Some)
                .map_err(|error| format!("`{key}` of the .json file is invalid: {error}")),
        }
    }

    /// The value of `key`, a text or a number, as text.
    fn text(&self, key: &str) -> Option<String> {
        match self.values.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }
}

/// A LoRA of a sidecar.
#[derive(Deserialize)]
struct Lora {
    name: String,
    file: PathBuf,
    scale: f64,
    text_scale: f64,
}

/// An embedding of a sidecar.
#[derive(Deserialize)]
struct Embedding {
    file: PathBuf,
}

/// The settings of image-to-image.
#[derive(Deserialize)]
struct Img2Img {
    image: Option<PathBuf>,
    mask: Option<PathBuf>,
    strength: f64,
}

/// The settings of a refiner.
#[derive(Deserialize)]
struct Refiner {
    switch: Option<f64>,
    steps: u64,
    strength: f64,
}

/// The sidecar beside the image at `path`, if there is one of this program.
pub(super) fn beside(path: &Path) -> Option<GenerationParameters> {
    read(&path.with_extension("json")).ok().flatten()
}

/// The sidecar at `path`. None if it is JSON of another program.
///
/// # Errors
/// It cannot be read, is no JSON, or has a value of another type.
pub(super) fn read(path: &Path) -> Result<Option<GenerationParameters>, String> {
    let file = sd_files::open(path).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if length > LONGEST_SIDECAR {
        return Err(format!(
            "it is longer than the {LONGEST_SIDECAR} bytes that are read"
        ));
    }
    let reader = BufReader::new(file.take(LONGEST_SIDECAR));
    let fields: Fields =
        serde_json::from_reader(reader).map_err(|error| format!("it is damaged: {error}"))?;
    match fields
        .text("version")
        .filter(|version| version.starts_with(PROGRAM))
    {
        Some(version) => parameters(&fields, version).map(Some),
        None => Ok(None),
    }
}

fn parameters(fields: &Fields, version: String) -> Result<GenerationParameters, String> {
    let mut found = GenerationParameters::new(ParametersSource::Sidecar { version });
    found.prompt = fields.get("prompt")?.unwrap_or_default();
    found.settings.negative_prompt = Some(fields.get("negative_prompt")?.unwrap_or_default());
    for (option, key) in [
        ("model", "model"),
        ("seed", "seed"),
        ("rng", "rng"),
        ("steps", "steps"),
        ("cfg", "guidance_scale"),
        ("guidance-rescale", "guidance_rescale"),
        ("sampler", "sampler"),
    ] {
        if let Some(text) = fields.text(key) {
            found.set(option, key, &text);
        }
    }
    if let (Some(width), Some(height)) = (fields.text("width"), fields.text("height")) {
        found.set("size", "size", &format!("{width}x{height}"));
    }
    // The option counts from 1.
    if let Some(skip) = fields.get::<u64>("clip_skip")?.filter(|&skip| skip > 0) {
        found.set("clip-skip", "clip_skip", &skip.saturating_add(1).to_string());
    }
    let choices: Option<Choices> = fields.get("choices")?;
    // The resolved schedule, given by name, may read other settings of the model's scheduler file.
    let schedule = match &choices {
        Some(choices) => Some(choices.schedule.to_string()),
        None => fields.text("schedule"),
    };
    if let Some(schedule) = schedule {
        found.set("scheduler", "schedule", &schedule);
    }
    files(fields, &mut found)?;
    images(fields, &mut found)?;
    passes(fields, &mut found, choices.as_ref())?;
    if let Some(choices) = choices {
        chosen(&choices, &mut found);
    }
    found.settings.device = fields.text("device").and_then(|name| parse::devices(&name).ok());
    for key in &fields.unknown {
        found
            .differences
            .push(format!("{key}, which this version does not know"));
    }
    Ok(found)
}

/// The choices that the resolved settings do not show.
fn chosen(choices: &Choices, found: &mut GenerationParameters) {
    let dtype = match choices.dtype {
        TypeChoice::Automatic => None,
        TypeChoice::F32 => Some("f32"),
        TypeChoice::Bf16 => Some("bf16"),
        TypeChoice::F16 => Some("f16"),
    };
    let prediction = choices.prediction.map(|prediction| match prediction {
        Prediction::Epsilon => "epsilon",
        Prediction::V => "v",
        Prediction::Flow => "flow",
    });
    for (option, text) in [("dtype", dtype), ("prediction", prediction)] {
        if let Some(text) = text {
            found.set(option, option, text);
        }
    }
    let networks = &choices.networks;
    for (option, path) in [
        ("vae", &networks.vae),
        ("clip-l", &networks.clip_l),
        ("clip-g", &networks.clip_g),
        ("t5xxl", &networks.t5xxl),
    ] {
        if let Some(path) = path {
            found.set(option, option, &path.to_string_lossy());
        }
    }
}

/// LoRAs and embeddings.
fn files(fields: &Fields, found: &mut GenerationParameters) -> Result<(), String> {
    let mut tags = Prompt::parse(&found.prompt).loras;
    for lora in fields.get::<Vec<Lora>>("loras")?.unwrap_or_default() {
        let is_tag = tags.iter().position(|tag| {
            (&tag.name, tag.scale, tag.text_scale) == (&lora.name, lora.scale, lora.text_scale)
        });
        match is_tag {
            Some(index) => {
                tags.remove(index);
            }
            None => {
                // The name may be relative to another folder than today's.
                let is_elsewhere = lora.name.starts_with('.') && !Path::new(&lora.name).exists();
                let name = match is_elsewhere && lora.file.is_file() {
                    true => lora.file.to_string_lossy().into_owned(),
                    false => lora.name,
                };
                let (text, network) = (lora.text_scale, lora.scale);
                found.set("lora", "loras", &format!("{name}:{text}:{network}"));
            }
        }
    }
    let embeddings = fields.get::<Vec<Embedding>>("embeddings")?.unwrap_or_default();
    for embedding in embeddings {
        found.set("embedding", "embeddings", &embedding.file.to_string_lossy());
    }
    Ok(())
}

/// The initial image and the control images.
fn images(fields: &Fields, found: &mut GenerationParameters) -> Result<(), String> {
    if let Some(img2img) = fields.get::<Img2Img>("img2img")? {
        match img2img.image {
            Some(image) => {
                found.init = Some(InitImage {
                    image,
                    strength: Some(Strength(img2img.strength)),
                    mask: img2img.mask,
                });
            }
            None => found.unmet.push(Unmet {
                setting: "img2img".to_owned(),
                reason: "the initial image is not named".to_owned(),
                options: vec!["init-image"],
                is_missing: false,
            }),
        }
    }
    for control in fields
        .get::<Vec<ControlChoice>>("controlnet")?
        .unwrap_or_default()
    {
        let ControlChoice {
            name,
            kind,
            image,
            scale,
            folder: _,
        } = control;
        found.control_images.push(ControlImage { kind, image });
        found.set("controlnet", "controlnet", &name);
        found.set("control-scale", "scale", &scale.to_string());
    }
    Ok(())
}

/// The refiner and the upscaling.
fn passes(
    fields: &Fields,
    found: &mut GenerationParameters,
    choices: Option<&Choices>,
) -> Result<(), String> {
    if let Some(refiner) = fields.text("refiner") {
        found.set("refiner", "refiner", &refiner);
    }
    if let Some(refiner) = fields.get::<Refiner>("refiner_settings")? {
        match refiner.switch {
            Some(switch) => found.set("refiner-switch", "switch", &switch.to_string()),
            None if (refiner.steps, refiner.strength) == (20, 0.3) => {}
            None => found.differences.push(format!(
                "refiner_settings: {} steps, strength {}",
                refiner.steps, refiner.strength
            )),
        }
    }
    if let Some(upscale) = fields.text("upscale") {
        found.set("upscale", "upscale", &upscale);
    }
    let network = choices.and_then(|choices| choices.upscaler.as_ref());
    let upscaler = match (fields.text("upscale_method"), network) {
        (Some(method), Some(network)) if method != LANCZOS => Some(network.to_string_lossy().into_owned()),
        (method, _) => method,
    };
    if let Some(upscaler) = upscaler {
        found.set("upscaler", "upscale_method", &upscaler);
    }
    Ok(())
}
