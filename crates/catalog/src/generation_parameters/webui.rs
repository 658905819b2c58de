//! The settings of a `parameters` text: stable-diffusion-webui's keys, those of its extensions that this program
//! writes too, and those of stable-diffusion.cpp.

use sd_pipeline::scheduler::{SamplerChoice, SamplerKind, ScheduleKind};

use super::infotext::{Infotext, pairs};
use super::{GenerationParameters, ParametersSource, Unmet};
use crate::upscaler::LANCZOS;

/// Keys that say where an image comes from, and change nothing in it.
const ORIGIN: [&str; 14] = [
    "Version",
    "User",
    "Model hash",
    "VAE hash",
    "Lora hashes",
    "TI hashes",
    "Hashes",
    "Template",
    "Negative Template",
    "Init image hash",
    "Created Date",
    "Civitai resources",
    "Civitai metadata",
    "TI",
];
/// Keys of what webui does to the mask of inpainting.
const MASK: [&str; 6] = [
    "Mask blur",
    "Masked content",
    "Inpaint area",
    "Masked area padding",
    "Mask mode",
    "Mask blur x",
];
/// The start of the keys of the second pass of text-to-image, which this program does not have.
const HIRES: &str = "Hires ";
/// The options that name a control image.
const CONTROL: [&str; 4] = ["pose", "depth", "canny", "control"];

/// The parameters of `text`.
pub(super) fn parameters(text: Infotext) -> GenerationParameters {
    let version = text.value("Version").map(str::to_owned);
    let mut found = GenerationParameters::new(ParametersSource::Infotext { version });
    let writer = Writer::of(&text);
    found.prompt.clone_from(&text.prompt);
    found.settings.negative_prompt = Some(text.negative_prompt.clone());
    found.model_hash = text.value("Model hash").map(str::to_owned);
    noise(&mut found, &text, writer);
    sampling(&mut found, &text, writer);
    let is_hires = text.pairs.iter().any(|(key, _)| key.starts_with(HIRES));
    for (key, value) in &text.pairs {
        setting(&mut found, key, value, is_hires, writer);
    }
    found
}

/// The program that wrote a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// This program.
    Generate,
    SdCpp,
    /// stable-diffusion-webui, or a program that writes as it does.
    Webui,
}

impl Writer {
    fn of(text: &Infotext) -> Self {
        match text.value("Version") {
            Some(version) if version.starts_with("sd-generate ") => Self::Generate,
            Some(version) if version.starts_with("stable-diffusion.cpp") => Self::SdCpp,
            _ => Self::Webui,
        }
    }
}

/// The generator of the noise. webui draws it on the GPU unless the text says otherwise.
fn noise(found: &mut GenerationParameters, text: &Infotext, writer: Writer) {
    match (text.value("RNG"), writer) {
        (Some("CPU" | "cpu"), _) => found.set("rng", "RNG", "torch"),
        (Some("NV" | "GPU" | "cuda"), _) | (None, Writer::Webui | Writer::SdCpp) => {
            found.set("rng", "RNG", "philox");
        }
        (Some(other), _) => found.set("rng", "RNG", other),
        (None, Writer::Generate) => {}
    }
}

/// The sampler and its schedule.
fn sampling(found: &mut GenerationParameters, text: &Infotext, writer: Writer) {
    let Some(sampler) = text.value("Sampler") else {
        return;
    };
    found.set("sampler", "Sampler", sampler);
    let key = "Schedule type";
    match (text.value(key), writer) {
        (Some("Automatic"), Writer::Webui) => {
            if let Some(schedule) = automatic(sampler) {
                found.set("scheduler", key, schedule.name());
            }
        }
        (Some(schedule), _) => found.set("scheduler", key, schedule),
        (None, _) => {}
    }
}

/// The schedule that webui's samplers have by themselves, if it is not the model's.
fn automatic(sampler: &str) -> Option<ScheduleKind> {
    match sampler.parse::<SamplerChoice>().ok()?.sampler {
        SamplerKind::DpmPlusPlus2M
        | SamplerKind::DpmPlusPlusSde
        | SamplerKind::DpmPlusPlus2SAncestral
        | SamplerKind::Dpm2
        | SamplerKind::Dpm2Ancestral => Some(ScheduleKind::Karras),
        SamplerKind::DpmPlusPlus2MSde | SamplerKind::DpmPlusPlus3MSde => Some(ScheduleKind::Exponential),
        _ => None,
    }
}

