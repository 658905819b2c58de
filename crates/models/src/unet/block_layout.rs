//! The layout of the network: its blocks, in the order of its forward pass.
//!
//! Every residual block, every layer of a transformer and every smaller layer between them is a block of its
//! own. A streamed network keeps two blocks in memory, and both are small.

use super::config::Config;
use super::levels::{Level, Middle};
use crate::Result;

/// A block of the network: its scope, its kind, and its part in the skip connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockSpec {
    /// The scope of its weights.
    pub(crate) scope: String,
    pub(crate) kind: BlockKind,
    /// Whether its result is kept for the up path, as a skip connection. A ControlNet has a residual for
    /// each.
    pub(crate) is_skip: bool,
    /// Whether its result is that of the middle block, to which a ControlNet adds a residual. Without a
    /// middle block it is the last result of the down path.
    pub(crate) ends_middle: bool,
}

/// What a block computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockKind {
    /// The first convolution.
    Entry { inputs: usize, outputs: usize },
    /// A residual block. `skip` of its input's channels come from a skip connection.
    Residual {
        inputs: usize,
        skip: usize,
        outputs: usize,
    },
    /// From a feature map to tokens, one for each pixel.
    TransformerEntry { channels: usize },
    /// A layer of a transformer.
    TransformerLayer {
        channels: usize,
        heads: usize,
        /// Features of a text token.
        context: usize,
    },
    /// From tokens back to the feature map.
    TransformerExit { channels: usize },
    /// Halves the resolution.
    Downsampler { channels: usize },
    /// Doubles the resolution, to that of the last skip connection.
    Upsampler { channels: usize },
    /// The last norm and convolution.
    Exit { inputs: usize, outputs: usize },
}

impl BlockKind {
    /// Channels of the block's result.
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
/// The configuration is impossible for the `network`.
pub(crate) fn full(config: &Config, network: &'static str) -> Result<Vec<BlockSpec>> {
    let levels = config.levels(network)?;
    let mut builder = LayoutBuilder::down(config, &levels, config.middle(network)?);
    for (index, level) in levels.iter().rev().enumerate() {
        builder.up(index, level, index + 1 == levels.len());
    }
    let inputs = builder.channels;
    builder.push(
        "",
        BlockKind::Exit {
            inputs,
            outputs: config.out_channels,
        },
    );
    Ok(builder.blocks)
}

/// The blocks of a UNet's down path and middle block, which a ControlNet has too.
///
/// # Errors
/// The configuration is impossible for the `network`.
pub(crate) fn down_and_middle(config: &Config, network: &'static str) -> Result<Vec<BlockSpec>> {
    Ok(LayoutBuilder::down(config, &config.levels(network)?, config.middle(network)?).blocks)
}

impl Config {
    /// Channels of the skip connections, for each of which a ControlNet has a residual.
    ///
    /// # Errors
    /// The configuration is impossible for a UNet.
    pub fn skip_channels(&self) -> Result<Vec<usize>> {
        let mut way_down = self.clone();
        way_down.up_block_types.clear();
        way_down.check(super::NETWORK)?;
        let layout = down_and_middle(&way_down, super::NETWORK)?;
        let skips = layout.iter().filter(|spec| spec.is_skip);
        Ok(skips.map(|spec| spec.kind.channels()).collect())
    }
}

/// Builds the layout, block after block.
#[derive(Debug)]
struct LayoutBuilder {
    blocks: Vec<BlockSpec>,
    /// Channels of the last block's result.
    channels: usize,
    /// Channels of the skip connections that the up path has not used yet.
    skips: Vec<usize>,
}

impl LayoutBuilder {
    fn down(config: &Config, levels: &[Level], middle: Middle) -> Self {
        let mut builder = Self {
            blocks: Vec::new(),
            channels: 0,
            skips: Vec::new(),
        };
        let outputs = levels[0].channels;
        builder.push(
            "conv_in",
            BlockKind::Entry {
                inputs: config.in_channels,
                outputs,
            },
        );
        builder.channels = outputs;
        builder.push_skip();
        for (index, level) in levels.iter().enumerate() {
            let block = format!("down_blocks.{index}");
            for (layer, transformer) in level.down.iter().enumerate() {
                builder.residual(&format!("{block}.resnets.{layer}"), 0, level.channels);
                if let Some(layers) = transformer {
                    builder.transformer(&format!("{block}.attentions.{layer}"), level, *layers);
                }
                builder.push_skip();
            }
            if index + 1 < levels.len() {
                let channels = level.channels;
                builder.push(
                    &format!("{block}.downsamplers.0.conv"),
                    BlockKind::Downsampler { channels },
                );
                builder.push_skip();
            }
        }
        let lowest = &levels[levels.len() - 1];
        match middle {
            Middle::Absent => {}
            Middle::Residual => builder.residual("mid_block.resnets.0", 0, lowest.channels),
            Middle::Attends { layers } => {
                builder.residual("mid_block.resnets.0", 0, lowest.channels);
                builder.transformer("mid_block.attentions.0", lowest, layers);
                builder.residual("mid_block.resnets.1", 0, lowest.channels);
            }
        }
        if let Some(last) = builder.blocks.last_mut() {
            last.ends_middle = true;
        }
        builder
    }

    fn up(&mut self, index: usize, level: &Level, is_last: bool) {
        let block = format!("up_blocks.{index}");
        for (layer, transformer) in level.up.iter().enumerate() {
            let skip = self.skips.pop().unwrap_or_default();
            self.residual(&format!("{block}.resnets.{layer}"), skip, level.channels);
            if let Some(layers) = transformer {
                self.transformer(&format!("{block}.attentions.{layer}"), level, *layers);
            }
        }
        if !is_last {
            let channels = level.channels;
            self.push(
                &format!("{block}.upsamplers.0.conv"),
                BlockKind::Upsampler { channels },
            );
        }
    }

    fn residual(&mut self, scope: &str, skip: usize, outputs: usize) {
        let inputs = self.channels + skip;
        self.push(
            scope,
            BlockKind::Residual {
                inputs,
                skip,
                outputs,
            },
        );
        self.channels = outputs;
    }

    fn transformer(&mut self, scope: &str, level: &Level, layers: usize) {
        let channels = level.channels;
        self.push(scope, BlockKind::TransformerEntry { channels });
        for layer in 0..layers {
            self.push(
                &format!("{scope}.transformer_blocks.{layer}"),
                BlockKind::TransformerLayer {
                    channels,
                    heads: level.heads,
                    context: level.context,
                },
            );
        }
        self.push(scope, BlockKind::TransformerExit { channels });
    }

    fn push(&mut self, scope: &str, kind: BlockKind) {
        self.blocks.push(BlockSpec {
            scope: scope.to_owned(),
            kind,
            is_skip: false,
            ends_middle: false,
        });
    }

    fn push_skip(&mut self) {
        self.skips.push(self.channels);
        if let Some(last) = self.blocks.last_mut() {
            last.is_skip = true;
        }
    }
}
