//! The text encoders against transformers' `CLIPTextModelWithProjection` and `T5EncoderModel`.

use crate::reference::{Case, compare};
use sd_models::clip::{Hidden, Wanted};
use sd_models::{Error, clip, t5};
use sd_weights::{Residency, WeightType};

fn wanted(hidden: Hidden, skip: usize) -> Wanted {
    Wanted {
        hidden,
        skip,
        pooled: false,
    }
}

fn clip_agrees(name: &str) {
    let case = Case::open("clip", name);
    let config: clip::Config = case.config();
    compare(&case, |weights| {
        let encoder = clip::TextEncoder::new(weights, &config).unwrap();
        let encode = |wanted| encoder.encode(&case.ids("input_ids"), wanted).unwrap();
        let both = encode(Wanted {
            pooled: true,
            ..wanted(Hidden::Penultimate, 0)
        });
        vec![
            ("penultimate", both.hidden),
            ("pooled", both.pooled.unwrap()),
            ("hidden", encode(wanted(Hidden::Normed, 0)).hidden),
        ]
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

/// Vectors of textual inversion, which `tools/reference/make_textual_inversion.py` adds to the token embeddings.
fn added_embeddings_agree(name: &str, is_pooled: bool) {
    let case = Case::open("clip", name).with_tensors("embeddings.safetensors");
    let config: clip::Config = case.config();
    let embeddings = case.tensor("embeddings");
    compare(&case, |weights| {
        let encoder = clip::TextEncoder::new(weights, &config).unwrap();
        let encoder = encoder.with_embeddings(embeddings).unwrap();
        let encode = |wanted| encoder.encode(&case.ids("input_ids"), wanted).unwrap();
        let penultimate = encode(Wanted {
            pooled: is_pooled,
            ..wanted(Hidden::Penultimate, 0)
        });
        let pooled = penultimate.pooled.map(|pooled| ("pooled", pooled));
        let mut found = vec![
            ("penultimate", penultimate.hidden),
            ("hidden", encode(wanted(Hidden::Normed, 0)).hidden),
        ];
        found.extend(pooled);
        found
    });
}

#[test]
fn embeddings_are_added_to_open_clip() {
    added_embeddings_agree("big", true);
}

#[test]
fn embeddings_are_added_to_clip() {
    added_embeddings_agree("plain", false);
}

#[test]
fn ids_beyond_the_added_embeddings_and_embeddings_of_another_width_are_refused() {
    let case = Case::open("clip", "plain").with_tensors("embeddings.safetensors");
    let config: clip::Config = case.config();
    let encoder = |embeddings| {
        let weights = case.weights(WeightType::F32, Residency::Streamed);
        let encoder = clip::TextEncoder::new(weights, &config).unwrap();
        encoder.with_embeddings(embeddings)
    };
    let embeddings = case.tensor("embeddings");
    let narrow = embeddings.narrow(1, 1, config.hidden_size - 1).unwrap();
    assert!(matches!(encoder(&narrow), Err(Error::Input { .. })));
    let fewer = encoder(&embeddings.narrow(0, 0, 2).unwrap()).unwrap();
    let encoded = fewer.encode(&case.ids("input_ids"), wanted(Hidden::Normed, 0));
    assert!(matches!(encoded, Err(Error::Input { .. })));
}

/// A network without a projection, and what becomes of its last layers.
fn plain_clip_agrees(name: &str) {
    let case = Case::open("clip", name);
    let config: clip::Config = case.config();
    compare(&case, |weights| {
        let encoder = clip::TextEncoder::new(weights, &config).unwrap();
        [
            ("hidden", Hidden::Normed, 0),
            ("skipped_1", Hidden::Normed, 1),
            ("skipped_2", Hidden::Normed, 2),
            ("penultimate", Hidden::Penultimate, 0),
            ("penultimate_skipped_1", Hidden::Penultimate, 1),
        ]
        .map(|(name, hidden, skip)| {
            let encoded = encoder.encode(&case.ids("input_ids"), wanted(hidden, skip));
            (name, encoded.unwrap().hidden)
        })
        .to_vec()
    });
}

#[test]
fn stable_diffusion_1_in_the_older_names() {
    plain_clip_agrees("older");
}

#[test]
fn stable_diffusion_2_in_the_newer_names() {
    plain_clip_agrees("plain");
}

#[test]
fn layers_that_there_are_not_cannot_be_skipped_nor_a_text_be_pooled_without_a_projection() {
    let case = Case::open("clip", "plain");
    let config: clip::Config = case.config();
    let weights = case.weights(WeightType::F32, Residency::Streamed);
    let encoder = clip::TextEncoder::new(weights, &config).unwrap();
    let encode = |wanted| encoder.encode(&case.ids("input_ids"), wanted);
    let layers = config.num_hidden_layers;
    assert!(encode(wanted(Hidden::Normed, layers)).is_ok());
    for (hidden, skip) in [
        (Hidden::Normed, layers + 1),
        (Hidden::Penultimate, layers),
        (Hidden::Penultimate, usize::MAX),
    ] {
        assert!(matches!(encode(wanted(hidden, skip)), Err(Error::Input { .. })));
    }
    let pooled = Wanted {
        pooled: true,
        ..wanted(Hidden::Normed, 0)
    };
    assert!(matches!(
        encode(pooled),
        Err(Error::Weights(sd_weights::Error::MissingTensor { .. }))
    ));
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
fn tokens_without_an_embedding_are_refused() {
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
            matches!(
                encoder.encode(&texts, wanted(Hidden::Normed, 0)),
                Err(Error::Input { .. })
            ),
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
