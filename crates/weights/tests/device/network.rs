//! A network of equal blocks, and its file.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use candle_core::{DType, Device, Tensor};
use half::f16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use sd_weights::{
    Blocks, Error, HostMemory, ModelFolder, Residency, Result, WeightOptions, WeightType, Weights,
};

pub(crate) const BLOCKS: usize = 10;
/// The block that cannot be read in a network that fails.
pub(crate) const FAILS: usize = 5;

/// The bytes of a block whose weight is a square of `side`, held in `bfloat16`.
pub(crate) const fn block_bytes(side: usize) -> u64 {
    2 * (side * side + 2 * side) as u64
}

pub(crate) struct Block {
    weight: Tensor,
    gain: Tensor,
    bias: Tensor,
}

/// The file of a network.
pub(crate) struct Model {
    directory: tempfile::TempDir,
    side: usize,
}

impl Model {
    pub(crate) fn new(side: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("network")).unwrap();
        write(&directory.path().join("network/model.safetensors"), side);
        Self { directory, side }
    }

    pub(crate) fn network(&self, device: &Device, residency: Residency, host: HostMemory) -> Blocks<Block> {
        self.slow_network(device, residency, host, Duration::ZERO)
    }

    /// A network of which each block takes `delay` longer to be read.
    pub(crate) fn slow_network(
        &self,
        device: &Device,
        residency: Residency,
        host_memory: HostMemory,
        delay: Duration,
    ) -> Blocks<Block> {
        self.build(device, residency, host_memory, move |_| {
            sleep(delay);
            Ok(())
        })
    }

    /// A network of which a block cannot be read, after its first tensor was.
    pub(crate) fn failing_network(&self, device: &Device, residency: Residency) -> Blocks<Block> {
        let builds = AtomicUsize::new(0);
        self.build(device, residency, HostMemory::default(), move |index| {
            // Each block is built once without weights.
            let build = builds.fetch_add(1, Ordering::Relaxed);
            if index == FAILS && build >= BLOCKS {
                return Err(Error::MissingFile { file: "lost".into() });
            }
            Ok(())
        })
    }

    fn build(
        &self,
        device: &Device,
        residency: Residency,
        host_memory: HostMemory,
        meanwhile: impl Fn(usize) -> Result<()> + Send + Sync + 'static,
    ) -> Blocks<Block> {
        let folder = ModelFolder::on_disk(self.directory.path());
        let options = WeightOptions {
            host_memory,
            ..WeightOptions::new(device.clone(), WeightType::AsStored, residency)
        };
        let weights = Weights::new(folder.checkpoint("network").unwrap(), options);
        let side = self.side;
        let scopes = (0..BLOCKS).map(|block| weights.scope(block));
        let blocks = Blocks::new(scopes, move |index, weights| {
            let weight = weights.tensor("weight", &[side, side])?;
            meanwhile(index)?;
            let gain = weights.tensor("gain", &[side])?;
            let bias = weights.tensor("bias", &[side])?;
            Ok(Block { weight, gain, bias })
        });
        blocks.unwrap()
    }
}

impl Block {
    /// Uses the block `times` times.
    pub(crate) fn forward(&self, x: &Tensor, times: usize) -> Tensor {
        let mut x = x.clone();
        for _ in 0..times {
            let y = x.matmul(&self.weight).unwrap();
            let y = y.broadcast_mul(&self.gain).unwrap();
            let y = y.broadcast_add(&self.bias).unwrap();
            x = (y.tanh().unwrap() + 0.01).unwrap();
        }
        x
    }
}

/// What a pass begins with.
pub(crate) fn input(device: &Device, rows: usize) -> Tensor {
    Tensor::ones((rows, crate::measured::SIDE), DType::BF16, device).unwrap()
}

/// A pass of `rows` rows, each block used `times` times.
pub(crate) fn forward(blocks: &Blocks<Block>, device: &Device, rows: usize, times: usize) -> Vec<f32> {
    let mut x = input(device, rows);
    for block in blocks.pass().unwrap() {
        x = block.unwrap().forward(&x, times);
    }
    let sums = x.to_dtype(DType::F32).unwrap().sum(1).unwrap();
    sums.to_vec1().unwrap()
}

/// Weights in 16 bits of another kind than they are held in, so that they are converted on their way; gains
/// and biases in 32.
fn write(path: &Path, side: usize) {
    let value = |block: usize, index: usize| ((index * 31 + block * 7) % 97) as f32 / 97.0 - 0.5;
    let values = |block: usize, first: f32| {
        let values = (0..side).flat_map(move |index| (first + value(block, index)).to_le_bytes());
        values.collect::<Vec<u8>>()
    };
    let bytes: Vec<[Vec<u8>; 3]> = (0..BLOCKS)
        .map(|block| {
            let weight =
                (0..side * side).flat_map(|index| f16::from_f32(value(block, index) / 20.0).to_le_bytes());
            [weight.collect(), values(block, 1.0), values(block, 0.0)]
        })
        .collect();
    let tensors = bytes
        .iter()
        .enumerate()
        .flat_map(|(block, [weight, gain, bias])| {
            let weight = TensorView::new(Dtype::F16, vec![side, side], weight).unwrap();
            let vector = |values| TensorView::new(Dtype::F32, vec![side], values).unwrap();
            let tensors = [("weight", weight), ("gain", vector(gain)), ("bias", vector(bias))];
            tensors.map(|(name, view)| (format!("{block}.{name}"), view))
        });
    safetensors::serialize_to_file(tensors, None, path).unwrap();
}
