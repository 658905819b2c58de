//! The arithmetic of the UNet: of its conditions, and of a forward pass by the shapes of its blocks.

use super::UNet;
use super::block_layout::{BlockKind, BlockSpec};
use super::config::Config;
use crate::feed_forward::{FeedForward, HiddenActivation};
use crate::{Load, Work};

impl UNet {
    /// The arithmetic of a forward pass.
    pub fn forward_work(&self, load: Load) -> Work {
        forward(&self.config, &self.layout, load)
    }
}

/// The arithmetic of a forward pass through the blocks of `layout`.
fn forward(config: &Config, layout: &[BlockSpec], load: Load) -> Work {
    let mut pass = CountedPass::new(load, config);
    for spec in layout {
        pass.pass(spec);
    }
    pass.work()
}

/// The arithmetic of the conditions of `steps` steps.
pub(crate) fn condition(config: &Config, load: Load, steps: usize) -> Work {
    let features = config.time_features();
    let pair = |rows: usize, inputs: usize| {
        Work::linear(rows, inputs, features).and(Work::linear(rows, features, features))
    };
    let spread = config.block_out_channels.first().copied().unwrap_or(0);
    let added = config
        .added_embedding()
        .map(|added| pair(load.texts, added.features));
    pair(steps, spread).and(added.unwrap_or_default())
}

/// A forward pass of one input, counted block by block.
#[derive(Debug)]
pub(crate) struct CountedPass {
    load: Load,
    time_features: usize,
    channels: usize,
    /// Rows and columns of the current feature map.
    size: (usize, usize),
    /// Those of the skip connections that are not used yet.
    skips: Vec<(usize, usize)>,
    work: Work,
}

impl CountedPass {
    pub(crate) fn new(load: Load, config: &Config) -> Self {
        Self {
            load,
            time_features: config.time_features(),
            channels: config.in_channels,
            size: load.latents,
            skips: Vec::new(),
            work: Work::default(),
        }
    }

    /// The arithmetic for all inputs.
    pub(crate) fn work(&self) -> Work {
        self.work.times(self.load.inputs)
    }

    /// Counts a block.
    pub(crate) fn pass(&mut self, spec: &BlockSpec) {
        match spec.kind {
            BlockKind::Entry { inputs, outputs } => self.convolution(inputs, outputs),
            BlockKind::Downsampler { channels } => {
                self.size = (self.size.0.div_ceil(2), self.size.1.div_ceil(2));
                self.convolution(channels, channels);
            }
            BlockKind::Residual {
                inputs,
                skip,
                outputs,
            } => self.residual(inputs, skip, outputs),
            BlockKind::TransformerEntry { channels } | BlockKind::TransformerExit { channels } => {
                self.elementwise(channels);
                self.add(Work::linear(self.pixels(), channels, channels));
            }
            BlockKind::TransformerLayer {
                channels, context, ..
            } => self.layer(channels, context),
            BlockKind::Upsampler { channels } => {
                let twice = (2 * self.size.0, 2 * self.size.1);
                self.size = self.skips.last().copied().unwrap_or(twice);
                self.convolution(channels, channels);
            }
            BlockKind::Exit { inputs, outputs } => {
                self.elementwise(inputs);
                self.convolution(inputs, outputs);
            }
        }
        self.channels = spec.kind.channels();
        if spec.is_skip {
            self.skips.push(self.size);
        }
    }

    /// Counts a 1x1 convolution of the current feature map, whose result is scaled and kept.
    pub(crate) fn keep(&mut self) {
        self.add(Work::conv2d(self.pixels(), self.channels, self.channels, 1));
        self.elementwise(self.channels);
    }

    fn residual(&mut self, inputs: usize, skip: usize, outputs: usize) {
        if skip > 0 {
            self.skips.pop();
            // The skip connection is concatenated.
            self.elementwise(inputs);
        }
        self.elementwise(inputs);
        self.convolution(inputs, outputs);
        self.add(Work::linear(self.load.texts, self.time_features, outputs));
        self.elementwise(outputs);
        self.convolution(outputs, outputs);
        if inputs != outputs {
            self.add(Work::conv2d(self.pixels(), inputs, outputs, 1));
        }
        self.elementwise(outputs);
    }

