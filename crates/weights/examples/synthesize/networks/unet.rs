//! The tensors of UNets, and of ControlNets, which have the first half of a UNet.

use serde_json::{Value, json};

use super::{List, Tensor, residual};

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
        side: 128,
        inputs: Self::LATENTS,
        channels: &[384, 768, 1536, 1536],
        heads: &[6, 12, 24, 24],
        attends: &[false, true, true, false],
        transformer_layers: &[4, 4, 4, 4],
        middle: true,
        residuals: 2,
        context: 1280,
        added: Some(1280 + 5 * Self::ADDED_SPREAD),
        linear_projection: true,
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
        let mut list = List::default();
        let mut held = self.down(&mut list);
        let mut inputs = *self.channels.last().unwrap_or(&0);
        for (block, level) in (0..self.channels.len()).rev().enumerate() {
            let (name, channels) = (format!("up_blocks.{block}"), self.channels[level]);
            for layer in 0..=self.residuals {
                let joined = held.pop().unwrap_or_default();
                self.residual(
                    &mut list,
                    &format!("{name}.resnets.{layer}"),
                    inputs + joined,
                    channels,
                );
                inputs = channels;
                if self.attends[level] {
                    self.transformer(&mut list, &format!("{name}.attentions.{layer}"), level);
                }
            }
            if level > 0 {
                list.conv2d(&format!("{name}.upsamplers.0.conv"), channels, channels, 3);
            }
        }
        list.norm("conv_norm_out", inputs);
        list.conv2d("conv_out", inputs, Self::LATENTS, 3);
        list.0
    }

    /// The tensors of the ControlNet for this UNet, `ControlNetModel`, whose image passes levels of these
    /// `channels`.
    pub(crate) fn controlnet_tensors(&self, channels: &[usize]) -> Vec<Tensor> {
        let mut list = List::default();
        for (index, held) in self.down(&mut list).into_iter().enumerate() {
            list.conv2d(&format!("controlnet_down_blocks.{index}"), held, held, 1);
        }
        let lowest = *self.channels.last().unwrap_or(&0);
        list.conv2d("controlnet_mid_block", lowest, lowest, 1);
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        list.conv2d("controlnet_cond_embedding.conv_in", 3, first, 3);
        for (level, pair) in channels.windows(2).enumerate() {
            let block = |index: usize| format!("controlnet_cond_embedding.blocks.{index}");
            list.conv2d(&block(2 * level), pair[0], pair[0], 3);
            list.conv2d(&block(2 * level + 1), pair[0], pair[1], 3);
        }
        list.conv2d("controlnet_cond_embedding.conv_out", last, self.channels[0], 3);
        list.0
    }

    /// The way down and the middle. The result are the channels of the images that are held.
    fn down(&self, list: &mut List) -> Vec<usize> {
        let highest = self.channels[0];
        let embedding = |list: &mut List, name: &str, inputs: usize| {
            list.linear(&format!("{name}.linear_1"), inputs, 4 * highest);
            list.linear(&format!("{name}.linear_2"), 4 * highest, 4 * highest);
        };
        list.conv2d("conv_in", self.inputs, highest, 3);
        embedding(list, "time_embedding", highest);
        if let Some(added) = self.added {
            embedding(list, "add_embedding", added);
        }
        let (mut held, mut inputs) = (vec![highest], highest);
        for (level, &channels) in self.channels.iter().enumerate() {
            let name = format!("down_blocks.{level}");
            for layer in 0..self.residuals {
                self.residual(list, &format!("{name}.resnets.{layer}"), inputs, channels);
                inputs = channels;
                if self.attends[level] {
                    self.transformer(list, &format!("{name}.attentions.{layer}"), level);
                }
                held.push(channels);
            }
            if level + 1 < self.channels.len() {
                list.conv2d(&format!("{name}.downsamplers.0.conv"), channels, channels, 3);
                held.push(channels);
            }
        }
        if self.middle {
            self.residual(list, "mid_block.resnets.0", inputs, inputs);
            self.transformer(list, "mid_block.attentions.0", self.channels.len() - 1);
            self.residual(list, "mid_block.resnets.1", inputs, inputs);
        }
        held
    }

    fn residual(&self, list: &mut List, name: &str, inputs: usize, outputs: usize) {
        residual(list, name, inputs, outputs);
        list.linear(&format!("{name}.time_emb_proj"), 4 * self.channels[0], outputs);
    }

    fn transformer(&self, list: &mut List, name: &str, level: usize) {
        let channels = self.channels[level];
        list.norm(&format!("{name}.norm"), channels);
        for projection in ["proj_in", "proj_out"] {
            let name = format!("{name}.{projection}");
            if self.linear_projection {
                list.linear(&name, channels, channels);
            } else {
                list.conv2d(&name, channels, channels, 1);
            }
        }
        for layer in 0..self.transformer_layers[level] {
            let name = format!("{name}.transformer_blocks.{layer}");
            for norm in ["norm1", "norm2", "norm3"] {
                list.norm(&format!("{name}.{norm}"), channels);
            }
            for (attention, others) in [("attn1", channels), ("attn2", self.context)] {
                list.weight(&format!("{name}.{attention}.to_q"), &[channels, channels]);
                list.weight(&format!("{name}.{attention}.to_k"), &[channels, others]);
                list.weight(&format!("{name}.{attention}.to_v"), &[channels, others]);
                list.linear(&format!("{name}.{attention}.to_out.0"), channels, channels);
            }
            list.linear(&format!("{name}.ff.net.0.proj"), channels, 8 * channels);
            list.linear(&format!("{name}.ff.net.2"), 4 * channels, channels);
        }
    }
}
