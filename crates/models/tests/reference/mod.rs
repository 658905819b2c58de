//! Reads reference cases, and compares results with them.

#![allow(dead_code, unreachable_pub, clippy::print_stderr)] // Each test binary uses a part, and says how close it came.

use std::path::PathBuf;
use std::sync::LazyLock;

use candle_core::{DType, Device, Tensor};
use sd_weights::{ModelFolder, Residency, WeightOptions, WeightType, Weights};
use serde::de::DeserializeOwned;

/// Relative errors that are allowed.
pub const WITHIN_F32: f64 = 1e-4;
pub const WITHIN_BF16: f64 = 3e-2;

/// The device of the networks: the CPU, or with `SD_TEST_DEVICE=cuda` or `metal` a GPU.
pub fn device() -> Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| match std::env::var("SD_TEST_DEVICE").as_deref() {
        Ok("cuda") => sd_weights::open_cuda(0).unwrap(),
        Ok("metal") => sd_weights::open_metal().unwrap(),
        _ => Device::Cpu,
    });
    DEVICE.clone()
}

/// A tiny random network of the reference with inputs and outputs. The scripts `tools/reference/make_*.py`
/// make them.
pub struct Case {
    folder: ModelFolder,
    name: String,
    device: Device,
    tensors: std::collections::HashMap<String, Tensor>,
}

impl Case {
    pub fn open(network: &str, name: &str) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(network);
        let device = device();
        let tensors =
            candle_core::safetensors::load(root.join(name).join("case.safetensors"), &device).unwrap();
        Self {
            folder: ModelFolder::on_disk(root),
            name: name.to_owned(),
            device,
            tensors,
        }
    }

    /// The same network with the inputs and outputs of `file` in place of its own.
    pub fn with_tensors(mut self, file: &str) -> Self {
        let path = self.folder.root().join(&self.name).join(file);
        self.tensors = candle_core::safetensors::load(path, &self.device).unwrap();
        self
    }

    pub fn config<C: DeserializeOwned>(&self) -> C {
        self.folder.json(&format!("{}/config.json", self.name)).unwrap()
    }

    pub fn weights(&self, weight_type: WeightType, residency: Residency) -> Weights {
        let weight_options = WeightOptions::new(self.device.clone(), weight_type, residency);
        Weights::new(self.folder.checkpoint(&self.name).unwrap(), weight_options)
    }

    pub fn tensor(&self, name: &str) -> &Tensor {
        &self.tensors[name]
    }

    /// The tensor, if the case has one.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Rows of token ids.
    pub fn ids(&self, name: &str) -> Vec<Vec<u32>> {
        self.tensor(name).to_dtype(DType::U32).unwrap().to_vec2().unwrap()
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor
        .to_dtype(DType::F32)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap()
}

/// Runs `network` with weights of 32 bits, of 16, and streamed, and holds each to the reference. `network`
/// gives what it computed, with the names of what the reference computed.
pub fn compare(case: &Case, network: impl Fn(Weights) -> Vec<(&'static str, Tensor)>) {
    let resident = network(case.weights(WeightType::F32, Residency::Resident));
    assert!(!resident.is_empty());
    for (name, found) in &resident {
        assert_close(found, case.tensor(name), WITHIN_F32, name);
    }
    for (name, found) in network(case.weights(WeightType::Bf16, Residency::Resident)) {
        assert_close(&found, case.tensor(name), WITHIN_BF16, name);
    }
    for ((name, streamed), (_, resident)) in network(case.weights(WeightType::F32, Residency::Streamed))
        .iter()
        .zip(&resident)
    {
        assert!(
            values(streamed) == values(resident),
            "{name}: residency changed a bit"
        );
    }
}

#[track_caller]
pub fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f64, name: &str) {
    assert_eq!(found.dims(), expected.dims(), "{name}");
    let norm =
        |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let (found, expected) = (values(found), values(expected));
    let size = norm(&mut expected.iter().copied());
    let error = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b)) / size;
    eprintln!("{name}: relative error {error:.2e}, at most {tolerance:.0e}");
    assert!(
        size > 0.0 && error <= tolerance,
        "{name}: relative error {error:.2e}"
    );
}
