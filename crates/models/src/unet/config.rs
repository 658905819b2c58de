//! The UNet's configuration, `unet/config.json`.

use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::counts::{self, MOST_FEATURES};
use crate::settings::{Known, refuse_others};
use crate::{Error, Result};

/// The configuration of a `UNet2DConditionModel`, or of a ControlNet, which has the down path of one.
/// Settings that are left out have diffusers' defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, expecting = "settings by their names")]
pub struct Config {
    /// Rows and columns of the latents that the network was trained on.
    pub sample_size: Option<OneOrEach>,
    /// Channels of the input: those of latents; for 9-channel inpainting also a mask and masked latents.
    pub in_channels: usize,
    /// Channels of the prediction.
    pub out_channels: usize,
    /// Types of the levels of the down path, the full resolution first.
    pub down_block_types: Vec<String>,
    /// Type of the middle block; null if there is none.
    pub mid_block_type: Option<String>,
    /// Types of the levels of the up path, the full resolution last.
    pub up_block_types: Vec<String>,
    /// Channels of the levels, the full resolution first.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of a level of the down path; the up path has one more.
    pub layers_per_block: OneOrEach,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// The epsilon of the group norms in residual blocks.
    pub norm_eps: f64,
    /// Features of a text token.
    pub cross_attention_dim: OneOrEach,
    /// Layers of the transformers of a level, or of each of the transformers of a level of the down path.
    pub transformer_layers_per_block: OneOrEach,
    /// The same for the up path, the lowest resolution first, if it is not the down path reversed.
    pub reverse_transformer_layers_per_block: Option<OneOrEach>,
    /// Attention heads of a level. The reference implementation reads the setting so, despite its name.
    pub attention_head_dim: OneOrEach,
    /// Whether the projections before and after a transformer are linear layers rather than 1x1 convolutions, which differ in
    /// the shape of their weights. Null is false.
    pub use_linear_projection: Option<bool>,
    /// Features of the time embedding, if they are not four times the channels of the first level.
    pub time_embedding_dim: Option<usize>,
    /// Features of the guidance embedding, in a guidance-distilled network.
    pub time_cond_proj_dim: Option<usize>,
    /// The kind of added conditions: none, or `text_time`.
    pub addition_embed_type: Option<String>,
    /// Features of the sinusoidal embedding of each time id.
    pub addition_time_embed_dim: Option<usize>,
    /// Features of the added conditions together: pooled text embedding and embedded time ids.
    pub projection_class_embeddings_input_dim: Option<usize>,
    /// All other settings, some of which must have their default.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// One number for all levels, or one for each.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a number, or a list with one for each level")]
pub enum OneOrEach {
    /// The same number for all levels.
    One(usize),
    /// One for each level; some networks have several numbers for a level.
    Each(Vec<OneOrEach>),
}

impl OneOrEach {
    /// The setting of a level, if there is one.
    pub(crate) fn at(&self, level: usize) -> Option<&Self> {
        match self {
            Self::One(_) => Some(self),
            Self::Each(numbers) => numbers.get(level),
        }
    }

    /// The number of a level, if the setting has a single number for it.
    pub(crate) fn of(&self, level: usize) -> Option<usize> {
        match self.at(level)? {
            Self::One(number) => Some(*number),
            Self::Each(_) => None,
        }
    }
}

/// Formats the setting as JSON.
impl fmt::Display for OneOrEach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(number) => write!(f, "{number}"),
            Self::Each(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", numbers.join(", "))
            }
        }
    }
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
            mid_block_type: Some(Self::ATTENDING_MIDDLE.to_owned()),
            up_block_types: names([plain_up, attends_up, attends_up, attends_up]),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: OneOrEach::One(2),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: OneOrEach::One(1280),
            transformer_layers_per_block: OneOrEach::One(1),
            reverse_transformer_layers_per_block: None,
            attention_head_dim: OneOrEach::One(8),
            use_linear_projection: None,
            time_embedding_dim: None,
            time_cond_proj_dim: None,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            others: Map::new(),
        }
    }
}

/// Settings of which only these values are supported. A setting that is left out has this value.
fn known() -> [Known; 25] {
    [
        ("act_fn", json!("silu")),
        ("attention_type", json!("default")),
        ("center_input_sample", json!(false)),
        ("class_embed_type", json!(null)),
        ("class_embeddings_concat", json!(false)),
        ("conv_in_kernel", json!(3)),
        ("conv_out_kernel", json!(3)),
        ("cross_attention_norm", json!(null)),
        ("downsample_padding", json!(1)),
        ("dual_cross_attention", json!(false)),
        ("encoder_hid_dim", json!(null)),
        ("encoder_hid_dim_type", json!(null)),
        ("flip_sin_to_cos", json!(true)),
        ("freq_shift", json!(0)),
        ("mid_block_only_cross_attention", json!(false)),
        ("mid_block_scale_factor", json!(1)),
        ("num_attention_heads", json!(null)),
        ("num_class_embeds", json!(null)),
        ("only_cross_attention", json!(false)),
        ("resnet_out_scale_factor", json!(1)),
        ("resnet_skip_time_act", json!(false)),
        ("resnet_time_scale_shift", json!("default")),
        ("time_embedding_act_fn", json!(null)),
        ("time_embedding_type", json!("positional")),
        ("timestep_post_act", json!(null)),
    ]
}