/// Takes over the setting `key`, which nothing above has.
fn setting(found: &mut GenerationParameters, key: &str, value: &str, is_hires: bool, writer: Writer) {
    let is_zero = || value.parse().is_ok_and(|number: f64| number == 0.0);
    match key {
        "Sampler" | "Schedule type" | "RNG" => {}
        "Steps" => found.set("steps", key, value),
        "CFG scale" => found.set("cfg", key, value),
        "Seed" => found.set("seed", key, value),
        "Size" => found.set("size", key, value),
        "Clip skip" => found.set("clip-skip", key, value),
        "CFG Rescale" => found.set("guidance-rescale", key, value),
        "Model" | "Unet" => found.set("model", key, value),
        "VAE" if matches!(value, "None" | "Automatic") => {}
        "VAE" => found.set("vae", key, value),
        "Refiner" => found.set("refiner", key, without_hash(value)),
        "Refiner switch at" => found.set("refiner-switch", key, value),
        // The settings that this program has.
        "Refiner steps" if value == "20" => {}
        "Refiner denoising strength" if value == "0.3" => {}
        "Postprocess upscale by" => found.set("upscale", key, value.strip_suffix(".0").unwrap_or(value)),
        "Postprocess upscaler" if value == "Lanczos" => found.set("upscaler", key, LANCZOS),
        "Postprocess upscaler" => found.set("upscaler", key, value),
        "Denoising strength" if !is_hires => img2img(found, key, value),
        _ if MASK.contains(&key) => with_a_mask(found, key, value),
        _ if key.starts_with("ControlNet ") => control(found, key, value),
        _ if ORIGIN.contains(&key) => {}
        // Distilled guidance, which no model here takes, and an eta that adds no noise.
        "Guidance" if writer == Writer::SdCpp => {}
        "Eta" | "ENSD" if is_zero() => {}
        "Tiling" if value == "False" => {}
        _ => found.differences.push(format!("{key}: {value}")),
    }
}

/// The picture was generated with another image, which its file does not hold and one of `options` names.
fn without(found: &mut GenerationParameters, setting: String, with: &str, options: &[&'static str]) {
    found.unmet.push(Unmet {
        setting,
        reason: format!("the picture was generated {with}, which its file does not hold"),
        options: options.to_vec(),
        is_missing: false,
    });
}

/// The initial image is not in the text.
fn img2img(found: &mut GenerationParameters, key: &str, value: &str) {
    found.strength = value.parse().ok();
    without(
        found,
        format!("{key}: {value}"),
        "from an initial image",
        &["init-image"],
    );
}

/// The mask is not in the text either.
fn with_a_mask(found: &mut GenerationParameters, key: &str, value: &str) {
    // What a mask does here.
    let is_same = matches!(
        (key, value),
        ("Mask blur", "0") | ("Masked content", "original") | ("Inpaint area", "Whole picture")
    );
    if !is_same {
        found.differences.push(format!("{key}: {value}"));
    }
    if found.unmet.iter().all(|unmet| unmet.options != ["mask"]) {
        without(found, format!("{key}: {value}"), "with a mask", &["mask"]);
    }
}

/// A ControlNet unit of webui's extension. Its control image is not in the text.
fn control(found: &mut GenerationParameters, key: &str, value: &str) {
    let fields = pairs(value);
    let field = |name: &str| {
        let found = fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    };
    let model = without_hash(field("Model").unwrap_or("None")).to_owned();
    let scale = field("Weight")
        .and_then(|scale| scale.parse().ok())
        .unwrap_or(1.0);
    for (name, same) in [
        ("Guidance Start", "0.0"),
        ("Guidance End", "1.0"),
        ("Control Mode", "Balanced"),
        ("Resize Mode", "Just Resize"),
    ] {
        if let Some(other) =
            field(name).filter(|value| value.trim_end_matches(".0") != same.trim_end_matches(".0"))
        {
            found.differences.push(format!("{key}, {name}: {other}"));
        }
    }
    without(found, format!("{key}: {model}"), "with a control image", &CONTROL);
    found.controlnets.push((model, scale));
}

/// A model's name without the hash in brackets that may follow it.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once(" [") {
        Some((name, hash)) if hash.ends_with(']') => name,
        _ => name,
    }
}
