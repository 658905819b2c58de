//! What a denoising network predicts and with which noise it was trained, as its file tells it, and the
//! configuration of the scheduler that follows from that.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::NetworkKind;
use super::Settings;
use super::content::Network;
use crate::{Checkpoint, ModelFamily, Result};

/// What a denoising network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[doc(alias = "prediction_type")]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The velocity between image and noise (<https://arxiv.org/abs/2202.00512>).
    V,
    /// The velocity of rectified flow (<https://arxiv.org/abs/2209.03003>).
    Flow,
}

/// What a file says of the training of its denoising network.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in super::super) struct Evidence {
    prediction: Option<Prediction>,
    /// Whether the last timestep is pure noise.
    has_zero_snr: bool,
    /// The least and the greatest noise of a model with continuous noise levels (CosXL).
    sigmas: Option<(f32, f32)>,
    /// Mean and deviation of the latents, and EDM's noise levels (Playground 2.5).
    latents: Option<[Vec<f32>; 2]>,
}

/// The longest configuration beside a file that is read.
const LONGEST_YAML: u64 = 1 << 20;
/// Above this deviation the biases of a norm are those of Stable Diffusion 2 for 768 pixels, which predicts
/// the velocity. The test is ComfyUI's.
const DEVIATION_OF_V: f64 = 0.09;

impl Evidence {
    /// What the file at `path` with the tensors `all` says, the strongest evidence first: entries that
    /// training programs write among the tensors, metadata, a configuration beside the file, the values of a
    /// norm.
    ///
    /// # Errors
    /// A tensor cannot be read.
    pub(super) fn of(path: &Path, all: &Checkpoint, networks: &[Network]) -> Result<Self> {
        let has = |name: &str| all.header(name).is_some();
        let mut evidence = Self {
            has_zero_snr: has("ztsnr"),
            ..Self::default()
        };
        if has("edm_vpred.sigma_max") {
            let of = |name: &str, default: f32| match has(name) {
                true => all.read_number(name),
                false => Ok(default),
            };
            evidence.sigmas = Some((
                of("edm_vpred.sigma_min", 0.002)?,
                of("edm_vpred.sigma_max", 120.0)?,
            ));
            evidence.prediction = Some(Prediction::V);
        } else if has("edm_mean") && has("edm_std") {
            let values = |name: &str| -> Result<Vec<f32>> {
                let count = all.header(name).map_or(0, |header| header.shape.iter().product());
                // One value a channel. More are no such tensor.
                let mut values = vec![0.0; if count <= 64 { count } else { 0 }];
                all.read_floats(name, &mut values)?;
                Ok(values)
            };
            evidence.latents = Some([values("edm_mean")?, values("edm_std")?]);
        } else if has("v_pred") {
            evidence.prediction = Some(Prediction::V);
        } else {
            evidence.prediction = of_metadata(all)?.or_else(|| of_yaml(path));
            if evidence.prediction.is_none() {
                evidence.prediction = of_norm(networks)?;
            }
        }
        Ok(evidence)
    }

    /// Adds to the configuration of the autoencoder what the file says of latents.
    pub(in super::super) fn complete_vae(&self, config: &mut Settings) {
        if let Some([mean, deviation]) = &self.latents {
            config.insert("scaling_factor".to_owned(), json!(0.5));
            config.insert("latents_mean".to_owned(), json!(mean));
            config.insert("latents_std".to_owned(), json!(deviation));
        }
    }

