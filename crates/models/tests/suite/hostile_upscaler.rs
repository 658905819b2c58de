//! Upscalers of zero or impossible width: the shape of a tensor without elements can hold any number.

use std::fs;

use candle_core::Device;
use sd_models::upscaler::Upscaler;
use sd_weights::{Checkpoint, Residency, WeightOptions, WeightType, Weights};

/// A file of tensors of these shapes, whose values are zeros.
fn opened(shapes: &[(&str, &[usize])]) -> Result<Upscaler, sd_models::Error> {
    let (mut entries, mut end) = (Vec::new(), 0);
    for (name, shape) in shapes {
        let begin = end;
        end += shape.iter().product::<usize>() * 4;
        entries.push(format!(
            "\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape:?},\"data_offsets\":[{begin},{end}]}}"
        ));
    }
    let header = format!("{{{}}}", entries.join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + end, 0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    fs::write(&path, bytes).unwrap();
    let checkpoint = Checkpoint::open_file(path).unwrap();
    let weight_options = WeightOptions::new(Device::Cpu, WeightType::F32, Residency::Resident);
    Upscaler::open(Weights::new(checkpoint, weight_options))
}

fn dense(features: usize, growth: usize) -> Result<Upscaler, sd_models::Error> {
    opened(&[
        ("conv_first.weight", &[features, 3, 3, 3]),
        ("body.0.rdb1.conv1.weight", &[growth, features, 3, 3]),
    ])
}

fn compact(features: usize) -> Result<Upscaler, sd_models::Error> {
    opened(&[
        ("body.0.weight", &[features, 3, 3, 3]),
        ("body.1.weight", &[features]),
        ("body.2.weight", &[12, features, 3, 3]),
    ])
}

#[test]
fn a_network_of_no_features_is_refused() {
    for refused in [dense(0, 8), compact(0)] {
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("0 features"), "{error}");
    }
    // Of networks with features it is the other tensors that are missed.
    for incomplete in [dense(8, 4), compact(8)] {
        let error = incomplete.unwrap_err().to_string();
        assert!(error.contains("has no tensor"), "{error}");
    }
}
