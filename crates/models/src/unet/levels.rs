//! The levels of a UNet and its middle block, from its configuration.

use super::config::{Config, OneOrEach};
use crate::counts::{MOST_FEATURES, MOST_LAYERS};
use crate::{Error, Result};

/// A level of the network: the blocks of one resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Level {
    pub(crate) channels: usize,
    /// For each residual block of the down path the layers of the transformer after it, if there is one.
    pub(crate) down: Vec<Option<usize>>,
    /// The same for the up path, which has one residual block more. Empty in a network without an up path.
    pub(crate) up: Vec<Option<usize>>,
    /// Attention heads of the transformers.
    pub(crate) heads: usize,
    /// Features of a text token.
    pub(crate) context: usize,
}

/// The middle block, between the down path and the up path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Middle {
    /// Nothing.
    Absent,
    /// A residual block.
    Residual,
    /// A transformer of `layers` layers between two residual blocks.
    Attends { layers: usize },
}

/// The path of the network that a transformer is on.
#[derive(Debug, Clone, Copy)]
enum Direction {
    Down,
    Up,
}

impl Config {
    /// The levels, the full resolution first, whose up path is the last.
    ///
    /// # Errors
    /// The configuration is impossible for the `network`.
    pub(crate) fn levels(&self, network: &'static str) -> Result<Vec<Level>> {
        let wrong = |reason: String| Error::Config { network, reason };
        let depth = self.block_out_channels.len();
        let middle_attends = self.mid_block_type.as_deref() == Some(Self::ATTENDING_MIDDLE);
        let level = |index: usize, &channels: &usize| {
            let one_of = |name: &str, setting: &OneOrEach, most: usize| match setting.of(index) {
                Some(number) if (1..=most).contains(&number) => Ok(number),
                Some(number) => Err(wrong(format!("{name} is {number} in level {index}"))),
                None => Err(wrong(format!(
                    "{name} is {setting}, and not a number for each of {depth} levels"
                ))),
            };
            let heads = one_of("attention_head_dim", &self.attention_head_dim, MOST_FEATURES)?;
            if channels == 0 || channels > MOST_FEATURES || channels % self.norm_num_groups.max(1) != 0 {
                return Err(wrong(format!(
                    "block_out_channels has {channels} channels, which cannot be normed in norm_num_groups {}",
                    self.norm_num_groups
                )));
            }
            let residuals = one_of("layers_per_block", &self.layers_per_block, MOST_LAYERS)?;
            let down = self.transformers(Direction::Down, index, residuals, network)?;
            let up = match self.up_block_types.len() {
                // A ControlNet has no up path.
                0 => Vec::new(),
                _ => self.transformers(Direction::Up, index, residuals + 1, network)?,
            };
            let attends = down.iter().chain(&up).any(Option::is_some);
            if channels % heads != 0 && (attends || middle_attends && index + 1 == depth) {
                return Err(wrong(format!(
                    "attention_head_dim is {heads}, the number of heads that {channels} channels cannot be shared by"
                )));
            }
            Ok(Level {
                channels,
                down,
                up,
                heads,
                context: one_of("cross_attention_dim", &self.cross_attention_dim, MOST_FEATURES)?,
            })
        };
        let levels = self.block_out_channels.iter().enumerate();
        levels.map(|(index, channels)| level(index, channels)).collect()
    }

    /// The middle block, between the down path and the up path.
    ///
    /// # Errors
    /// The configuration is impossible for the `network`.
    pub(crate) fn middle(&self, network: &'static str) -> Result<Middle> {
        match self.mid_block_type.as_deref() {
            None => Ok(Middle::Absent),
            Some(Self::PLAIN_MIDDLE) => Ok(Middle::Residual),
            Some(_) => {
                let (name, setting) = ("transformer_layers_per_block", &self.transformer_layers_per_block);
                let lowest = self.block_out_channels.len().saturating_sub(1);
                let layers = layers_at(name, setting, lowest, 1, network)?;
                Ok(Middle::Attends { layers: layers[0] })
            }
        }
    }

    /// The layers of the transformer after each of the `residuals` residual blocks of the level at `index`,
    /// counted from full resolution.
    fn transformers(
        &self,
        direction: Direction,
        index: usize,
        residuals: usize,
        network: &'static str,
    ) -> Result<Vec<Option<usize>>> {
        let from_lowest = self.block_out_channels.len() - 1 - index;
        let attends = match direction {
            Direction::Down => attends("down_block_types", &self.down_block_types, index, network)?,
            Direction::Up => attends("up_block_types", &self.up_block_types, from_lowest, network)?,
        };
        if !attends {
            return Ok(vec![None; residuals]);
        }
        let setting = &self.transformer_layers_per_block;
        let (name, setting, at) = match (direction, &self.reverse_transformer_layers_per_block) {
            (Direction::Down, _) => ("transformer_layers_per_block", setting, index),
            (Direction::Up, Some(reverse @ OneOrEach::Each(_))) => {
                ("reverse_transformer_layers_per_block", reverse, from_lowest)
            }
            (Direction::Up, Some(OneOrEach::One(number))) => {
                return Err(Error::Config {
                    network,
                    reason: format!("reverse_transformer_layers_per_block is {number}, a list is known"),
                });
            }
            (Direction::Up, None) if matches!(setting.at(index), Some(OneOrEach::Each(_))) => {
                return Err(Error::Config {
                    network,
                    reason: format!(
                        "transformer_layers_per_block is {setting}, which says nothing of the way up without \
                         reverse_transformer_layers_per_block"
                    ),
                });
            }
            (Direction::Up, None) => ("transformer_layers_per_block", setting, index),
        };
        let layers = layers_at(name, setting, at, residuals, network)?;
        Ok(layers.into_iter().map(Some).collect())
    }
}

/// The layers of the first `count` transformers of the level at `index`, from the `setting` called `name`.
fn layers_at(
    name: &str,
    setting: &OneOrEach,
    index: usize,
    count: usize,
    network: &'static str,
) -> Result<Vec<usize>> {
    let layers: Option<Vec<usize>> = match setting.at(index) {
        Some(OneOrEach::One(number)) => Some(vec![*number; count]),
        Some(each) => (0..count).map(|transformer| each.of(transformer)).collect(),
        None => None,
    };
    match layers {
        Some(layers) if layers.iter().all(|layers| *layers <= MOST_LAYERS) => Ok(layers),
        _ => Err(Error::Config {
            network,
            reason: format!(
                "{name} is {setting}, which says of no {count} transformers what they are in level {index}"
            ),
        }),
    }
}

/// Whether a level has transformers, by its type.
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
