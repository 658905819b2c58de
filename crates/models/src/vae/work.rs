//! The arithmetic of decoding and encoding one image. Bands change nothing about it.

use super::config::Config;
use crate::Work;

/// The arithmetic of decoding latents of `height` and `width`.
pub(super) fn decoding(config: &Config, height: usize, width: usize) -> Work {
    let lowest = config.block_out_channels.last().copied().unwrap_or(0);
    let mut pixels = height * width;
    let mut work =
        Work::conv2d(pixels, config.latent_channels, lowest, 3).and(middle(config, pixels, lowest));
    if config.use_post_quant_conv {
        work = work.and(Work::conv2d(
            pixels,
            config.latent_channels,
            config.latent_channels,
            1,
        ));
    }
    let mut inputs = lowest;
    for (index, &outputs) in config.block_out_channels.iter().rev().enumerate() {
        if index > 0 {
            pixels *= 4;
            work = work.and(Work::conv2d(pixels, inputs, inputs, 3));
        }
        work = work.and(residuals(pixels, inputs, outputs, config.layers_per_block + 1));
        inputs = outputs;
    }
    work.and(exit(pixels, inputs, config.out_channels))
}

/// The arithmetic of encoding an image whose latents have `height` and `width`.
pub(super) fn encoding(config: &Config, height: usize, width: usize) -> Work {
    let levels = &config.block_out_channels;
    let mut inputs = levels.first().copied().unwrap_or(0);
    let mut pixels = height * width * config.downsampling() * config.downsampling();
    let mut work = Work::conv2d(pixels, config.in_channels, inputs, 3);
    for (index, &outputs) in levels.iter().enumerate() {
        work = work.and(residuals(pixels, inputs, outputs, config.layers_per_block));
        if index + 1 < levels.len() {
            pixels /= 4;
            work = work.and(Work::conv2d(pixels, outputs, outputs, 3));
        }
        inputs = outputs;
    }
    let moments = 2 * config.latent_channels;
    if config.use_quant_conv {
        work = work.and(Work::conv2d(pixels, moments, moments, 1));
    }
    work.and(middle(config, pixels, inputs))
        .and(exit(pixels, inputs, moments))
}

/// `count` residual blocks, of which the first has `inputs` channels.
fn residuals(pixels: usize, inputs: usize, outputs: usize, count: usize) -> Work {
    let square = residual(pixels, outputs, outputs);
    residual(pixels, inputs, outputs).and(square.times(count.saturating_sub(1)))
}

fn residual(pixels: usize, inputs: usize, outputs: usize) -> Work {
    let shortcut = match inputs == outputs {
        true => Work::default(),
        false => Work::conv2d(pixels, inputs, outputs, 1),
    };
    // Two norms, and the sum.
    let elementwise = Work::elementwise(pixels * (inputs + 2 * outputs));
    Work::conv2d(pixels, inputs, outputs, 3)
        .and(Work::conv2d(pixels, outputs, outputs, 3))
        .and(shortcut)
        .and(elementwise)
}

fn middle(config: &Config, pixels: usize, channels: usize) -> Work {
    let attention = match config.mid_block_add_attention {
        true => Work::linear(pixels, channels, channels)
            .times(4)
            .and(Work::attention(pixels, pixels, channels))
            .and(Work::elementwise(pixels * channels)),
        false => Work::default(),
    };
    residual(pixels, channels, channels).times(2).and(attention)
}

/// The last norm and convolution.
fn exit(pixels: usize, inputs: usize, outputs: usize) -> Work {
    Work::elementwise(pixels * inputs).and(Work::conv2d(pixels, inputs, outputs, 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stable_diffusion() -> Config {
        Config {
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            ..Config::default()
        }
    }

    #[test]
    fn the_decoder_of_stable_diffusion_counts_by_hand() {
        let of_conv = |side: u64, inputs: u64, outputs: u64| side * side * 9 * inputs * outputs;
        let square = |side, channels| of_conv(side, channels, channels);
        let shortcut = |side: u64, inputs: u64, outputs: u64| side * side * inputs * outputs;
        let by_hand = [
            64 * 64 * 4 * 4,
            of_conv(64, 4, 512),
            // The middle block: four convolutions, four projections, attention.
            4 * square(64, 512) + 4 * shortcut(64, 512, 512) + 2 * 4096 * 4096 * 512,
            6 * square(64, 512),
            7 * square(128, 512),
            // Upsampled with 512 channels; three residual blocks to 256.
            square(256, 512) + of_conv(256, 512, 256) + 5 * square(256, 256) + shortcut(256, 512, 256),
            square(512, 256) + of_conv(512, 256, 128) + 5 * square(512, 128) + shortcut(512, 256, 128),
            of_conv(512, 128, 3),
        ];
        let work = decoding(&stable_diffusion(), 64, 64);
        assert_eq!(work.multiply_adds, by_hand.iter().sum::<u64>());
        // 1.24 TMACs of 512x512 pixels.
        assert!(
            (1.2e12..1.3e12).contains(&(work.multiply_adds as f64)),
            "{work:?}"
        );
    }

    #[test]
    fn the_encoder_takes_about_half_of_it() {
        let config = stable_diffusion();
        let [encoding, decoding] = [encoding, decoding].map(|of| of(&config, 64, 64).multiply_adds as f64);
        assert!(
            (0.4..0.5).contains(&(encoding / decoding)),
            "{encoding} {decoding}"
        );
    }
}
