//! What `unet/config.json` says of the UNet.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// The shape of a UNet, or of a ControlNet, which has the first half of one. What is not there has diffusers' default.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The side of the latents that it was trained for.
    pub sample_size: Option<OneOrEach>,
    /// Channels that go in: those of latents, and for inpainting also those of a mask and of masked latents.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// What the levels are made of on the way down, the one of full resolution first.
    pub down_block_types: Vec<String>,
    /// What the middle is made of.
    pub mid_block_type: Option<String>,
    /// What the levels are made of on the way up, the one of full resolution last.
    pub up_block_types: Vec<String>,
    /// Channels of the levels, the one of full resolution first.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of a level on the way down; on the way up there is one more.
    pub layers_per_block: OneOrEach,
    /// Groups of the norms.
    pub norm_num_groups: usize,
    /// The epsilon of the norms of residual blocks.
    pub norm_eps: f64,
    /// Features of a token of text.
    pub cross_attention_dim: OneOrEach,
    /// Layers of the transformers of a level.
    pub transformer_layers_per_block: OneOrEach,
    /// Heads of the attention of a level. The reference implementation reads it so, against its name.
    pub attention_head_dim: OneOrEach,
    /// Features of a timestep inside, where they are not four times the channels of the first level.
    pub time_embedding_dim: Option<usize>,
    /// Features that the guidance scale is spread over, in a network that was distilled to be told it.
    pub time_cond_proj_dim: Option<usize>,
    /// What is added to the timestep: nothing, or `text_time`.
    pub addition_embed_type: Option<String>,
    /// Features that each added number is spread over.
    pub addition_time_embed_dim: Option<usize>,
    /// Features of all that is added: of the pooled text and of the numbers.
    pub projection_class_embeddings_input_dim: Option<usize>,
    /// Everything else, of which some settings must be as usual.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// One number for all levels, or one for each.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum OneOrEach {
    /// The same for all.
    One(usize),
    /// One for each; there are networks that have more than one for a level.
    Each(Vec<OneOrEach>),
}

impl OneOrEach {
    /// That of a level, if it is one.
    pub(crate) fn of(&self, level: usize) -> Option<usize> {
        match self {
            Self::One(number) => Some(*number),
            Self::Each(numbers) => match numbers.get(level)? {
                Self::One(number) => Some(*number),
                Self::Each(_) => None,
            },
        }
    }
}

/// A level of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) channels: usize,
    /// Residual blocks on the way down.
    pub(crate) residuals: usize,
    /// The transformers of this level, whichever way has some.
    pub(crate) transformer: TransformerShape,
    pub(crate) attends_down: bool,
    pub(crate) attends_up: bool,
}

/// The shape of the transformers of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TransformerShape {
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    /// Features of a token of text.
    pub(crate) context: usize,
}

impl Default for Config {
    fn default() -> Self {
        let names = |names: [&str; 4]| names.map(str::to_owned).to_vec();
        let [attends, plain] = ["CrossAttnDownBlock2D", "DownBlock2D"];
        let [attends_up, plain_up] = ["CrossAttnUpBlock2D", "UpBlock2D"];
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            down_block_types: names([attends, attends, attends, plain]),
            mid_block_type: Some(MIDDLE.to_owned()),
            up_block_types: names([plain_up, attends_up, attends_up, attends_up]),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: OneOrEach::One(2),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: OneOrEach::One(1280),
            transformer_layers_per_block: OneOrEach::One(1),
            attention_head_dim: OneOrEach::One(8),
            time_embedding_dim: None,
            time_cond_proj_dim: None,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            others: Map::new(),
        }
    }
}

/// The only middle that is known.
const MIDDLE: &str = "UNetMidBlock2DCrossAttn";

