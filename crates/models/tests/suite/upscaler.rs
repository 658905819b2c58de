//! Real-ESRGAN networks against their PyTorch definitions, and in bands against the whole image.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::random;
use crate::reference::{WITHIN_BF16, WITHIN_F32, assert_close, device};
use candle_core::{Device, Tensor};
use sd_models::Error;
use sd_models::upscaler::Upscaler;
use sd_weights::{Checkpoint, Residency, WeightOptions, WeightType, Weights};

fn folder(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/upscaler")
        .join(case)
}

fn open(file: &Path, weight_type: WeightType, residency: Residency) -> Result<Upscaler, Error> {
    let weight_options = WeightOptions::new(device(), weight_type, residency);
    Upscaler::open(Weights::new(Checkpoint::open_file(file).unwrap(), weight_options))
}

fn agrees(case: &str, file: &str, scale: usize) {
    let tensors = candle_core::safetensors::load(folder(case).join("case.safetensors"), &device()).unwrap();
    let (image, expected) = (&tensors["picture"], &tensors["enlarged"]);
    let file = folder(case).join(file);
    let upscaled = |weight_type, residency| {
        let upscaler = open(&file, weight_type, residency).unwrap();
        assert_eq!(upscaler.scale(), scale);
        upscaler.forward(image).unwrap()
    };
    let resident = upscaled(WeightType::F32, Residency::Resident);
    assert_close(&resident, expected, WITHIN_F32, case);
    let half = upscaled(WeightType::Bf16, Residency::Resident);
    assert_close(&half, expected, WITHIN_BF16, case);
    let streamed = upscaled(WeightType::F32, Residency::Streamed);
    assert_equal(&streamed, &resident, "streamed");
}

#[test]
fn by_four() {
    agrees("x4", "model.pth", 4);
}

#[test]
fn under_the_names_of_every_release() {
    for file in [
        "model.safetensors",
        "first.pth",
        "second.pth",
        "parallel.pth",
        "nested.pth",
    ] {
        agrees("names", file, 4);
    }
}

#[test]
fn a_network_of_another_scale_under_the_first_names_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
    let first = Checkpoint::open_file(folder("names").join("first.pth")).unwrap();
    let mut tensors: HashMap<String, Tensor> = first
        .tensors()
        .map(|(name, header)| (name.to_owned(), zeros(&header.shape)))
        .collect();
    // Twice as large once: what follows the last upsampling comes sooner.
    for (from, to) in [
        ("model.6.", ""),
        ("model.8.", "model.5."),
        ("model.10.", "model.7."),
    ] {
        for kind in ["weight", "bias"] {
            let tensor = tensors.remove(&format!("{from}{kind}")).unwrap();
            if !to.is_empty() {
                tensors.insert(format!("{to}{kind}"), tensor);
            }
        }
    }
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let error = open(&path, WeightType::F32, Residency::Resident).unwrap_err();
    assert!(
        matches!(&error, Error::Upscaler { reason, .. } if reason.contains("[0, 3, 5, 7]")),
        "{error:?}"
    );
}

#[test]
fn by_two_of_odd_height() {
    agrees("x2", "model.pth", 2);
}

#[test]
fn by_one_from_safetensors() {
    agrees("x1", "model.safetensors", 1);
}

#[test]
fn the_compact_network() {
    agrees("compact", "model.pth", 4);
    agrees("compact-x3", "model.safetensors", 3);
}

fn assert_equal(found: &Tensor, expected: &Tensor, what: &str) {
    let bits = |tensor: &Tensor| -> Vec<u32> {
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    };
    assert_eq!(found.dims(), expected.dims(), "{what}");
    assert!(bits(found) == bits(expected), "{what} is not equal to the bit");
}

#[test]
fn bands_have_the_bits_of_the_whole_image() {
    for (case, file) in [
        ("x4", "model.pth"),
        ("x2", "model.pth"),
        ("x1", "model.safetensors"),
        ("compact", "model.pth"),
    ] {
        let upscaler = || {
            let weight_options = WeightOptions::new(Device::Cpu, WeightType::F32, Residency::Resident);
            let checkpoint = Checkpoint::open_file(folder(case).join(file)).unwrap();
            Upscaler::open(Weights::new(checkpoint, weight_options)).unwrap()
        };
        for (height, width) in [(37, 23), (5, 50), (1, 1)] {
            let values = random::values(3 * height * width);
            let image = Tensor::from_vec(values, (1, 3, height, width), &Device::Cpu).unwrap();
            let whole = upscaler().with_band_rows(usize::MAX).forward(&image).unwrap();
            let by_size = upscaler().forward(&image).unwrap();
            assert_equal(&by_size, &whole, case);
            for rows in [1, 2, 5, 16] {
                let by_bands = upscaler().with_band_rows(rows).forward(&image).unwrap();
                assert_equal(
                    &by_bands,
                    &whole,
                    &format!("{case} by {rows} of {height}x{width}"),
                );
            }
            let threads = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
            let by_threads = threads.install(|| upscaler().forward(&image).unwrap());
            assert_equal(&by_threads, &whole, "by three threads");
        }
    }
}

#[test]
fn what_is_no_upscaler_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
    let refused = |tensors: &[(&str, &[usize])], reason: &str| {
        let tensors: HashMap<&str, Tensor> = tensors
            .iter()
            .map(|&(name, shape)| (name, zeros(shape)))
            .collect();
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let error = open(&path, WeightType::F32, Residency::Resident).unwrap_err();
        assert!(
            matches!(&error, Error::Upscaler { reason: found, .. } if found.contains(reason)),
            "{error:?}"
        );
    };
    refused(&[("conv_in.weight", &[8, 4, 3, 3])], "neither");
    refused(&[("body.0.weight", &[8, 4, 3, 3])], "neither");
    refused(&[("conv_first.weight", &[8, 4, 3, 3])], "4 channels");
    refused(&[("conv_first.weight", &[8, 3, 3, 3])], "first block");
    refused(
        &[
            ("body.0.weight", &[8, 3, 3, 3]),
            ("body.2.weight", &[48, 8, 3, 3]),
        ],
        "PReLU",
    );
    refused(
        &[
            ("body.0.weight", &[8, 3, 3, 3]),
            ("body.1.weight", &[8]),
            ("body.2.weight", &[50, 8, 3, 3]),
        ],
        "50 channels",
    );
    let upscaler = open(
        &folder("x4").join("model.pth"),
        WeightType::F32,
        Residency::Resident,
    )
    .unwrap();
    for shape in [[1, 4, 8, 8], [2, 3, 8, 8], [1, 3, 0, 8]] {
        assert!(matches!(
            upscaler.forward(&zeros(&shape)),
            Err(Error::Input { .. })
        ));
    }
}
