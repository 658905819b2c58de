//! What a walk over blocks reads, and when.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Device;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use sd_weights::{Blocks, Holding, ModelFolder, Residency, WeightType, Weights};

/// Three blocks, `layers.0` to `layers.2`, whose `weight` is their number; and how often one was read.
fn blocks(residency: Residency) -> (tempfile::TempDir, Blocks<f32>, Arc<AtomicUsize>) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("network")).unwrap();
    let values: Vec<[u8; 4]> = (0..3).map(|layer| (layer as f32).to_le_bytes()).collect();
    let tensors = values.iter().enumerate().map(|(layer, value)| {
        (
            format!("layers.{layer}.weight"),
            TensorView::new(Dtype::F32, vec![1], value).unwrap(),
        )
    });
    let path = directory.path().join("network/model.safetensors");
    safetensors::serialize_to_file(tensors, None, &path).unwrap();

    let checkpoint = ModelFolder::on_disk(directory.path())
        .checkpoint("network")
        .unwrap();
    let weights = Weights::new(
        checkpoint,
        Holding {
            device: Device::Cpu,
            weight_type: WeightType::AsStored,
            residency,
        },
    );
    let reads = Arc::new(AtomicUsize::new(0));
    let counter = reads.clone();
    let scopes = (0..3).map(|layer| weights.scope("layers").scope(layer));
    let blocks = Blocks::new(scopes, move |_, weights| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(weights.tensor("weight", &[1])?.to_vec1::<f32>()?[0])
    });
    (directory, blocks, reads)
}

fn walk(blocks: &Blocks<f32>) -> Vec<f32> {
    blocks.pass().unwrap().map(|block| *block.unwrap()).collect()
}

#[test]
fn resident_blocks_are_read_once() {
    let (_directory, blocks, reads) = blocks(Residency::Resident);
    assert_eq!(
        reads.load(Ordering::Relaxed),
        0,
        "nothing is read before it is asked for"
    );
    blocks.load().unwrap();
    assert_eq!(reads.load(Ordering::Relaxed), 3);
    assert_eq!(walk(&blocks), [0., 1., 2.]);
    assert_eq!(walk(&blocks), [0., 1., 2.]);
    assert_eq!(reads.load(Ordering::Relaxed), 3);
}

#[test]
fn streamed_blocks_are_read_for_every_pass_and_give_the_same() {
    let (_directory, blocks, reads) = blocks(Residency::Streamed);
    blocks.load().unwrap();
    assert_eq!(reads.load(Ordering::Relaxed), 0);
    assert_eq!(walk(&blocks), [0., 1., 2.]);
    assert_eq!(walk(&blocks), [0., 1., 2.]);
    assert_eq!(reads.load(Ordering::Relaxed), 6);
}

#[test]
fn a_block_that_cannot_be_read_is_an_error_in_its_turn() {
    let (directory, blocks, _) = blocks(Residency::Streamed);
    let path = directory.path().join("network/model.safetensors");
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(10).unwrap();
    assert!(blocks.pass().unwrap().next().unwrap().is_err());
}
