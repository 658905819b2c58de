//! The memory of decoding and encoding beside the weights: forward passes simulated by their shapes.

use candle_core::DType;
use sd_ops::{Capabilities, Scratch};

use super::banded::Banding;
use super::config::Config;
use crate::footprint::Peak;

/// What the kernels of a device take, and in which type they compute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernels {
    pub(super) capabilities: &'static Capabilities,
    pub(super) activation_type: DType,
}

/// The memory of decoding `batch` latents of `height` and `width`.
pub(super) fn decoding(
    config: &Config,
    banding: Banding,
    kernels: Kernels,
    [batch, height, width]: [usize; 3],
) -> Peak {
    let levels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
    let size = [batch * width, height];
    let (mut pass, mut level) = Pass::begin(banding, kernels, size, [config.latent_channels, levels[0]]);
    pass.middle(level, levels[0], config.mid_block_add_attention);
    let mut inputs = levels[0];
    for (index, &outputs) in levels.iter().enumerate() {
        if index == 0 {
            pass.residual(level, inputs, outputs);
        } else {
            let larger = level.upsampled(inputs, banding);
            pass.upsampled_residual(level, larger, inputs, outputs);
            level = larger;
        }
        for _ in 0..config.layers_per_block {
            pass.residual(level, outputs, outputs);
        }
        inputs = outputs;
    }
    pass.exit(level, inputs, config.out_channels);
    pass.peak()
}

/// The memory of encoding `batch` images whose latents have `height` and `width`.
pub(super) fn encoding(
    config: &Config,
    banding: Banding,
    kernels: Kernels,
    [batch, height, width]: [usize; 3],
) -> Peak {
    let (levels, factor) = (&config.block_out_channels, config.downsampling());
    let size = [batch * width * factor, height * factor];
    let (mut pass, mut level) = Pass::begin(banding, kernels, size, [config.in_channels, levels[0]]);
    let mut inputs = levels[0];
    for (index, &outputs) in levels.iter().enumerate() {
        for layer in 0..config.layers_per_block {
            pass.residual(level, if layer == 0 { inputs } else { outputs }, outputs);
        }
        inputs = outputs;
        if index + 1 < levels.len() {
            pass.downsampling(level, outputs);
            level = Level::split(level.line / 2, level.height / 2, outputs, banding);
        }
    }
    pass.middle(level, inputs, config.mid_block_add_attention);
    pass.exit(level, inputs, 2 * config.latent_channels);
    pass.peak()
}

/// The size of a feature map and its bands. Results are numbers of values.
#[derive(Debug, Clone, Copy)]
struct Level {
    /// Pixels of a row, over the whole batch.
    line: usize,
    height: usize,
    /// Rows of a band.
    rows: usize,
}

impl Level {
    fn split(line: usize, height: usize, channels: usize, banding: Banding) -> Self {
        Self {
            line,
            height,
            rows: banding.rows(line * channels).min(height),
        }
    }

    /// The level after upsampling by 2, in the bands that an upsampler makes.
    fn upsampled(self, channels: usize, banding: Banding) -> Self {
        let smaller = banding.smaller_rows(self.line, channels);
        Self {
            line: 2 * self.line,
            height: 2 * self.height,
            rows: 2 * smaller.min(self.height),
        }
    }

    fn image(self, channels: usize) -> usize {
        self.line * self.height * channels
    }

    fn band(self, channels: usize) -> usize {
        self.line * self.rows * channels
    }

    /// `count` bands, or all of them.
    fn bands(self, count: usize, channels: usize) -> usize {
        (count * self.band(channels)).min(self.image(channels))
    }

    /// A band with the rows around it.
    fn gathered(self, channels: usize) -> usize {
        self.line * (self.rows + 2) * channels
    }
}

/// A simulated forward pass and its peak so far.
#[derive(Debug)]
struct Pass {
    banding: Banding,
    kernels: Kernels,
    most: Peak,
}

impl Pass {
    /// A pass of an input of `line` pixels a row over the whole batch, with its first convolution.
    fn begin(
        banding: Banding,
        kernels: Kernels,
        [line, height]: [usize; 2],
        [inputs, outputs]: [usize; 2],
    ) -> (Self, Level) {
        let level = Level::split(line, height, outputs, banding);
        let mut pass = Self {
            banding,
            kernels,
            most: Peak::default(),
        };
        pass.entry(level, inputs, outputs);
        (pass, level)
    }

    fn peak(self) -> Peak {
        self.most
    }

    /// Records a moment with the given values and shared scratch floats.
    fn reach(&mut self, activations: usize, shared: usize) {
        self.most.reach(activations, shared);
    }

    /// Records the scratch of an operation. Returns the floats that its threads share.
    fn run(&mut self, scratch: Scratch) -> usize {
        self.most.run(scratch)
    }

    /// The 3x3 convolution before the first level.
    fn entry(&mut self, level: Level, inputs: usize, outputs: usize) {
        let shared = self.run(Scratch::of_conv2d(inputs, outputs, 3));
        let held = level.image(inputs.max(outputs)) + level.bands(2, inputs);
        self.reach(held, shared + level.gathered(inputs));
    }