    fn layer(&mut self, channels: usize, context: usize) {
        let Load { texts, tokens, .. } = self.load;
        let (rows, patches) = (self.pixels(), self.size.0 * self.size.1);
        let projection = Work::linear(rows, channels, channels);
        self.elementwise(3 * channels);
        self.add(projection.times(4));
        self.add(Work::attention(patches, patches, channels).times(texts));
        self.add(projection.times(2));
        self.add(Work::linear(texts * tokens, context, channels).times(2));
        self.add(Work::attention(patches, tokens, channels).times(texts));
        self.add(FeedForward::work(HiddenActivation::Geglu, rows, channels));
    }

    fn convolution(&mut self, inputs: usize, outputs: usize) {
        self.add(Work::conv2d(self.pixels(), inputs, outputs, 3));
    }

    /// A norm, a sum or a copy of a feature map of `channels`.
    fn elementwise(&mut self, channels: usize) {
        self.add(Work::elementwise(self.pixels() * channels));
    }

    fn add(&mut self, work: Work) {
        self.work = self.work.and(work);
    }

    /// Pixels of the current feature map, of all texts.
    fn pixels(&self) -> usize {
        self.load.texts * self.size.0 * self.size.1
    }
}

#[cfg(test)]
mod tests {
    use super::super::block_layout;
    use super::super::config::OneOrEach;
    use super::*;

    /// Multiply-adds of Stable Diffusion 1.5 for 512x512, by hand: without those of attention, and these.
    fn by_hand() -> (u64, u64) {
        let conv = |pixels: u64, inputs: u64, outputs: u64| 9 * pixels * inputs * outputs;
        let residual = |pixels: u64, inputs: u64, outputs: u64| {
            let shortcut = if inputs == outputs {
                0
            } else {
                inputs * outputs * pixels
            };
            conv(pixels, inputs, outputs) + conv(pixels, outputs, outputs) + 1280 * outputs + shortcut
        };
        // Projections in and out, two attentions with four projections each, GEGLU of 8 and 4 widths.
        let transformer =
            |pixels: u64, width: u64| (2 + 4 + 2 + 8 + 4) * pixels * width * width + 2 * 77 * 768 * width;
        let attention = |pixels: u64, width: u64| 2 * pixels * width * (pixels + 77);
        let levels = [(4096, 320), (1024, 640), (256, 1280), (64, 1280_u64)];
        let mut linear = conv(4096, 4, 320) + conv(4096, 320, 4);
        let mut attentions = 0;
        let mut inputs = 320;
        for (level, &(pixels, width)) in levels.iter().enumerate() {
            linear += residual(pixels, inputs, width) + residual(pixels, width, width);
            if level < 3 {
                // Two on the way down, three on the way up.
                linear += 5 * transformer(pixels, width) + conv(pixels / 4, width, width);
                attentions += 5 * attention(pixels, width);
            }
            inputs = width;
        }
        linear += 2 * residual(64, 1280, 1280) + transformer(64, 1280);
        attentions += attention(64, 1280);
        // On the way up each block takes a skip connection: of its level twice or more, and of the next.
        let up = [
            (64, 1280, [1280 + 1280; 3]),
            (256, 1280, [1280 + 1280, 1280 + 1280, 1280 + 640]),
            (1024, 640, [1280 + 640, 640 + 640, 640 + 320]),
            (4096, 320, [640 + 320, 320 + 320, 320 + 320_u64]),
        ];
        for (pixels, width, inputs) in up {
            linear += inputs
                .iter()
                .map(|&inputs| residual(pixels, inputs, width))
                .sum::<u64>();
        }
        linear += conv(256, 1280, 1280) + conv(1024, 1280, 1280) + conv(4096, 640, 640);
        (linear, attentions)
    }

    #[test]
    fn stable_diffusion_15_counts_by_hand() {
        let config = Config {
            cross_attention_dim: OneOrEach::One(768),
            ..Config::default()
        };
        let layout = block_layout::full(&config, "UNet").unwrap();
        let load = Load {
            inputs: 1,
            texts: 1,
            tokens: 77,
            latents: (64, 64),
        };
        let found = forward(&config, &layout, load);
        let (linear, attentions) = by_hand();
        assert_eq!(found.multiply_adds, linear + attentions);
        // Kim et al., "BK-SDM: A Lightweight, Fast, and Cheap Version of Stable Diffusion", 2023, count 339
        // billion, without attention's products.
        assert!((337..341).contains(&(linear / 1_000_000_000)), "{linear}");
        let twice = forward(
            &config,
            &layout,
            Load {
                inputs: 2,
                texts: 2,
                ..load
            },
        );
        assert_eq!(twice, found.times(4));
    }
}
