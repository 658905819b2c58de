//! Noise against `torch.randn`, bit by bit, and against the generator of stable-diffusion-webui.
//! `tools/reference/make_randn.py` and `make_philox.py` write the data.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use sd_pipeline::seed::{NormalStream, PhiloxStream};

fn reference(file: &str) -> BTreeMap<String, Vec<f32>> {
    let path = format!("{}/tests/fixtures/{file}", env!("CARGO_MANIFEST_DIR"));
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let values = |tensor: Tensor| tensor.flatten_all().unwrap().to_vec1().unwrap();
    tensors
        .into_iter()
        .map(|(name, tensor)| (name, values(tensor)))
        .collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// `seed42_n17` or `seed42_sequence_16_5_part1`: the seed, and what follows it.
fn split(name: &str) -> (u64, &str) {
    let (seed, rest) = name.strip_prefix("seed").unwrap().split_once('_').unwrap();
    (seed.parse().unwrap(), rest)
}

#[test]
fn every_count_gives_the_bits_of_torch() {
    let mut compared = 0;
    for (name, expected) in reference("randn.safetensors") {
        let (seed, rest) = split(&name);
        if let Some(count) = rest.strip_prefix('n') {
            let found = NormalStream::new(seed).normals(count.parse().unwrap());
            assert!(bits(&found) == bits(&expected), "{name}");
            compared += 1;
        }
    }
    assert!(compared >= 40, "only {compared} cases");
}

#[test]
fn draws_that_follow_each_other_give_the_bits_of_torch() {
    let reference = reference("randn.safetensors");
    let mut compared = 0;
    for name in reference.keys() {
        let (seed, rest) = split(name);
        let Some(counts) = rest
            .strip_prefix("sequence_")
            .and_then(|rest| rest.strip_suffix("_part0"))
        else {
            continue;
        };
        let mut stream = NormalStream::new(seed);
        for (part, count) in counts.split('_').enumerate() {
            let expected = &reference[&format!("seed{seed}_sequence_{counts}_part{part}")];
            let found = stream.normals(count.parse().unwrap());
            assert!(
                bits(&found) == bits(expected),
                "seed {seed}, {counts}, part {part}"
            );
            compared += 1;
        }
    }
    assert!(compared >= 20, "only {compared} draws");
}

#[test]
fn philox_gives_the_numbers_of_webui() {
    let mut streams = BTreeMap::new();
    let mut compared = 0;
    // Draws of one stream follow each other in the order of their names.
    for (name, expected) in reference("philox.safetensors") {
        let (seed, rest) = split(&name);
        let (count, _) = rest.split_once('_').unwrap();
        let stream = streams
            .entry((seed, count.to_owned()))
            .or_insert_with(|| PhiloxStream::new(seed));
        for (found, expected) in stream.normals(expected.len()).iter().zip(&expected) {
            // The logarithm and the sine are the system's: their last bit may differ.
            let tolerance = f32::EPSILON * expected.abs().max(f32::EPSILON);
            assert!(
                (found - expected).abs() <= tolerance,
                "{name}: {found} {expected}"
            );
            compared += 1;
        }
    }
    assert!(compared > 3 * 4 * 64 * 64, "only {compared} numbers");
}
