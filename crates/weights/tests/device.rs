//! Streaming to a GPU: the same values at every residency, within the memory of the window, with slow kernels
//! and with slow copies. It needs a device:
//! `cargo test --release -p sd-weights --features cuda --test device -- --nocapture --test-threads 1`

#![allow(clippy::unwrap_used, clippy::print_stderr)] // Without its data a test has failed.

use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use half::f16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use sd_weights::{
    Blocks, HostMemory, ModelFolder, Residency, WeightOptions, WeightType, Weights, bound_device_memory,
    bytes_read, bytes_uploaded, device_memory, open_cuda, release_device_memory, restart_device_peak,
};

const BLOCKS: usize = 10;
const SIDE: usize = 3072;
/// Held in `bfloat16`.
const BLOCK_BYTES: u64 = 2 * (SIDE * SIDE + SIDE) as u64;
const MIB: u64 = 1 << 20;

struct Block {
    weight: Tensor,
    bias: Tensor,
}

fn network(
    directory: &Path,
    device: &Device,
    residency: Residency,
    host_memory: HostMemory,
) -> Blocks<Block> {
    let checkpoint = ModelFolder::on_disk(directory).checkpoint("network").unwrap();
    let options = WeightOptions {
        host_memory,
        ..WeightOptions::new(device.clone(), WeightType::AsStored, residency)
    };
    let weights = Weights::new(checkpoint, options);
    Blocks::new((0..BLOCKS).map(|block| weights.scope(block)), |_, weights| {
        Ok(Block {
            weight: weights.tensor("weight", &[SIDE, SIDE])?,
            bias: weights.tensor("bias", &[SIDE])?,
        })
    })
    .unwrap()
}

/// A pass of `rows` rows, each block used `times` times.
fn forward(blocks: &Blocks<Block>, device: &Device, rows: usize, times: usize) -> Vec<f32> {
    let mut x = Tensor::ones((rows, SIDE), DType::BF16, device).unwrap();
    for block in blocks.pass().unwrap() {
        let block = block.unwrap();
        for _ in 0..times {
            let y = x
                .matmul(&block.weight)
                .unwrap()
                .broadcast_add(&block.bias)
                .unwrap();
            x = (y.tanh().unwrap() + 0.01).unwrap();
        }
    }
    let sums = x.to_dtype(DType::F32).unwrap().sum(1).unwrap();
    sums.to_vec1().unwrap()
}

#[test]
fn where_a_block_lives_changes_no_value_and_a_window_is_held() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("network")).unwrap();
    write(&directory.path().join("network/model.safetensors"));
    let device = open_cuda(0).unwrap();
    // Copies that take longer than the kernels, and kernels that take longer than the copies.
    for (rows, times) in [(8, 1), (4096, 8)] {
        let resident = network(
            directory.path(),
            &device,
            Residency::Resident,
            HostMemory::default(),
        );
        resident.load().unwrap();
        let expected = forward(&resident, &device, rows, times);
        assert!(expected.iter().all(|sum| sum.is_finite()));
        release_device_memory(&device).unwrap();
        restart_device_peak(&device).unwrap();
        let before = device_memory(&device).unwrap().unwrap();
        forward(&resident, &device, rows, times);
        let scratch = device_memory(&device).unwrap().unwrap().used_peak - before.used;
        drop(resident);

        for (residency, host) in [
            (Residency::Streamed, 0),
            (Residency::Streamed, u64::MAX),
            (Residency::Streamed, 4 * BLOCK_BYTES),
            (Residency::Partly(3), u64::MAX),
        ] {
            release_device_memory(&device).unwrap();
            restart_device_peak(&device).unwrap();
            let before = device_memory(&device).unwrap().unwrap();
            let host_memory = HostMemory::up_to(host);
            let blocks = network(directory.path(), &device, residency, host_memory.clone());
            blocks.load().unwrap();
            for pass in 0..4 {
                let (start, read, uploaded) = (Instant::now(), bytes_read(), bytes_uploaded());
                let found = forward(&blocks, &device, rows, times);
                let seconds = start.elapsed().as_secs_f64();
                assert!(found == expected, "{residency:?} with {host} in pass {pass}");
                let uploaded = bytes_uploaded() - uploaded;
                eprintln!(
                    "{rows} rows, {residency:?}, pass {pass}: {:.1} ms, {} MiB read, {} MiB copied, {:.1} GB/s",
                    1e3 * seconds,
                    (bytes_read() - read) / MIB,
                    uploaded / MIB,
                    uploaded as f64 / seconds / 1e9,
                );
            }
            let kept = residency.kept_of(BLOCKS) as u64;
            let held = (kept + Residency::WINDOW as u64) * BLOCK_BYTES;
            let peak = device_memory(&device).unwrap().unwrap();
            eprintln!("{peak:?}, {} MiB of host memory", host_memory.taken() / MIB);
            assert!(
                peak.used_peak - before.used <= held + scratch + MIB,
                "{residency:?}: {} for {held} and {scratch}",
                peak.used_peak - before.used
            );
            let streamed = (BLOCKS as u64 - kept) * BLOCK_BYTES;
            assert_eq!(host_memory.taken(), host.min(streamed), "{residency:?}");
            // A network that is dropped while blocks are on their way.
            blocks.pass().unwrap();
            drop(blocks);
            assert_eq!(host_memory.taken(), 0);
            release_device_memory(&device).unwrap();
            let after = device_memory(&device).unwrap().unwrap();
            assert_eq!(after.used, before.used, "{residency:?} leaves something behind");
        }
    }
}

#[test]
fn a_bound_holds_and_a_failed_allocation_is_an_error() {
    let device = open_cuda(0).unwrap();
    bound_device_memory(&device, Some(256 * MIB)).unwrap();
    let fits = Tensor::zeros(128 << 20, DType::U8, &device).unwrap();
    let error = Tensor::zeros(512 << 20, DType::U8, &device).unwrap_err();
    eprintln!("{error}");
    drop(fits);
    let other = Tensor::zeros(200 << 20, DType::U8, &device).unwrap();
    let memory = device_memory(&device).unwrap().unwrap();
    eprintln!("{memory:?}");
    assert!(memory.held_peak <= 256 * MIB);
    drop(other);
    release_device_memory(&device).unwrap();
    assert_eq!(device_memory(&device).unwrap().unwrap().held, 0);
    bound_device_memory(&device, None).unwrap();
    drop(Tensor::zeros(512 << 20, DType::U8, &device).unwrap());
}

/// Weights in 16 bits of another kind than they are held in, so that they are converted on their way; biases
/// in 32.
fn write(path: &Path) {
    let value = |block: usize, index: usize| ((index * 31 + block * 7) % 97) as f32 / 97.0 - 0.5;
    let bytes: Vec<(Vec<u8>, Vec<u8>)> = (0..BLOCKS)
        .map(|block| {
            let weight =
                (0..SIDE * SIDE).flat_map(|index| f16::from_f32(value(block, index) / 20.0).to_le_bytes());
            let bias = (0..SIDE).flat_map(|index| value(block, index).to_le_bytes());
            (weight.collect(), bias.collect())
        })
        .collect();
    let tensors = bytes.iter().enumerate().flat_map(|(block, (weight, bias))| {
        let name = |name: &str| format!("{block}.{name}");
        [
            (
                name("weight"),
                TensorView::new(Dtype::F16, vec![SIDE, SIDE], weight).unwrap(),
            ),
            (
                name("bias"),
                TensorView::new(Dtype::F32, vec![SIDE], bias).unwrap(),
            ),
        ]
    });
    safetensors::serialize_to_file(tensors, None, path).unwrap();
}