/// Settings of such networks of which only these values are known here. Where one is left out it has this value.
fn usual() -> Value {
    json!({
        "act_fn": "silu",
        "attention_type": "default",
        "center_input_sample": false,
        "class_embed_type": null,
        "class_embeddings_concat": false,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "cross_attention_norm": null,
        "downsample_padding": 1,
        "dual_cross_attention": false,
        "encoder_hid_dim": null,
        "encoder_hid_dim_type": null,
        "flip_sin_to_cos": true,
        "freq_shift": 0,
        "mid_block_only_cross_attention": false,
        "mid_block_scale_factor": 1,
        "num_attention_heads": null,
        "num_class_embeds": null,
        "only_cross_attention": false,
        "resnet_out_scale_factor": 1,
        "resnet_skip_time_act": false,
        "resnet_time_scale_shift": "default",
        "reverse_transformer_layers_per_block": null,
        "time_embedding_act_fn": null,
        "time_embedding_type": "positional",
        "timestep_post_act": null,
    })
}

impl Config {
    /// Rows and columns of the latents that the network was trained for, if it says.
    pub fn trained_size(&self) -> Option<(usize, usize)> {
        let sample_size = self.sample_size.as_ref()?;
        Some((sample_size.of(0)?, sample_size.of(1)?))
    }

    /// Features of a token of text in the first level, zero where it does not say.
    pub fn context_features(&self) -> usize {
        self.cross_attention_dim.of(0).unwrap_or(0)
    }

    /// Features of the pooled text that is added to the timestep beside `numbers` numbers, in a network that takes such.
    pub fn pooled_features(&self, numbers: usize) -> Option<usize> {
        let Added { numbers_spread, all } = self.added()?;
        all.checked_sub(numbers.checked_mul(numbers_spread)?)
    }

    /// How many numbers are added to the timestep beside a pooled text of `features` features, in a network that takes
    /// such: six (original size, crop and target size), or five (original size, crop and aesthetic score).
    pub fn added_numbers(&self, features: usize) -> Option<usize> {
        let Added { numbers_spread, all } = self.added()?;
        let rest = all.checked_sub(features)?;
        rest.is_multiple_of(numbers_spread).then(|| rest / numbers_spread)
    }

    pub(crate) fn added(&self) -> Option<Added> {
        self.addition_embed_type.as_ref()?;
        Some(Added {
            numbers_spread: self.addition_time_embed_dim?,
            all: self.projection_class_embeddings_input_dim?,
        })
    }

    /// Features of the vector that a timestep becomes.
    pub(crate) fn time_features(&self) -> usize {
        self.time_embedding_dim
            .unwrap_or(4 * self.block_out_channels.first().copied().unwrap_or(0))
    }

    /// The levels, the one of full resolution first. That of full resolution goes up last.
    ///
    /// # Errors
    /// The configuration cannot be that of the `network`.
    pub(crate) fn levels(&self, network: &'static str) -> Result<Vec<Level>> {
        let wrong = |reason: String| Error::Config { network, reason };
        let depth = self.block_out_channels.len();
        let level = |index: usize, &channels: &usize| {
            let one_of = |name: &str, setting: &OneOrEach, most: usize| match setting.of(index) {
                Some(number) if (1..=most).contains(&number) => Ok(number),
                Some(number) => Err(wrong(format!("{name} is {number} in level {index}"))),
                None => Err(wrong(format!(
                    "{name} is {setting:?}, and not a number for each of {depth} levels"
                ))),
            };
            let heads = one_of("attention_head_dim", &self.attention_head_dim, MOST_FEATURES)?;
            if channels == 0 || channels > MOST_FEATURES || channels % self.norm_num_groups.max(1) != 0 {
                return Err(wrong(format!(
                    "block_out_channels has {channels} channels, which cannot be normed in norm_num_groups {}",
                    self.norm_num_groups
                )));
            }
            let attends_down = attends("down_block_types", &self.down_block_types, index, network)?;
            let attends_up = match self.up_block_types.len() {
                // A ControlNet does not go up.
                0 => false,
                _ => attends("up_block_types", &self.up_block_types, depth - 1 - index, network)?,
            };
            if channels % heads != 0 && (attends_down || attends_up || index + 1 == depth) {
                return Err(wrong(format!(
                    "attention_head_dim is {heads}, the number of heads that {channels} channels cannot be shared by"
                )));
            }
            Ok(Level {
                channels,
                residuals: one_of("layers_per_block", &self.layers_per_block, MOST_LAYERS)?,
                transformer: TransformerShape {
                    layers: one_of(
                        "transformer_layers_per_block",
                        &self.transformer_layers_per_block,
                        MOST_LAYERS,
                    )?,
                    heads,
                    context: one_of("cross_attention_dim", &self.cross_attention_dim, MOST_FEATURES)?,
                },
                attends_down,
                attends_up,
            })
        };
        let levels = self.block_out_channels.iter().enumerate();
        levels.map(|(index, channels)| level(index, channels)).collect()
    }

