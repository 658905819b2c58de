//! Noise against `torch.randn`, bit by bit. `tools/reference/make_randn.py` writes the data.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use sd_pipeline::seed::NormalStream;

fn reference() -> BTreeMap<String, Vec<f32>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/randn.safetensors");
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
    for (name, expected) in reference() {
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
    let reference = reference();
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
