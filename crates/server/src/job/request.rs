//! [`JobRequest`]: what a client asks for, under the names of the command line's options.

use sd_catalog::{SeedChoice, Settings};
use sd_pipeline::ControlKind;
use serde::{Deserialize, Serialize};

use crate::options::Limits;

/// What a client asks for. Settings that are left out are those of the preset, the configuration and the model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JobRequest {
    pub(crate) prompt: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) negative_prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) preset: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) style: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) steps: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cfg: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) guidance_rescale: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<SeedField>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) n: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sampler: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scheduler: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) clip_skip: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rng: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) lora: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) vae: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) embedding: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refiner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refiner_switch: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) upscale: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) upscaler: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) init_image: Option<ImageField>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mask: Option<ImageField>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) strength: Option<f64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) control: Vec<ControlRequest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) format: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) jpeg_quality: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<i32>,
    #[serde(default)]
    pub(crate) strict: bool,
}

/// A seed, as JSON has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum SeedField {
    /// One; -1 is a random one.
    Number(i64),
    /// A large one.
    Large(u64),
    /// One for each image.
    List(Vec<u64>),
    /// As on the command line: `random`, `1,2,3`, `10..20`.
    Text(String),
}

/// An image of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum ImageField {
    /// Whether there is one, once it is stored with the job.
    Stored(bool),
    /// Base64, a data URL, or `upload:ID`.
    Sent(String),
}

/// A control image of a ControlNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ControlRequest {
    pub(crate) kind: ControlKind,
    pub(crate) image: ImageField,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) controlnet: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scale: Option<f64>,
}

/// A field of a request that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub(crate) field: &'static str,
    pub(crate) reason: String,
}

impl JobRequest {
    /// The names of all fields.
    pub(crate) const FIELDS: [&str; 30] = [
        "prompt",
        "negative_prompt",
        "model",
        "preset",
        "style",
        "size",
        "steps",
        "cfg",
        "guidance_rescale",
        "seed",
        "n",
        "sampler",
        "scheduler",
        "clip_skip",
        "rng",
        "lora",
        "vae",
        "embedding",
        "refiner",
        "refiner_switch",
        "upscale",
        "upscaler",
        "init_image",
        "mask",
        "strength",
        "control",
        "format",
        "jpeg_quality",
        "priority",
        "strict",
    ];

