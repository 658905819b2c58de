//! The arithmetic of an encoding.

use super::TextEncoder;
use super::config::Config;
use crate::Work;

impl TextEncoder {
    /// The arithmetic of encoding `texts` texts of `tokens` tokens.
    pub fn work(&self, texts: usize, tokens: usize) -> Work {
        encoding(&self.config, texts, tokens)
    }
}

fn encoding(config: &Config, texts: usize, tokens: usize) -> Work {
    let (rows, width) = (texts * tokens, config.hidden_size);
    let layer = [
        Work::elementwise(2 * rows * width),
        Work::linear(rows, width, width).times(4),
        Work::attention(tokens, tokens, width).times(texts),
        Work::linear(rows, width, config.intermediate_size),
        Work::linear(rows, config.intermediate_size, width),
    ];
    layer.into_iter().sum::<Work>().times(config.num_hidden_layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clip_large_counts_by_its_parameters() {
        let config = Config {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            ..Config::default()
        };
        let work = encoding(&config, 1, 77);
        // Every weight of a layer is used once by every token: 85 million of the 123 million that the encoder
        // of CLIP ViT-L/14 has, the others being embeddings.
        let weights = 12 * (4 * 768 * 768 + 2 * 768 * 3072);
        assert_eq!(weights, 84_934_656);
        assert_eq!(work.multiply_adds, 77 * weights + 12 * 2 * 77 * 77 * 768);
    }
}
