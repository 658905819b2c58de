//! The `parameters` text that Stable Diffusion programs exchange inside a PNG.
//!
//! The prompt, a line `Negative prompt: …` if there is one, and a last line of `Key: value` pairs, as
//! stable-diffusion-webui, its ControlNet extension and its Extras tab write and read them. It contains
//! everything that changes the image, under webui's keys where there are any. Models, LoRAs and networks
//! appear under their bare names: an image is shared, local paths are not.

use super::bare_name::bare_name;
use super::{LoraRecord, Metadata};
use crate::bundle::EDGES;
use crate::prompt::replace_lora_tags;
use crate::request::{ControlChoice, ControlKind};
use crate::scheduler::SamplerKind;

/// Digits of a model's SHA-256 in webui.
const HASH_DIGITS: usize = 10;

/// The text for an image with this `metadata`.
pub fn parameters_text(metadata: &Metadata) -> String {
    let mut text = with_lora_tags(&metadata.prompt, &metadata.loras);
    if !metadata.negative_prompt.is_empty() {
        text.push_str("\nNegative prompt: ");
        text.push_str(&replace_lora_tags(&metadata.negative_prompt, |_, _| {
            String::new()
        }));
    }
    let pairs = pairs(metadata);
    let line: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{key}: {}", quoted(value)))
        .collect();
    text.push('\n');
    text.push_str(&line.join(", "));
    text
}

/// The keys and values of the last line, in webui's order.
fn pairs(metadata: &Metadata) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut add = |key: &str, value: String| pairs.push((key.to_owned(), value));
    add("Steps", metadata.steps.to_string());
    add("Sampler", plain_name(metadata.sampler));
    add("Schedule type", metadata.schedule.label().to_owned());
    add("CFG scale", metadata.guidance_scale.0.to_string());
    add("Seed", metadata.seed.to_string());
    add("Size", metadata.size.to_string());
    if let Some(digits) = metadata
        .model_sha256
        .as_ref()
        .and_then(|sha256| sha256.get(..HASH_DIGITS))
    {
        add("Model hash", digits.to_owned());
    }
    if let Some(model) = bare_name(&metadata.model) {
        add("Model", model);
    }
    if let Some(img2img) = &metadata.img2img {
        add("Denoising strength", img2img.strength.0.to_string());
    }
    // Readers assume the last layer if the key is missing.
    if metadata.clip_skip > 0 {
        add("Clip skip", (metadata.clip_skip + 1).to_string());
    }
    // They also assume GPU noise.
    add("RNG", metadata.rng.webui_name().to_owned());
    if metadata
        .img2img
        .as_ref()
        .is_some_and(|img2img| img2img.mask.is_some())
    {
        add("Mask blur", "0".to_owned());
        add("Masked content", "original".to_owned());
        add("Inpaint area", "Whole picture".to_owned());
    }
    if metadata.guidance_rescale > 0.0 {
        add("CFG Rescale", metadata.guidance_rescale.to_string());
    }
    for (index, control) in metadata.controlnet.iter().flatten().enumerate() {
        add(&format!("ControlNet {index}"), control_unit(control));
    }
    let hashes = metadata.loras.iter().filter_map(|lora| {
        let (name, hash) = (bare_name(&lora.name)?, lora.hash.as_ref()?);
        Some(format!("{name}: {hash}"))
    });
    let hashes: Vec<String> = hashes.collect();
    if !hashes.is_empty() {
        add("Lora hashes", hashes.join(", "));
    }
    let hashes = metadata.embeddings.iter().filter_map(|embedding| {
        let (name, hash) = (bare_name(&embedding.name)?, embedding.hash.as_ref()?);
        Some(format!("{name}: {hash}"))
    });
    let hashes: Vec<String> = hashes.collect();
    if !hashes.is_empty() {
        add("TI hashes", hashes.join(", "));
    }
    if let (Some(model), Some(refiner)) = (&metadata.refiner, &metadata.refiner_settings) {
        add(
            "Refiner",
            bare_name(model).unwrap_or_else(|| "refiner".to_owned()),
        );
        match refiner.switch {
            Some(switch) => add("Refiner switch at", switch.to_string()),
            // webui has no refiner pass over a finished image, and so no keys for it.
            None => {
                add("Refiner steps", refiner.steps.to_string());
                add("Refiner denoising strength", refiner.strength.0.to_string());
            }
        }
    }
    if let (Some(factor), Some(method)) = (metadata.upscale, &metadata.upscale_method) {
        add("Postprocess upscale by", factor.to_string());
        add(
            "Postprocess upscaler",
            match method.as_str() {
                "lanczos" => "Lanczos".to_owned(),
                network => bare_name(network).unwrap_or_else(|| "network".to_owned()),
            },
        );
    }
    add("Version", metadata.version.clone());
    pairs
}

/// `prompt` with a tag for each of `loras`: in place of its own tag, else at the end. Tags of LoRAs that were
/// left out are removed.
fn with_lora_tags(prompt: &str, loras: &[LoraRecord]) -> String {
    let written = |lora: &LoraRecord| {
        let name = bare_name(&lora.name)?;
        Some(format!("<lora:{name}:{}>", lora.scales()))
    };
    let mut left: Vec<&LoraRecord> = loras.iter().collect();
    let mut text = replace_lora_tags(prompt, |tag, _| {
        let is_meant = |lora: &&LoraRecord| {
            tag.as_ref().is_some_and(|tag| {
                (&lora.name, lora.scale, lora.text_scale) == (&tag.name, tag.scale, tag.text_scale)
            })
        };
        match left.iter().position(is_meant) {
            Some(index) => written(left.remove(index)).unwrap_or_default(),
            None => String::new(),
        }
    });
    for tag in left.into_iter().filter_map(written) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&tag);
    }
    text
}

/// A ControlNet unit in the format of webui's extension. Its separators may not occur in a value.
fn control_unit(control: &ControlChoice) -> String {
    let model = bare_name(&control.name).unwrap_or_else(|| "None".to_owned());
    let weight = control.scale.to_string();
    let mut fields = vec![
        ("Module", "none".to_owned()),
        ("Model", model),
        ("Weight", weight),
        // The control image is resized to the size of the generated image, whatever its aspect ratio.
        ("Resize Mode", "Just Resize".to_owned()),
    ];
    if control.kind == ControlKind::Canny {
        fields[0].1 = "canny".to_owned();
        fields.push(("Threshold A", EDGES.0.to_string()));
        fields.push(("Threshold B", EDGES.1.to_string()));
    }
    fields.extend([
        ("Guidance Start", "0.0".to_owned()),
        ("Guidance End", "1.0".to_owned()),
        ("Pixel Perfect", "True".to_owned()),
        ("Control Mode", "Balanced".to_owned()),
    ]);
    let fields: Vec<String> = fields
        .into_iter()
        .map(|(key, value)| format!("{key}: {value}"))
        .collect();
    fields.join(", ")
}

/// Other programs have one name for a sampler and its variants for rectified flow and EDM models.
fn plain_name(sampler: SamplerKind) -> String {
    let name = sampler.name();
    let plain = name.strip_prefix("Flow ").or(name.strip_prefix("EDM "));
    plain.unwrap_or(name).to_owned()
}

/// A value that a reader would misparse is written as a JSON string: one with a separator, with a leading
/// quotation mark, or with spaces around it.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) || value.starts_with('"') || value.trim() != value {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests;
