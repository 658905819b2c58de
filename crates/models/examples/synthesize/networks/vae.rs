//! The VAEs.

use sd_models::vae::{Decoder, Encoder};
use serde_json::{Value, json};

use super::{Tensor, parsed, read_by};

/// A VAE: `AutoencoderKL`.
pub(crate) struct Vae {
    pub(crate) latent_channels: usize,
    pub(crate) quant_convolutions: bool,
    /// The factor that latents are multiplied by.
    pub(crate) scale: f64,
    /// What is subtracted from latents before.
    pub(crate) shift: Option<f64>,
}

impl Vae {
    /// Of Stable Diffusion 1 and 2.
    pub(crate) const SD: Self = Self {
        latent_channels: 4,
        quant_convolutions: true,
        scale: 0.18215,
        shift: None,
    };
    /// Of SDXL and its refiner.
    pub(crate) const SDXL: Self = Self {
        scale: 0.13025,
        ..Self::SD
    };
    /// Of Stable Diffusion 3 and 3.5.
    pub(crate) const SD3: Self = Self {
        latent_channels: 16,
        quant_convolutions: false,
        scale: 1.5305,
        shift: Some(0.0609),
    };

    /// `vae/config.json`
    pub(crate) fn config(&self) -> Value {
        json!({
            "_class_name": "AutoencoderKL",
            "in_channels": 3,
            "out_channels": 3,
            "latent_channels": self.latent_channels,
            "down_block_types": vec!["DownEncoderBlock2D"; 4],
            "up_block_types": vec!["UpDecoderBlock2D"; 4],
            "block_out_channels": [128, 256, 512, 512],
            "layers_per_block": 2,
            "norm_num_groups": 32,
            "scaling_factor": self.scale,
            "shift_factor": self.shift,
            "mid_block_add_attention": true,
            "use_quant_conv": self.quant_convolutions,
            "use_post_quant_conv": self.quant_convolutions,
        })
    }

    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        let config = parsed(self.config());
        read_by(|weights| {
            Encoder::new(weights.clone(), &config)?;
            Decoder::new(weights, &config).map(drop)
        })
    }
}