    /// A residual block with a stored input.
    fn residual(&mut self, level: Level, inputs: usize, outputs: usize) {
        let (input, result) = (level.image(inputs), level.image(outputs));
        let first = level.gathered(inputs) + self.run(Scratch::of_conv2d(inputs, outputs, 3));
        let second = level.gathered(outputs) + self.run(Scratch::of_conv2d(outputs, outputs, 3));
        let (carried, hidden) = (level.bands(3, outputs), level.bands(2, outputs));
        if level.image(inputs.max(2 * outputs)) <= self.banding.stored {
            if inputs == outputs {
                // The input is what is carried.
                self.reach(input + result, first);
            } else {
                self.reach(input + carried, first);
                self.reach(2 * result + level.bands(2, inputs), first);
            }
            self.reach(2 * result + level.band(outputs), second);
        } else if inputs == outputs {
            self.reach(input + hidden + level.band(outputs), first + second);
        } else {
            self.reach(input + carried + hidden, first + second);
            self.reach(result + level.bands(2, inputs) + carried, first + second);
        }
    }

    /// A residual block whose input is upsampled on the fly.
    fn upsampled_residual(&mut self, smaller: Level, level: Level, inputs: usize, outputs: usize) {
        let weights = self.run(self.kernels.capabilities.upsampled_conv2d_scratch(inputs, inputs));
        let piece = Level {
            rows: level.rows / 2,
            ..smaller
        };
        // Two pieces of the smaller image, and the band of it that they are split from.
        let pieces = piece.bands(2, inputs) + smaller.band(inputs);
        let before = piece.gathered(inputs) + weights;
        let below = smaller.image(inputs);
        if level.image(inputs) <= self.banding.stored {
            self.reach(below.max(level.image(inputs)) + pieces, before);
            return self.residual(level, inputs, outputs);
        }
        let first = level.gathered(inputs) + self.run(Scratch::of_conv2d(inputs, outputs, 3));
        let second = level.gathered(outputs) + self.run(Scratch::of_conv2d(outputs, outputs, 3));
        let (carried, hidden) = (level.bands(3, outputs), level.bands(2, outputs));
        // Where there is no shortcut, what is carried are the bands of the input themselves.
        let input = |count: usize| {
            if inputs == outputs {
                0
            } else {
                level.bands(count, inputs)
            }
        };
        let at_first = input(2) + hidden + carried;
        let at_second = input(1) + hidden + carried + level.band(outputs);
        let held = below.max(level.image(outputs));
        self.reach(held + pieces + at_first.max(at_second), before + first + second);
    }

    /// A 3x3 convolution of stride 2. Rows are regrouped to pairs before it and to bands after it.
    fn downsampling(&mut self, level: Level, channels: usize) {
        let shared = self.run(Scratch::of_conv2d(channels, channels, 3));
        let held = level.image(channels) + level.bands(3, channels);
        self.reach(held, shared + level.gathered(channels));
    }

    /// The middle block.
    fn middle(&mut self, level: Level, channels: usize, attention: bool) {
        self.residual(level, channels, channels);
        if attention {
            self.run(Scratch::of_linear());
            let Kernels {
                capabilities,
                activation_type,
            } = self.kernels;
            let shared = self.run(capabilities.attention_scratch(channels, activation_type));
            // The image, queries, keys, values and the result.
            self.reach(5 * level.image(channels), shared);
        }
    }

    /// A group norm and a 3x3 convolution, whose result is joined.
    fn exit(&mut self, level: Level, inputs: usize, outputs: usize) {
        let shared = self.run(Scratch::of_conv2d(inputs, outputs, 3));
        let held = level.image(inputs) + level.bands(2, outputs);
        self.reach(held, shared + level.gathered(inputs));
        self.reach(2 * level.image(outputs), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gigabytes of decoding with the autoencoder of Stable Diffusion 3.5 and two threads.
    fn decoding_takes(side: usize) -> f64 {
        let config = Config {
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            latent_channels: 16,
            use_post_quant_conv: false,
            ..Config::default()
        };
        let latents = [1, side / 8, side / 8];
        let kernels = Kernels {
            capabilities: Capabilities::of(&candle_core::Device::Cpu),
            activation_type: DType::F32,
        };
        let peak = decoding(
            &config,
            config.banding([1, side / 8, side / 8], kernels.capabilities),
            kernels,
            latents,
        );
        let bytes = 4 * (peak.activations + peak.shared) as u64 + 2 * peak.per_thread;
        bytes as f64 / f64::from(1 << 30)
    }

    #[test]
    fn decoding_takes_little_more_than_the_largest_stored_image() {
        // Weights of 32 bits take another 0.2 GB.
        for (side, held, most) in [(512, 0.125, 0.35), (1024, 0.5, 0.7), (2048, 2.0, 2.3)] {
            let peak = decoding_takes(side);
            assert!((held..most).contains(&peak), "{side}: {peak} GB");
        }
    }
}
