//! The text encoders against transformers' `CLIPTextModelWithProjection` and `T5EncoderModel`.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod reference;

use reference::{Case, compare};
use sd_models::{Error, clip, t5};
use sd_weights::{Residency, WeightType};

fn clip_agrees(name: &str) {
    let case = Case::open("clip", name);
    let config: clip::Config = case.config();
    compare(&case, |weights| {
        let encoded = clip::TextEncoder::new(weights, &config)
            .unwrap()
            .encode(&case.ids("input_ids"))
            .unwrap();
        vec![("penultimate", encoded.penultimate), ("pooled", encoded.pooled)]
    });
}

#[test]
fn clip_large_with_the_old_end_token() {
    clip_agrees("large");
}

#[test]
fn open_clip_with_its_end_token() {
    clip_agrees("big");
}

#[test]
fn t5_reads_a_text_longer_than_its_farthest_distance() {
    let case = Case::open("t5", "small");
    let config: t5::Config = case.config();
    compare(&case, |weights| {
        let encoder = t5::TextEncoder::new(weights, &config).unwrap();
        let encode = |ids| encoder.encode(&case.ids(ids)).unwrap();
        vec![
            ("hidden", encode("input_ids")),
            ("short_hidden", encode("short_input_ids")),
        ]
    });
}

#[test]
fn tokens_without_a_place_are_refused() {
    let case = Case::open("clip", "big");
    let config: clip::Config = case.config();
    let weights = case.weights(WeightType::F32, Residency::Streamed);
    let encoder = clip::TextEncoder::new(weights, &config).unwrap();
    let (unknown, longest) = (config.vocab_size as u32, config.max_position_embeddings);
    for texts in [
        vec![vec![unknown]],
        vec![vec![1; longest + 1]],
        vec![vec![1], vec![1, 2]],
        vec![vec![]],
        vec![],
    ] {
        assert!(
            matches!(encoder.encode(&texts), Err(Error::Input { .. })),
            "{texts:?}"
        );
    }
    let case = Case::open("t5", "small");
    let config: t5::Config = case.config();
    let weights = || case.weights(WeightType::F32, Residency::Streamed);
    let encoder = t5::TextEncoder::new(weights(), &config).unwrap();
    assert!(matches!(
        encoder.encode(&[vec![config.vocab_size as u32]]),
        Err(Error::Input { .. })
    ));
    let other = t5::Config {
        feed_forward_proj: "relu".to_owned(),
        ..config
    };
    assert!(matches!(
        t5::TextEncoder::new(weights(), &other),
        Err(Error::Config { .. })
    ));
}