impl Config {
    /// A middle block with a transformer between two residual blocks.
    pub(crate) const ATTENDING_MIDDLE: &str = "UNetMidBlock2DCrossAttn";
    /// A middle block with one residual block.
    pub(crate) const PLAIN_MIDDLE: &str = "UNetMidBlock2D";

    /// Rows and columns of the latents that the network was trained on, if the configuration has them.
    pub fn trained_size(&self) -> Option<(usize, usize)> {
        let sample_size = self.sample_size.as_ref()?;
        Some((sample_size.of(0)?, sample_size.of(1)?))
    }

    /// Whether the file was written by a release of diffusers before `major.minor`. A file without a version
    /// was not.
    pub fn was_saved_before(&self, major: u64, minor: u64) -> bool {
        let version = self.others.get("_diffusers_version").and_then(Value::as_str);
        let mut numbers = version.unwrap_or_default().split('.').map(str::parse::<u64>);
        matches!((numbers.next(), numbers.next()), (Some(Ok(first)), Some(Ok(second))) if (first, second) < (major, minor))
    }

    /// Features of a text token in the first level; 0 if the configuration does not have them.
    pub fn context_features(&self) -> usize {
        self.cross_attention_dim.of(0).unwrap_or(0)
    }

    /// Features of the pooled text embedding in a network with added conditions, given the number of its
    /// `time_ids`.
    pub fn pooled_features(&self, time_ids: usize) -> Option<usize> {
        let AddedEmbedding {
            time_id_features,
            features,
        } = self.added_embedding()?;
        features.checked_sub(time_ids.checked_mul(time_id_features)?)
    }

    /// The number of time ids in a network with added conditions, given the features of its pooled text
    /// embedding: six (original size, crop and target size), or five (original size, crop and aesthetic
    /// score).
    pub fn time_id_count(&self, pooled_features: usize) -> Option<usize> {
        let AddedEmbedding {
            time_id_features,
            features,
        } = self.added_embedding()?;
        let rest = features.checked_sub(pooled_features)?;
        rest.is_multiple_of(time_id_features)
            .then(|| rest / time_id_features)
    }

    pub(crate) fn added_embedding(&self) -> Option<AddedEmbedding> {
        self.addition_embed_type.as_ref()?;
        Some(AddedEmbedding {
            time_id_features: self.addition_time_embed_dim?,
            features: self.projection_class_embeddings_input_dim?,
        })
    }

    /// Features of the time embedding.
    pub(crate) fn time_features(&self) -> usize {
        self.time_embedding_dim.unwrap_or_else(|| {
            self.block_out_channels
                .first()
                .map_or(0, |channels| channels.saturating_mul(4))
        })
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// A setting is impossible or not supported; the error names it.
    pub fn validate(&self) -> Result<()> {
        self.check(super::NETWORK)?;
        self.levels(super::NETWORK).map(drop)
    }

    /// Checks the settings, for errors that name the `network`.
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
        let each = |setting: &OneOrEach| match setting {
            OneOrEach::One(_) => None,
            OneOrEach::Each(numbers) => Some(numbers.len()),
        };
        let switches = self.others.get("only_cross_attention");
        for (name, count) in [
            ("layers_per_block", each(&self.layers_per_block)),
            ("cross_attention_dim", each(&self.cross_attention_dim)),
            ("attention_head_dim", each(&self.attention_head_dim)),
            (
                "transformer_layers_per_block",
                each(&self.transformer_layers_per_block),
            ),
            (
                "only_cross_attention",
                switches.and_then(Value::as_array).map(Vec::len),
            ),
        ] {
            if let Some(count) = count.filter(|&count| count != depth) {
                return refuse(format!(
                    "{name} has {count} levels, block_out_channels has {depth}"
                ));
            }
        }
        match self.mid_block_type.as_deref() {
            None | Some(Self::ATTENDING_MIDDLE | Self::PLAIN_MIDDLE) => {}
            Some(other) => {
                return refuse(format!(
                    "mid_block_type is `{other}`; {}, {} and null are known",
                    Self::ATTENDING_MIDDLE,
                    Self::PLAIN_MIDDLE
                ));
            }
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
            counts::check(network, MOST_FEATURES, &[(name, count.unwrap_or(1))])?;
        }
        counts::check_finite(network, &[("norm_eps", self.norm_eps)])?;
        match self.addition_embed_type.as_deref() {
            None => {}
            Some("text_time") if self.added_embedding().is_some() => {}
            Some("text_time") => {
                return refuse(
                    "addition_embed_type is text_time, without addition_time_embed_dim and \
                     projection_class_embeddings_input_dim"
                        .to_owned(),
                );
            }
            Some(other) => return refuse(format!("addition_embed_type is `{other}`, text_time is known")),
        }
        refuse_others(network, &self.others, &known())
    }
}

/// The features of the added conditions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AddedEmbedding {
    /// Of each embedded time id.
    pub(crate) time_id_features: usize,
    /// Of all together: pooled text embedding and embedded time ids.
    pub(crate) features: usize,
}
