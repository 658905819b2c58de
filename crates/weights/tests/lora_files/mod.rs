//! LoRA files and their networks, made for a test, with the expected results.

#![allow(dead_code, unreachable_pub)] // Each test binary uses a part.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sd_weights::{
    Adapters, Checkpoint, Error, Fit, LoraFile, ModelFolder, ModelPart, Residency, WeightOptions, WeightType,
    Weights,
};

/// Numbers between -1 and 1 that look random, the same for the same seed.
pub fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values = (0..shape.iter().product()).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    });
    Tensor::from_vec(values.collect::<Vec<f32>>(), shape, &Device::Cpu).unwrap()
}

pub fn values(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_dtype(DType::F32).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
pub fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.dims(), expected.dims());
    let norm =
        |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let (found, expected) = (values(found), values(expected));
    let error = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
    let size = norm(&mut expected.iter().copied());
    assert!(error <= tolerance * size, "relative error {}", error / size);
}

/// Named tensors in the file `name` of a folder.
pub struct Files(tempfile::TempDir);

impl Files {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("network")).unwrap();
        Self(directory)
    }

    pub fn network(&self, tensors: &[(impl AsRef<str>, Tensor)]) -> Checkpoint {
        self.write("network/model.safetensors", tensors);
        self.checkpoint()
    }

    fn checkpoint(&self) -> Checkpoint {
        ModelFolder::on_disk(self.0.path()).checkpoint("network").unwrap()
    }

    pub fn write(&self, name: &str, tensors: &[(impl AsRef<str>, Tensor)]) -> PathBuf {
        let path = self.0.path().join(name);
        let tensors: HashMap<&str, Tensor> = tensors
            .iter()
            .map(|(name, tensor)| (name.as_ref(), tensor.clone()))
            .collect();
        candle_core::safetensors::save(&tensors, &path).unwrap();
        path
    }

    pub fn lora(&self, tensors: &[(impl AsRef<str>, Tensor)]) -> Result<Arc<LoraFile>, Error> {
        LoraFile::open(self.write("lora.safetensors", tensors)).map(Arc::new)
    }
}

pub fn held(checkpoint: &Checkpoint, weight_type: WeightType, adapters: &Arc<Adapters>) -> Weights {
    let options = WeightOptions::new(Device::Cpu, weight_type, Residency::Resident);
    Weights::new(checkpoint.clone(), options).with_adapters(adapters.clone())
}

pub fn adapters(part: ModelPart, fits: &[(&Fit, f32)]) -> Arc<Adapters> {
    Arc::new(Adapters::new(part, fits))
}

/// `weight + factor * up @ down`, with everything after the first dimension taken together.
pub fn changed(weight: &Tensor, down: &Tensor, up: &Tensor, factor: f64) -> Tensor {
    let matrix = |tensor: &Tensor| tensor.flatten_from(1).unwrap();
    let product = (matrix(up).matmul(&matrix(down)).unwrap() * factor).unwrap();
    (weight + product.reshape(weight.dims()).unwrap()).unwrap()
}