    /// Whether the `network` can be what this says.
    pub(crate) fn check(&self, network: &'static str) -> Result<()> {
        let refuse = |reason: String| Err(Error::Config { network, reason });
        let depth = self.block_out_channels.len();
        if !(1..=8).contains(&depth) {
            return refuse(format!(
                "block_out_channels has {depth} levels, 1 to 8 are possible"
            ));
        }
        for (name, types) in [
            ("down_block_types", &self.down_block_types),
            ("up_block_types", &self.up_block_types),
        ] {
            if types.len() != depth && !(types.is_empty() && name == "up_block_types") {
                return refuse(format!(
                    "{name} has {} levels, block_out_channels has {depth}",
                    types.len()
                ));
            }
        }
        if self.mid_block_type.as_deref() != Some(MIDDLE) {
            return refuse(format!(
                "mid_block_type is {:?}, {MIDDLE} is known",
                self.mid_block_type
            ));
        }
        let counts = [
            ("in_channels", Some(self.in_channels)),
            ("out_channels", Some(self.out_channels)),
            ("norm_num_groups", Some(self.norm_num_groups)),
            ("time_embedding_dim", self.time_embedding_dim),
            ("time_cond_proj_dim", self.time_cond_proj_dim),
            ("addition_time_embed_dim", self.addition_time_embed_dim),
            (
                "projection_class_embeddings_input_dim",
                self.projection_class_embeddings_input_dim,
            ),
        ];
        for (name, count) in counts {
            if count.is_some_and(|count| !(1..=MOST_FEATURES).contains(&count)) {
                return refuse(format!("{name} is {count:?}"));
            }
        }
        match self.addition_embed_type.as_deref() {
            None => {}
            Some("text_time") if self.added().is_some() => {}
            Some("text_time") => {
                return refuse(
                    "addition_embed_type is text_time, without addition_time_embed_dim and \
                     projection_class_embeddings_input_dim"
                        .to_owned(),
                );
            }
            Some(other) => return refuse(format!("addition_embed_type is `{other}`, text_time is known")),
        }
        for (name, wanted) in usual().as_object().into_iter().flatten() {
            if let Some(found) = self.others.get(name)
                && !found.is_null()
                && !are_equal(found, wanted)
            {
                return refuse(format!("{name} is {found}, only {wanted} is known"));
            }
        }
        Ok(())
    }
}

/// The most features, and the most layers, that a network of this kind can be thought to have.
const MOST_FEATURES: usize = 1 << 16;
const MOST_LAYERS: usize = 1 << 8;

/// What is added to the timestep, in features.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Added {
    /// Of each number.
    pub(crate) numbers_spread: usize,
    /// Of all that is added: of the pooled text and of the numbers.
    pub(crate) all: usize,
}

/// Whether a level attends, by its type.
fn attends(setting: &str, types: &[String], index: usize, network: &'static str) -> Result<bool> {
    match types.get(index).map_or("", String::as_str) {
        "CrossAttnDownBlock2D" | "CrossAttnUpBlock2D" => Ok(true),
        "DownBlock2D" | "UpBlock2D" => Ok(false),
        other => Err(Error::Config {
            network,
            reason: format!("{setting} has a level of type `{other}`, which is not known"),
        }),
    }
}

/// Numbers are equal however they are written.
fn are_equal(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}
