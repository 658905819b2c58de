//! The arithmetic of the transformer: of its conditions, and of a forward pass by the kinds of its blocks.

use super::block_kind::{BlockKind, ContextStream};
use super::control::ControlNet;
use super::entry::TIMESTEP_FEATURES;
use super::{Config, Transformer};
use crate::feed_forward::{FeedForward, HiddenActivation};
use crate::{Load, Work};

impl Transformer {
    /// The arithmetic of a forward pass, with `controls` running interleaved.
    pub fn forward_work(&self, load: Load, controls: &[&ControlNet]) -> Work {
        let of_controls: Work = controls.iter().map(|control| control.forward_work(load)).sum();
        forward(&self.config, &self.kinds, load).and(of_controls)
    }
}

/// The arithmetic of a forward pass through blocks of `kinds`, from latents to the prediction.
fn forward(config: &Config, kinds: &[BlockKind], load: Load) -> Work {
    let (rows, width) = (load.texts * patches(config, load), config.width());
    let pixels = config.patch_size * config.patch_size;
    embedding(config, config.in_channels, load)
        .and(blocks(config, kinds, load))
        .and(Work::elementwise(rows * width).times(load.inputs))
        .and(Work::linear(rows, width, pixels * config.predicted_channels()).times(load.inputs))
}

/// The arithmetic of the patch embedding of `channels`, for all inputs.
pub(super) fn embedding(config: &Config, channels: usize, load: Load) -> Work {
    let rows = load.texts * patches(config, load);
    let pixels = config.patch_size * config.patch_size;
    Work::linear(rows, pixels * channels, config.width()).times(load.inputs)
}

/// The arithmetic of blocks of `kinds`, for all inputs.
pub(super) fn blocks(config: &Config, kinds: &[BlockKind], load: Load) -> Work {
    let of = |kind: &BlockKind| block(config, *kind, load);
    kinds.iter().map(of).sum::<Work>().times(load.inputs)
}

fn block(config: &Config, kind: BlockKind, load: Load) -> Work {
    let (patches, width) = (patches(config, load), config.width());
    let Load { texts, tokens, .. } = load;
    let read = match kind.context {
        ContextStream::None => 0,
        ContextStream::KeysValuesOnly | ContextStream::Full => tokens,
    };
    let heads = |tokens: usize| {
        Work::elementwise(texts * tokens * width).and(Work::linear(texts * tokens, width, 3 * width))
    };
    let attention = |tokens: usize| Work::attention(tokens, tokens, width).times(texts);
    let output = |tokens: usize| Work::linear(texts * tokens, width, width);
    let feed_forward = |tokens: usize| {
        let rows = texts * tokens;
        FeedForward::work(HiddenActivation::GeluTanh, rows, width).and(Work::elementwise(rows * width))
    };
    let after = |tokens: usize| output(tokens).and(feed_forward(tokens));
    let second = if kind.dual_attention {
        heads(patches).and(attention(patches)).and(output(patches))
    } else {
        Work::default()
    };
    let of_text = match kind.context {
        ContextStream::Full => after(tokens),
        ContextStream::KeysValuesOnly | ContextStream::None => Work::default(),
    };
    [
        heads(patches),
        heads(read),
        attention(patches + read),
        after(patches),
        second,
        of_text,
    ]
    .into_iter()
    .sum()
}

/// The arithmetic of the conditions of `steps` steps for blocks of `kinds`.
pub(super) fn condition(config: &Config, kinds: &[BlockKind], load: Load, steps: usize) -> Work {
    let (rows, width) = (steps * load.texts, config.width());
    let pair =
        |rows: usize, inputs: usize| Work::linear(rows, inputs, width).and(Work::linear(rows, width, width));
    let parts = kinds.iter().map(|kind| kind.image_parts() + kind.text_parts());
    let context = if kinds.iter().any(|kind| kind.context != ContextStream::None) {
        Work::linear(load.texts * load.tokens, config.joint_attention_dim, width)
    } else {
        Work::default()
    };
    [
        pair(steps, TIMESTEP_FEATURES),
        pair(load.texts, config.pooled_projection_dim),
        context,
        Work::linear(rows, width, parts.sum::<usize>() * width),
    ]
    .into_iter()
    .sum()
}

/// Image tokens of a text.
pub(super) fn patches(config: &Config, load: Load) -> usize {
    let (height, width) = load.latents;
    (height / config.patch_size) * (width / config.patch_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_diffusion_3_medium_counts_by_hand() {
        let config = Config {
            num_layers: 24,
            num_attention_heads: 24,
            caption_projection_dim: 1536,
            ..Config::default()
        };
        let load = Load {
            inputs: 1,
            texts: 1,
            tokens: 77 + 256,
            latents: (128, 128),
        };
        let (image, text, width) = (4096_u64, 333, 1536_u64);
        // Every token passes through 12 matrices of the width squared in a block: queries, keys, values,
        // output, and twice four in the feed-forward layer. In the last block the text gives queries, keys
        // and values alone.
        let tokens = 24 * 12 * image + (23 * 12 + 3) * text;
        let attention = 24 * 2 * (image + text).pow(2) * width;
        let ends = 2 * image * 16 * 4 * width;
        let found = forward(&config, &config.kinds(), load).multiply_adds;
        assert_eq!(found, tokens * width * width + attention + ends);
        // Each of two texts is as much as one.
        let both = forward(&config, &config.kinds(), Load { texts: 2, ..load }).multiply_adds;
        assert_eq!(both, 2 * found);
    }
}