    /// The settings that it names. They are read as those of the command line are.
    ///
    /// # Errors
    /// A value is none of its setting, or beyond `limits`.
    pub(crate) fn settings(&self, limits: &Limits) -> Result<Settings, Invalid> {
        self.check_texts(limits)?;
        let mut settings = Settings {
            strict: self.strict,
            ..Settings::default()
        };
        let mut set = |field: &'static str, option: &str, text: Option<String>| match text {
            None => Ok(()),
            Some(text) => settings
                .set(option, &text)
                .map_err(|reason| Invalid { field, reason }),
        };
        set("negative_prompt", "negative-prompt", self.negative_prompt.clone())?;
        set("model", "model", self.model.clone())?;
        set("preset", "quality", self.preset.clone())?;
        set("style", "style", self.style.clone())?;
        set("size", "size", self.size.clone())?;
        set("steps", "steps", self.steps.map(|steps| steps.to_string()))?;
        set("cfg", "cfg", self.cfg.map(|cfg| cfg.to_string()))?;
        let rescale = self.guidance_rescale.map(|factor| factor.to_string());
        set("guidance_rescale", "guidance-rescale", rescale)?;
        set("seed", "seed", self.seed.as_ref().map(SeedField::text))?;
        set("n", "n", self.n.map(|n| n.to_string()))?;
        set("sampler", "sampler", self.sampler.clone())?;
        set("scheduler", "scheduler", self.scheduler.clone())?;
        set(
            "clip_skip",
            "clip-skip",
            self.clip_skip.map(|skip| skip.to_string()),
        )?;
        set("rng", "rng", self.rng.clone())?;
        set("vae", "vae", self.vae.clone())?;
        for lora in &self.lora {
            set("lora", "lora", Some(lora.clone()))?;
        }
        for embedding in &self.embedding {
            set("embedding", "embedding", Some(embedding.clone()))?;
        }
        set("refiner", "refiner", self.refiner.clone())?;
        let switch = self.refiner_switch.map(|switch| switch.to_string());
        set("refiner_switch", "refiner-switch", switch)?;
        set(
            "upscale",
            "upscale",
            self.upscale.map(|factor| factor.to_string()),
        )?;
        set("upscaler", "upscaler", self.upscaler.clone())?;
        set(
            "jpeg_quality",
            "jpeg-quality",
            self.jpeg_quality.map(|quality| quality.to_string()),
        )?;
        self.set_control(&mut settings)?;
        self.check_limits(&settings, limits)?;
        Ok(settings)
    }

    /// The ControlNets and scales: none, or one for each control image.
    fn set_control(&self, settings: &mut Settings) -> Result<(), Invalid> {
        let invalid = |reason: String| Invalid {
            field: "control",
            reason,
        };
        let named = self
            .control
            .iter()
            .filter_map(|control| control.controlnet.clone());
        settings.controlnet = named.collect();
        if !settings.controlnet.is_empty() && settings.controlnet.len() != self.control.len() {
            return Err(invalid(
                "either each control image has a `controlnet`, or none has".to_owned(),
            ));
        }
        for control in &self.control {
            let scale = control.scale.unwrap_or(1.0).to_string();
            let scale = sd_catalog::parse::control_scale(&scale).map_err(invalid)?;
            settings.control_scale.push(scale);
        }
        Ok(())
    }

    fn check_texts(&self, limits: &Limits) -> Result<(), Invalid> {
        if self.prompt.trim().is_empty() {
            return Err(Invalid {
                field: "prompt",
                reason: "it is empty".to_owned(),
            });
        }
        let negative = self.negative_prompt.as_deref().unwrap_or_default();
        for (field, text) in [("prompt", self.prompt.as_str()), ("negative_prompt", negative)] {
            if text.chars().count() > limits.prompt {
                return Err(Invalid {
                    field,
                    reason: format!("it has more than {} characters", limits.prompt),
                });
            }
        }
        Ok(())
    }

    fn check_limits(&self, settings: &Settings, limits: &Limits) -> Result<(), Invalid> {
        let images = match &settings.seed {
            Some(SeedChoice::Each(seeds)) => seeds.len() as u64,
            _ => settings.n.unwrap_or(1),
        };
        let beyond = |field: &'static str, most: String| {
            Err(Invalid {
                field,
                reason: format!("this server takes at most {most}"),
            })
        };
        if images > limits.images {
            return beyond("n", format!("{} images in a job", limits.images));
        }
        if settings.steps.is_some_and(|steps| steps > limits.steps) {
            return beyond("steps", format!("{} steps", limits.steps));
        }
        if let Some(sd_pipeline::SizeChoice::Exact(size)) = settings.size
            && size.width().max(size.height()) > limits.side
        {
            return beyond("size", format!("{} pixels a side", limits.side));
        }
        match self.format.as_deref() {
            None | Some("png" | "jpeg" | "jpg" | "webp") => Ok(()),
            Some(other) => Err(Invalid {
                field: "format",
                reason: format!("`{other}` is none of png, jpeg and webp"),
            }),
        }
    }

    /// The ending of the files of its images.
    pub(crate) fn extension(&self) -> &'static str {
        match self.format.as_deref() {
            Some("jpeg" | "jpg") => "jpg",
            Some("webp") => "webp",
            _ => "png",
        }
    }

    /// All images of it, by the names of their files.
    pub(crate) fn images(&mut self) -> Vec<(String, &'static str, &mut ImageField)> {
        let mut images = Vec::new();
        if let Some(image) = &mut self.init_image {
            images.push(("init_image".to_owned(), "init_image", image));
        }
        if let Some(image) = &mut self.mask {
            images.push(("mask".to_owned(), "mask", image));
        }
        let control = self.control.iter_mut().enumerate();
        images.extend(
            control.map(|(index, control)| (format!("control-{index}"), "control", &mut control.image)),
        );
        images
    }
}

impl SeedField {
    fn text(&self) -> String {
        match self {
            Self::Number(seed) => seed.to_string(),
            Self::Large(seed) => seed.to_string(),
            Self::List(seeds) => {
                let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
                seeds.join(",")
            }
            Self::Text(text) => text.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(value: serde_json::Value) -> JobRequest {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn fields_are_read_as_options_are() {
        let request = request(json!({
            "prompt": "a cat", "steps": 12, "cfg": 4.5, "size": "640x384", "seed": -1, "lora": ["film:0.6"],
            "sampler": "euler_a", "upscale": 2,
        }));
        let settings = request.settings(&Limits::default()).unwrap();
        assert_eq!((settings.steps, settings.cfg), (Some(12), Some(4.5)));
        assert_eq!(settings.seed, Some(SeedChoice::Random));
        assert_eq!(settings.lora, ["film:0.6"]);
        assert_eq!(settings.upscale, Some(2));
    }

    #[test]
    fn every_field_has_a_name() {
        for name in JobRequest::FIELDS {
            let value = match name {
                "prompt" => continue,
                name => json!({ "prompt": "a", name: { "no": "value" } }),
            };
            let error = serde_json::from_value::<JobRequest>(value)
                .unwrap_err()
                .to_string();
            assert!(!error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let limits = Limits::default();
        for (value, field) in [
            (json!({ "prompt": " " }), "prompt"),
            (json!({ "prompt": "a".repeat(20_001) }), "prompt"),
            (json!({ "prompt": "a", "steps": 0 }), "steps"),
            (json!({ "prompt": "a", "steps": 201 }), "steps"),
            (json!({ "prompt": "a", "n": 17 }), "n"),
            (
                json!({ "prompt": "a", "seed": (0..17).collect::<Vec<u64>>() }),
                "n",
            ),
            (json!({ "prompt": "a", "size": "8192x64" }), "size"),
            (json!({ "prompt": "a", "format": "gif" }), "format"),
            (json!({ "prompt": "a", "seed": "soon" }), "seed"),
            (json!({ "prompt": "a", "style": "cubism" }), "style"),
        ] {
            let invalid = request(value.clone()).settings(&limits).unwrap_err();
            assert_eq!(invalid.field, field, "{value}");
        }
    }
}