    /// The configuration of the scheduler for a network of `kind`, as diffusers writes it for the releases of
    /// its family. What the user `named` wins.
    pub(in super::super) fn scheduler(
        &self,
        kind: NetworkKind,
        fills_masks: bool,
        named: Option<Prediction>,
    ) -> Settings {
        let prediction = named.or(self.prediction).unwrap_or(match kind {
            NetworkKind::Mmdit => Prediction::Flow,
            _ => Prediction::Epsilon,
        });
        let mut config = Settings::new();
        let mut set = |settings: Value| {
            if let Value::Object(settings) = settings {
                config.extend(settings);
            }
        };
        set(json!({"num_train_timesteps": 1000}));
        if prediction == Prediction::Flow {
            let shift = if kind == NetworkKind::Mmdit { 3.0 } else { 1.0 };
            set(json!({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": shift}));
            return config;
        }
        set(json!({"prediction_type": prediction.setting()}));
        if let Some((least, greatest)) = self.sigmas {
            set(json!({
                "_class_name": "EDMEulerScheduler",
                "sigma_min": least,
                "sigma_max": greatest,
                "sigma_data": 1.0,
            }));
            return config;
        }
        if self.latents.is_some() {
            set(json!({
                "_class_name": "EDMDPMSolverMultistepScheduler",
                "sigma_min": 0.002,
                "sigma_max": 80.0,
                "sigma_data": 0.5,
            }));
            return config;
        }
        set(json!({
            "beta_schedule": "scaled_linear",
            "beta_start": 0.000_85,
            "beta_end": 0.012,
            "steps_offset": 1,
        }));
        let is_xl = matches!(
            kind,
            NetworkKind::UNet(ModelFamily::StableDiffusionXl | ModelFamily::StableDiffusionXlRefiner)
        );
        if is_xl {
            set(json!({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}));
        } else if fills_masks || prediction == Prediction::V {
            set(json!({"_class_name": "DDIMScheduler", "set_alpha_to_one": false, "clip_sample": false}));
        } else {
            set(json!({"_class_name": "PNDMScheduler", "set_alpha_to_one": false, "skip_prk_steps": true}));
        }
        if self.has_zero_snr {
            set(json!({"rescale_betas_zero_snr": true}));
        }
        config
    }
}

impl Prediction {
    /// The name in the configuration of a scheduler.
    pub(in super::super) fn setting(self) -> &'static str {
        match self {
            Self::Epsilon => "epsilon",
            Self::V => "v_prediction",
            Self::Flow => "flow_prediction",
        }
    }

    /// The prediction with this name in metadata.
    fn named(name: &str) -> Option<Self> {
        match name {
            "epsilon" | "eps" => Some(Self::Epsilon),
            "v" | "v_prediction" => Some(Self::V),
            _ => None,
        }
    }
}

/// The prediction in the metadata of a file (<https://github.com/Stability-AI/ModelSpec>).
fn of_metadata(all: &Checkpoint) -> Result<Option<Prediction>> {
    let metadata = all.metadata()?;
    let keys = ["modelspec.prediction_type", "modelspec.predict_key"];
    Ok(keys.iter().find_map(|key| Prediction::named(metadata.get(*key)?)))
}

/// The prediction in a configuration of the original program beside the file.
fn of_yaml(path: &Path) -> Option<Prediction> {
    let text = sd_files::read_at_most(&path.with_extension("yaml"), LONGEST_YAML).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("parameterization:"));
    let value = lines.next()?;
    let value = value.split('#').next().unwrap_or(value);
    Prediction::named(value.trim().trim_matches(['"', '\'']))
}

/// The prediction of a UNet of Stable Diffusion 2, by the deviation of the biases of a norm.
fn of_norm(networks: &[Network]) -> Result<Option<Prediction>> {
    const BIAS: &str = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias";
    let is_second = |network: &&Network| network.kind == NetworkKind::UNet(ModelFamily::StableDiffusion2);
    let Some(network) = networks.iter().find(is_second) else {
        return Ok(None);
    };
    let unet = &network.checkpoint;
    let takes_masks = network.config.get("in_channels") != Some(&json!(4));
    let count = match unet.header(BIAS).map(|header| header.shape.as_slice()) {
        Some(&[count]) if count > 0 && count <= 1 << 16 && !takes_masks => count,
        _ => return Ok(None),
    };
    let mut values = vec![0.0; count];
    unet.read_floats(BIAS, &mut values)?;
    let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count as f64;
    let square = |&value: &f32| (f64::from(value) - mean).powi(2);
    let deviation = (values.iter().map(square).sum::<f64>() / count as f64).sqrt();
    Ok(Some(if deviation > DEVIATION_OF_V {
        Prediction::V
    } else {
        Prediction::Epsilon
    }))
}
