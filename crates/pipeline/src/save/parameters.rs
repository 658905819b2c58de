//! The `parameters` text that Stable Diffusion programs exchange inside a PNG.
//!
//! The prompt, a line `Negative prompt: …` where there is one, and a last line of `Key: value` pairs, as
//! stable-diffusion-webui writes and reads it.

use super::Metadata;
use crate::scheduler::SamplerKind;

/// The text for a picture made as `metadata` says.
pub fn parameters_text(metadata: &Metadata) -> String {
    let mut text = metadata.prompt.clone();
    if !metadata.negative_prompt.is_empty() {
        text.push_str("\nNegative prompt: ");
        text.push_str(&metadata.negative_prompt);
    }
    let size = metadata.size;
    let pairs = [
        ("Steps", metadata.steps.to_string()),
        ("Sampler", plain_name(metadata.sampler)),
        ("Schedule type", metadata.schedule.label().to_owned()),
        ("CFG scale", metadata.guidance_scale.0.to_string()),
        ("Seed", metadata.seed.to_string()),
        ("Size", size.to_string()),
        // Model names may not hold what separates the pairs.
        ("Model", metadata.model.replace([',', ':'], "")),
        // Readers take the noise to come from a GPU when nothing is said.
        ("RNG", "CPU".to_owned()),
        ("Version", metadata.version.clone()),
    ];
    let line: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{key}: {}", quoted(value)))
        .collect();
    text.push('\n');
    text.push_str(&line.join(", "));
    text
}

/// Other programs do not tell the methods for rectified flow, and those for models preconditioned as EDM does, from the
/// others of their names.
fn plain_name(sampler: SamplerKind) -> String {
    let name = sampler.name();
    let plain = name.strip_prefix("Flow ").or(name.strip_prefix("EDM "));
    plain.unwrap_or(name).to_owned()
}

/// A value that holds a separator is written as a JSON string.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::metadata::example;
    use super::*;

    #[test]
    fn reads_as_the_field_writes_it() {
        let mut metadata = example();
        metadata.prompt = "a lovely cat,\nsleeping".into();
        metadata.negative_prompt = "blurry".into();
        metadata.model = "models/tiny: one, two".into();
        assert_eq!(
            parameters_text(&metadata),
            "a lovely cat,\nsleeping\nNegative prompt: blurry\nSteps: 20, Sampler: Euler, Schedule type: Normal, CFG scale: 4.5, Seed: 42, \
             Size: 256x128, Model: models/tiny one two, RNG: CPU, Version: sd-generate 0.0.0"
        );
    }

    #[test]
    fn an_empty_negative_prompt_has_no_line() {
        assert!(!parameters_text(&example()).contains("Negative"));
    }
}
