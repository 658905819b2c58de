//! The predicted footprint of the text encoders against the allocator's count. A single test, so that nothing
//! else allocates in the meantime.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod synthetic;

use sd_models::clip::{Hidden, Wanted};
use sd_models::{WeightBytes, clip, t5};
use sd_weights::{CountingAllocator, Residency, allocated_bytes, allocated_peak, restart_allocated_peak};
use synthetic::assert_predicted;
use synthetic::networks::text::{Clip, T5};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// What is in memory of a list that is streamed.
fn window(weights: &WeightBytes) -> u64 {
    let largest = weights.blocks.windows(2).map(|two| two[0] + two[1]).max();
    weights.always + largest.unwrap()
}

#[test]
fn the_text_encoders_take_what_they_say() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let shape = T5 {
        width: 1024,
        inner: 2560,
        layers: 3,
        heads: 16,
        vocabulary: 2000,
    };
    let of_t5 = synthetic::weights(directories[0].path(), &shape.tensors(), Residency::Streamed);
    let config: t5::Config = serde_json::from_value(shape.config()).unwrap();
    let shape = Clip {
        width: 1024,
        layers: 4,
        heads: 16,
        activation: "gelu",
        projects: true,
    };
    let of_clip = synthetic::weights(directories[1].path(), &shape.tensors(), Residency::Streamed);
    let clip_config: clip::Config = serde_json::from_value(shape.config()).unwrap();

    let start = allocated_bytes();
    for (texts, tokens) in [(2, 256), (4, 512), (8, 256)] {
        let ids = vec![vec![7_u32; tokens]; texts];
        let encoder = t5::TextEncoder::new(of_t5.clone(), &config).unwrap();
        restart_allocated_peak();
        encoder.encode(&ids).unwrap();
        let predicted = window(&encoder.weight_bytes()) + encoder.footprint(texts, tokens).bytes();
        let measured = allocated_peak() - start;
        eprintln!("T5, {texts} texts of {tokens}: predicted {predicted}, measured {measured}");
        assert_predicted("T5", predicted, measured);
    }
    for (texts, hidden, skip) in [
        (2, Hidden::Penultimate, 0),
        (12, Hidden::Penultimate, 0),
        (24, Hidden::Penultimate, 0),
        (12, Hidden::Normed, 0),
        (12, Hidden::Normed, 2),
    ] {
        let ids = vec![vec![7_u32; Clip::POSITIONS]; texts];
        let wanted = Wanted {
            hidden,
            skip,
            pooled: true,
        };
        let encoder = clip::TextEncoder::new(of_clip.clone(), &clip_config).unwrap();
        restart_allocated_peak();
        encoder.encode(&ids, wanted).unwrap();
        let predicted = window(&encoder.weight_bytes()) + encoder.footprint(texts, Clip::POSITIONS).bytes();
        let measured = allocated_peak() - start;
        eprintln!("CLIP, {texts} texts, {wanted:?}: predicted {predicted}, measured {measured}");
        assert_predicted("CLIP", predicted, measured);
    }
}
