//! The memory of streaming, and equal values at every residency. A single test, so that nothing else
//! allocates in the meantime.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

use candle_core::{Device, Tensor};
use half::bf16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use sd_weights::{
    Blocks, CountingAllocator, ModelFolder, PageCache, Residency, WeightOptions, WeightType, Weights,
    allocated_bytes, allocated_peak, restart_allocated_peak,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const BLOCKS: usize = 10;
const VALUES: usize = 3 << 20;
const BLOCK_BYTES: u64 = 2 * VALUES as u64 + 2 * 100;

#[test]
fn a_window_is_held_and_the_values_are_the_same() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("network")).unwrap();
    write(&directory.path().join("network/model.safetensors"));
    let folder = ModelFolder::on_disk(directory.path());

    // What threads hold from their beginning on is none of the blocks'.
    rayon::broadcast(|_| ());
    let expected: Vec<f64> = (0..BLOCKS).map(sum_of).collect();
    for (residency, page_cache, is_loaded_first) in [
        (Residency::Resident, PageCache::Keep, true),
        (Residency::Resident, PageCache::Keep, false),
        (Residency::Streamed, PageCache::Keep, true),
        (Residency::Streamed, PageCache::Release, true),
        (Residency::Partly(4), PageCache::Release, true),
        (Residency::Partly(4), PageCache::Release, false),
    ] {
        let checkpoint = folder.checkpoint("network").unwrap();
        let mut options = WeightOptions::new(Device::Cpu, WeightType::AsStored, residency);
        options.page_cache = page_cache;
        let weights = Weights::new(checkpoint, options);
        let before = allocated_bytes();
        restart_allocated_peak();
        let blocks = Blocks::new((0..BLOCKS).map(|block| weights.scope(block)), |_, weights| {
            Ok([
                weights.tensor("weight", &[VALUES])?,
                weights.tensor("bias", &[100])?,
            ])
        })
        .unwrap();
        if is_loaded_first {
            blocks.load().unwrap();
        }
        for _ in 0..3 {
            let sums: Vec<f64> = blocks.pass().unwrap().map(|block| sum(&block.unwrap())).collect();
            assert_eq!(sums, expected, "{residency:?}");
        }
        let kept = residency.kept_of(BLOCKS);
        let window = if kept == BLOCKS { 0 } else { Residency::WINDOW };
        let held = (kept + window) as u64 * BLOCK_BYTES;
        let peak = allocated_peak() - before;
        assert!(
            (held..held + (64 << 10)).contains(&peak),
            "{residency:?}: {peak} bytes at the peak, {held} expected"
        );
        drop(blocks);
        let left = allocated_bytes() - before;
        assert!(left < 16 << 10, "{residency:?} leaves {left} bytes");
    }
}

/// The sum of a block's values, without another copy of them.
fn sum(tensors: &[Tensor; 2]) -> f64 {
    let of = |tensor: &Tensor| -> f64 {
        let (storage, _) = tensor.storage_and_layout();
        match &*storage {
            candle_core::Storage::Cpu(candle_core::CpuStorage::BF16(values)) => {
                values.iter().map(|value| f64::from(value.to_f32())).sum()
            }
            _ => panic!("the values were to stay as they are stored"),
        }
    };
    of(&tensors[0]) + 1000.0 * of(&tensors[1])
}

fn value(block: usize, index: usize) -> bf16 {
    bf16::from_f32(((index * 31 + block * 7) % 97) as f32)
}

fn sum_of(block: usize) -> f64 {
    let of = |count: usize| -> f64 {
        (0..count)
            .map(|index| f64::from(value(block, index).to_f32()))
            .sum()
    };
    of(VALUES) + 1000.0 * of(100)
}

fn write(path: &std::path::Path) {
    let bytes = |block: usize, count: usize| -> Vec<u8> {
        (0..count)
            .flat_map(|index| value(block, index).to_le_bytes())
            .collect()
    };
    let values: Vec<(Vec<u8>, Vec<u8>)> = (0..BLOCKS)
        .map(|block| (bytes(block, VALUES), bytes(block, 100)))
        .collect();
    let tensors = values.iter().enumerate().flat_map(|(block, (weight, bias))| {
        [
            (
                format!("{block}.weight"),
                TensorView::new(Dtype::BF16, vec![VALUES], weight).unwrap(),
            ),
            (
                format!("{block}.bias"),
                TensorView::new(Dtype::BF16, vec![100], bias).unwrap(),
            ),
        ]
    });
    safetensors::serialize_to_file(tensors, None, path).unwrap();
}
