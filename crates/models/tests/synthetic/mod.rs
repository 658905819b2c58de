//! Networks of any size with weights of zero, under the tensor names of real checkpoints.

#![allow(dead_code, unreachable_pub, unused_imports)] // Each test binary uses a part.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use sd_weights::{ModelFolder, Residency, WeightOptions, WeightType, Weights};

// The networks that full-size models are synthesized from.
#[path = "../../examples/synthesize/networks/mod.rs"]
pub mod networks;

/// Writes `tensors` in bf16 into a folder below `directory`, and opens them.
pub fn weights(directory: &Path, tensors: &[networks::Tensor], residency: Residency) -> Weights {
    weights_with(DType::BF16, directory, tensors, residency)
}

/// As [`weights`], with matrices stored as `matrices`.
pub fn weights_with(
    matrices: DType,
    directory: &Path,
    tensors: &[networks::Tensor],
    residency: Residency,
) -> Weights {
    let component = directory.join("network");
    let file = component.join("model.safetensors");
    if !file.exists() {
        std::fs::create_dir(&component).unwrap();
        let tensors: HashMap<&str, Tensor> = tensors
            .iter()
            .map(|tensor| (tensor.name.as_str(), values(tensor, matrices)))
            .collect();
        candle_core::safetensors::save(&tensors, file).unwrap();
    }
    let checkpoint = ModelFolder::on_disk(directory).checkpoint("network").unwrap();
    Weights::new(
        checkpoint,
        WeightOptions::new(Device::Cpu, WeightType::AsStored, residency),
    )
}

/// Zeros: how much memory a network takes does not depend on what it computes.
fn values(tensor: &networks::Tensor, matrices: DType) -> Tensor {
    let stored = if tensor.shape.len() == 2 {
        matrices
    } else {
        DType::BF16
    };
    Tensor::zeros(tensor.shape.as_slice(), stored, &Device::Cpu).unwrap()
}

/// Asserts that `measured` bytes are what was `predicted`: no more, and at most a tenth less.
#[track_caller]
pub fn assert_predicted(what: &str, predicted: u64, measured: u64) {
    assert!(
        measured <= predicted && measured * 10 >= predicted * 9,
        "{what}: {predicted} bytes predicted, {measured} measured ({:.3})",
        measured as f64 / predicted as f64
    );
}
