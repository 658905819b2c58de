//! The predicted footprint of the upscaling networks against the measured one.

#![allow(clippy::unwrap_used, clippy::print_stderr)] // Without its data a test has failed; it says how close it came.

mod random;

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use sd_models::upscaler::Upscaler;
use sd_weights::{Checkpoint, Residency, WeightOptions, WeightType, Weights};

#[global_allocator]
static ALLOCATOR: sd_weights::CountingAllocator = sd_weights::CountingAllocator;

/// A network of zeros: what it takes does not depend on what it computes.
fn upscaler(convolutions: &[(String, [usize; 2])], slopes: &[(String, usize)]) -> Upscaler {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::BF16, &Device::Cpu).unwrap();
    let mut tensors = HashMap::new();
    for (name, [outputs, inputs]) in convolutions {
        tensors.insert(format!("{name}.weight"), zeros(&[*outputs, *inputs, 3, 3]));
        tensors.insert(format!("{name}.bias"), zeros(&[*outputs]));
    }
    for (name, features) in slopes {
        tensors.insert(format!("{name}.weight"), zeros(&[*features]));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let weight_options = WeightOptions::new(Device::Cpu, WeightType::AsStored, Residency::Resident);
    Upscaler::open(Weights::new(Checkpoint::open_file(path).unwrap(), weight_options)).unwrap()
}

fn dense(features: usize, growth: usize, blocks: usize) -> Upscaler {
    let mut convolutions = vec![("conv_first".to_owned(), [features, 3])];
    for block in 0..blocks {
        for dense in 1..=3 {
            for conv in 1..=5 {
                let outputs = if conv == 5 { features } else { growth };
                let inputs = features + (conv - 1) * growth;
                convolutions.push((format!("body.{block}.rdb{dense}.conv{conv}"), [outputs, inputs]));
            }
        }
    }
    for name in ["conv_body", "conv_up1", "conv_up2", "conv_hr"] {
        convolutions.push((name.to_owned(), [features, features]));
    }
    convolutions.push(("conv_last".to_owned(), [3, features]));
    upscaler(&convolutions, &[])
}

fn compact(features: usize, hidden: usize) -> Upscaler {
    let mut convolutions = vec![("body.0".to_owned(), [features, 3])];
    let mut slopes = Vec::new();
    for layer in 0..=hidden {
        slopes.push((format!("body.{}", 2 * layer + 1), features));
        let outputs = if layer == hidden { 48 } else { features };
        convolutions.push((format!("body.{}", 2 * layer + 2), [outputs, features]));
    }
    upscaler(&convolutions, &slopes)
}

/// The only test of this binary, so that nothing else allocates.
#[test]
fn what_is_taken_is_what_was_predicted() {
    // What threads take counts for the more the more there are.
    rayon::ThreadPoolBuilder::new()
        .num_threads(2)
        .build_global()
        .unwrap();
    for (what, upscaler, height, width, most) in [
        ("dense", dense(64, 32, 1), 192, 520, 1.1),
        ("dense", dense(32, 16, 2), 300, 400, 1.1),
        // The dense blocks take more than the upsampling here.
        ("dense", dense(32, 64, 1), 256, 380, 1.1),
        ("compact", compact(64, 2), 512, 600, 1.1),
        // With other bands than the size suggests, where it is an upper bound.
        (
            "dense by 16 rows",
            dense(16, 8, 1).with_band_rows(16),
            420,
            640,
            1.1,
        ),
        (
            "dense in one band",
            dense(16, 8, 1).with_band_rows(200),
            200,
            300,
            1.4,
        ),
        (
            "compact by 90 rows",
            compact(96, 1).with_band_rows(90),
            270,
            600,
            1.2,
        ),
    ] {
        upscaler.load().unwrap();
        let values = random::values(3 * height * width);
        let image = Tensor::from_vec(values, (1, 3, height, width), &Device::Cpu).unwrap();
        sd_ops::release_scratch();
        let before = sd_weights::allocated_bytes();
        sd_weights::restart_allocated_peak();
        drop(upscaler.forward(&image).unwrap());
        let taken = sd_weights::allocated_peak() - before;
        let predicted = upscaler.footprint(height, width);
        let ratio = predicted.bytes() as f64 / taken as f64;
        eprintln!("{what} of {width}x{height}: {taken} bytes taken, {ratio:.3} times as many predicted");
        assert!(
            (1.0..=most).contains(&ratio),
            "{what}: {predicted:?} predicted, {taken} taken"
        );
    }
    // The networks that people use.
    for (upscaler, most) in [(dense(64, 32, 1), 1.0), (compact(64, 32), 0.5)] {
        let gigabytes = upscaler.footprint(1024, 1024).bytes() as f64 / f64::from(1 << 30);
        assert!(gigabytes < most, "{gigabytes} GB for 1024x1024");
    }
}
