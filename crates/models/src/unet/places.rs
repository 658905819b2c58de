//! The network as a list: which blocks it is made of, in the order of its forward pass.
//!
//! A residual block, a layer of a transformer and each smaller thing between them is a block of its own, so that two of
//! them, which is what is in memory of a network that is streamed, are small.

use super::config::Config;
use super::levels::{Level, Middle};
use crate::Result;

/// A block of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The scope of its weights.
    pub(crate) scope: String,
    pub(crate) part: Part,
    /// Whether its result is held for the way up; a ControlNet adds to what is held.
    pub(crate) is_held: bool,
    /// Whether its result is that of the middle; a ControlNet adds to it. Without a middle it is that of the way down.
    pub(crate) ends_middle: bool,
}

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The first convolution.
    Entry { inputs: usize, outputs: usize },
    /// A residual block. `joined` of its input's channels are those of a picture that was held on the way down.
    Residual {
        inputs: usize,
        joined: usize,
        outputs: usize,
    },
    /// From a picture to tokens, one a place.
    TransformerEntry { channels: usize },
    /// A layer of a transformer.
    TransformerLayer {
        channels: usize,
        heads: usize,
        /// Features of a token of text.
        context: usize,
    },
    /// From tokens back to the picture that they came from.
    TransformerExit { channels: usize },
    /// To half the size.
    Downsampler { channels: usize },
    /// To the size of the picture that was held last.
    Upsampler { channels: usize },
    /// The last norm and convolution.
    Exit { inputs: usize, outputs: usize },
}

impl Part {
    /// Channels of its result.
    pub(crate) fn channels(self) -> usize {
        match self {
            Self::Entry { outputs, .. } | Self::Residual { outputs, .. } | Self::Exit { outputs, .. } => {
                outputs
            }
            Self::TransformerEntry { channels }
            | Self::TransformerLayer { channels, .. }
            | Self::TransformerExit { channels }
            | Self::Downsampler { channels }
            | Self::Upsampler { channels } => channels,
        }
    }
}

/// The blocks of a UNet.
///
/// # Errors
/// The configuration cannot be that of the `network`.
pub(crate) fn whole(config: &Config, network: &'static str) -> Result<Vec<Place>> {
    let levels = config.levels(network)?;
    let mut list = List::down(config, &levels, config.middle(network)?);
    for (index, level) in levels.iter().rev().enumerate() {
        list.up(index, level, index + 1 == levels.len());
    }
    let inputs = list.channels;
    list.push(
        "",
        Part::Exit {
            inputs,
            outputs: config.out_channels,
        },
    );
    Ok(list.places)
}

/// The blocks of a UNet's way down and its middle, which a ControlNet has too.
///
/// # Errors
/// The configuration cannot be that of the `network`.
pub(crate) fn down(config: &Config, network: &'static str) -> Result<Vec<Place>> {
    Ok(List::down(config, &config.levels(network)?, config.middle(network)?).places)
}

/// A list that blocks are added to.
#[derive(Debug)]
struct List {
    places: Vec<Place>,
    /// Channels of what the last block gives.
    channels: usize,
    /// Channels of the pictures that are held.
    held: Vec<usize>,
}

impl List {
    fn down(config: &Config, levels: &[Level], middle: Middle) -> Self {
        let mut list = Self {
            places: Vec::new(),
            channels: 0,
            held: Vec::new(),
        };
        let outputs = levels[0].channels;
        list.push(
            "conv_in",
            Part::Entry {
                inputs: config.in_channels,
                outputs,
            },
        );
        list.channels = outputs;
        list.hold();
        for (index, level) in levels.iter().enumerate() {
            let block = format!("down_blocks.{index}");
            for (layer, transformer) in level.down.iter().enumerate() {
                list.residual(&format!("{block}.resnets.{layer}"), 0, level.channels);
                if let Some(layers) = transformer {
                    list.transformer(&format!("{block}.attentions.{layer}"), level, *layers);
                }
                list.hold();
            }
            if index + 1 < levels.len() {
                let channels = level.channels;
                list.push(
                    &format!("{block}.downsamplers.0.conv"),
                    Part::Downsampler { channels },
                );
                list.hold();
            }
        }
        let lowest = &levels[levels.len() - 1];
        match middle {
            Middle::Absent => {}
            Middle::Residual => list.residual("mid_block.resnets.0", 0, lowest.channels),
            Middle::Attends { layers } => {
                list.residual("mid_block.resnets.0", 0, lowest.channels);
                list.transformer("mid_block.attentions.0", lowest, layers);
                list.residual("mid_block.resnets.1", 0, lowest.channels);
            }
        }
        if let Some(last) = list.places.last_mut() {
            last.ends_middle = true;
        }
        list
    }

    fn up(&mut self, index: usize, level: &Level, is_last: bool) {
        let block = format!("up_blocks.{index}");
        for (layer, transformer) in level.up.iter().enumerate() {
            let joined = self.held.pop().unwrap_or_default();
            self.residual(&format!("{block}.resnets.{layer}"), joined, level.channels);
            if let Some(layers) = transformer {
                self.transformer(&format!("{block}.attentions.{layer}"), level, *layers);
            }
        }
        if !is_last {
            let channels = level.channels;
            self.push(
                &format!("{block}.upsamplers.0.conv"),
                Part::Upsampler { channels },
            );
        }
    }

    fn residual(&mut self, scope: &str, joined: usize, outputs: usize) {
        let inputs = self.channels + joined;
        self.push(
            scope,
            Part::Residual {
                inputs,
                joined,
                outputs,
            },
        );
        self.channels = outputs;
    }

    fn transformer(&mut self, scope: &str, level: &Level, layers: usize) {
        let channels = level.channels;
        self.push(scope, Part::TransformerEntry { channels });
        for layer in 0..layers {
            self.push(
                &format!("{scope}.transformer_blocks.{layer}"),
                Part::TransformerLayer {
                    channels,
                    heads: level.heads,
                    context: level.context,
                },
            );
        }
        self.push(scope, Part::TransformerExit { channels });
    }

    fn push(&mut self, scope: &str, part: Part) {
        self.places.push(Place {
            scope: scope.to_owned(),
            part,
            is_held: false,
            ends_middle: false,
        });
    }

    fn hold(&mut self) {
        self.held.push(self.channels);
        if let Some(last) = self.places.last_mut() {
            last.is_held = true;
        }
    }
}
