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
    let (rows, width) = (texts * tokens, config.d_model);
    let heads = config.num_heads * config.d_kv;
    let layer = [
        Work::elementwise(2 * rows * width),
        Work::linear(rows, width, heads).times(3),
        Work::attention(tokens, tokens, heads).times(texts),
        Work::linear(rows, heads, width),
        Work::linear(rows, width, config.d_ff).times(2),
        Work::linear(rows, config.d_ff, width),
    ];
    layer.into_iter().sum::<Work>().times(config.num_layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t5_xxl_counts_by_its_parameters() {
        let config = Config {
            d_model: 4096,
            d_kv: 64,
            d_ff: 10240,
            num_layers: 24,
            num_heads: 64,
            ..Config::default()
        };
        let work = encoding(&config, 1, 256);
        // Of the 4.76 billion weights of the encoder 0.13 billion are embeddings.
        let weights = 24 * (4 * 4096 * 4096 + 3 * 4096 * 10240);
        assert_eq!(weights, 4_630_511_616);
        assert_eq!(work.multiply_adds, 256 * weights + 24 * 2 * 256 * 256 * 4096);
    }
}
