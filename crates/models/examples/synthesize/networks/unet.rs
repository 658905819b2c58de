//! UNets and their ControlNets, which have the first half of a UNet.

use sd_models::controlnet::ControlNet;
use sd_models::unet;
use serde_json::{Value, json};

use super::{Tensor, parsed, read_by};

/// A UNet of Stable Diffusion 1, 2 or XL: `UNet2DConditionModel`.
pub(crate) struct UNet {
    /// The side of the latents that it was trained for.
    pub(crate) side: usize,
    /// Channels of latents, and what goes in with them.
    pub(crate) inputs: usize,
    /// Of the levels, the one of full resolution first.
    pub(crate) channels: &'static [usize],
    pub(crate) heads: &'static [usize],
    /// Whether a level attends.
    pub(crate) attends: &'static [bool],
    /// Layers of the transformers of a level; those of the last are also the middle's.
    pub(crate) transformer_layers: &'static [usize],
    /// Whether there is a middle between the way down and the way up.
    pub(crate) middle: bool,
    /// Residual blocks of a level.
    pub(crate) residuals: usize,
    /// Features of a token of text.
    pub(crate) context: usize,
    /// Features of what is added to the timestep.
    pub(crate) added: Option<usize>,
    /// Whether transformers begin and end with projections, and not with convolutions of single pixels.
    pub(crate) linear_projection: bool,
}

impl UNet {
    pub(crate) const LATENTS: usize = 4;
    /// Features that each number added to the timestep is spread over.
    pub(crate) const ADDED_SPREAD: usize = 256;

    pub(crate) const SD15: Self = Self {
        side: 64,
        inputs: Self::LATENTS,
        channels: &[320, 640, 1280, 1280],
        heads: &[8, 8, 8, 8],
        attends: &[true, true, true, false],
        transformer_layers: &[1, 1, 1, 1],
        middle: true,
        residuals: 2,
        context: 768,
        added: None,
        linear_projection: false,
    };
    pub(crate) const SD21: Self = Self {
        side: 96,
        heads: &[5, 10, 20, 20],
        context: 1024,
        linear_projection: true,
        ..Self::SD15
    };
    pub(crate) const SDXL: Self = Self {
        side: 128,
        inputs: Self::LATENTS,
        channels: &[320, 640, 1280],
        heads: &[5, 10, 20],
        attends: &[false, true, true],
        transformer_layers: &[1, 2, 10],
        middle: true,
        residuals: 2,
        context: 2048,
        added: Some(1280 + 6 * Self::ADDED_SPREAD),
        linear_projection: true,
    };
    pub(crate) const SDXL_REFINER: Self = Self {
        channels: &[384, 768, 1536, 1536],
        heads: &[6, 12, 24, 24],
        attends: &[false, true, true, false],
        transformer_layers: &[4, 4, 4, 4],
        context: 1280,
        added: Some(1280 + 5 * Self::ADDED_SPREAD),
        ..Self::SDXL
    };

    /// `unet/config.json`
    pub(crate) fn config(&self) -> Value {
        let mut config = self.shared_config();
        config["_class_name"] = json!("UNet2DConditionModel");
        config["out_channels"] = json!(Self::LATENTS);
        config["up_block_types"] = (self.attends.iter().rev())
            .map(|attends| {
                if *attends {
                    "CrossAttnUpBlock2D"
                } else {
                    "UpBlock2D"
                }
            })
            .collect();
        config
    }

    /// The `config.json` of the ControlNet for this UNet.
    pub(crate) fn controlnet_config(&self, channels: &[usize]) -> Value {
        let mut config = self.shared_config();
        config["_class_name"] = json!("ControlNetModel");
        config["conditioning_channels"] = json!(3);
        config["conditioning_embedding_out_channels"] = json!(channels);
        config["controlnet_conditioning_channel_order"] = json!("rgb");
        config["global_pool_conditions"] = json!(false);
        config
    }

    fn shared_config(&self) -> Value {
        json!({
            "act_fn": "silu",
            "addition_embed_type": self.added.map(|_| "text_time"),
            "addition_time_embed_dim": self.added.map(|_| Self::ADDED_SPREAD),
            // The number of heads, whatever its name says.
            "attention_head_dim": self.heads,
            "block_out_channels": self.channels,
            "center_input_sample": false,
            "cross_attention_dim": self.context,
            "down_block_types": (self.attends.iter())
                .map(|attends| if *attends { "CrossAttnDownBlock2D" } else { "DownBlock2D" })
                .collect::<Vec<_>>(),
            "downsample_padding": 1,
            "flip_sin_to_cos": true,
            "freq_shift": 0,
            "in_channels": self.inputs,
            "layers_per_block": self.residuals,
            "mid_block_scale_factor": 1,
            "mid_block_type": self.middle.then_some("UNetMidBlock2DCrossAttn"),
            "norm_eps": 1e-5,
            "norm_num_groups": 32,
            "projection_class_embeddings_input_dim": self.added,
            "sample_size": self.side,
            "transformer_layers_per_block": self.transformer_layers,
            "use_linear_projection": self.linear_projection,
        })
    }

    pub(crate) fn tensors(&self) -> Vec<Tensor> {
        read_by(|weights| unet::UNet::new(weights, &parsed(self.config())).map(drop))
    }

    /// The tensors of the ControlNet for this UNet, `ControlNetModel`. The embedding of its control image has
    /// levels of these `channels`.
    pub(crate) fn controlnet_tensors(&self, channels: &[usize]) -> Vec<Tensor> {
        read_by(|weights| ControlNet::new(weights, &parsed(self.controlnet_config(channels))).map(drop))
    }
}
