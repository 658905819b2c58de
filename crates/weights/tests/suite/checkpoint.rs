//! Weights files, valid and damaged, read through the public interface.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use sd_weights::{ElementType, Error, ModelFolder, Residency, WeightOptions, WeightType, Weights};

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A file of one network with `table`, `[4, 2]`, counting up from 0, and `norm.weight`, `[2]`.
fn write_network(path: &Path) {
    let table = bytes_of(&(0..8).map(|value| value as f32).collect::<Vec<_>>());
    let norm: Vec<u8> = [1.5, -2.0]
        .iter()
        .flat_map(|&value| half::bf16::from_f32(value).to_le_bytes())
        .collect();
    let tensors = [
        ("table", TensorView::new(Dtype::F32, vec![4, 2], &table).unwrap()),
        (
            "norm.weight",
            TensorView::new(Dtype::BF16, vec![2], &norm).unwrap(),
        ),
    ];
    safetensors::serialize_to_file(tensors, None, path).unwrap();
}

fn folder() -> (tempfile::TempDir, ModelFolder) {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("network")).unwrap();
    write_network(&directory.path().join("network/model.safetensors"));
    let folder = ModelFolder::on_disk(directory.path());
    (directory, folder)
}

fn weights(folder: &ModelFolder, weight_type: WeightType) -> Weights {
    let options = WeightOptions::new(Device::Cpu, weight_type, Residency::Resident);
    Weights::new(folder.checkpoint("network").unwrap(), options)
}

#[test]
fn tensors_are_read_in_the_type_they_are_to_be_held_in() {
    let (_directory, folder) = folder();
    for (weight_type, held) in [
        (WeightType::AsStored, DType::BF16),
        (WeightType::F32, DType::F32),
        (WeightType::Bf16, DType::BF16),
    ] {
        let norm = weights(&folder, weight_type)
            .scope("norm")
            .tensor("weight", &[2])
            .unwrap();
        assert_eq!(norm.dtype(), held);
        assert_eq!(
            norm.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap(),
            [1.5, -2.0]
        );
    }
    assert_eq!(
        folder.checkpoint("network").unwrap().main_type(),
        Some(ElementType::F32)
    );
    assert_eq!(weights(&folder, WeightType::AsStored).scope("norm").bytes(), 4);
}

#[test]
fn rows_are_read_alone_and_in_the_requested_order() {
    let (_directory, folder) = folder();
    let weights = weights(&folder, WeightType::AsStored);
    let rows = weights.table("table", &[4, 2]).unwrap().rows(&[3, 0, 3]).unwrap();
    assert_eq!(rows.to_vec2::<f32>().unwrap(), [[6., 7.], [0., 1.], [6., 7.]]);
    let error = weights.table("table", &[4, 2]).unwrap().rows(&[4]).unwrap_err();
    assert!(
        matches!(error, Error::RowOutOfRange { row: 4, rows: 4, .. }),
        "{error:?}"
    );
}

#[test]
fn a_tensor_that_is_not_as_configured_is_named_with_both_shapes() {
    let (_directory, folder) = folder();
    let weights = weights(&folder, WeightType::AsStored);
    let message = weights.tensor("table", &[2, 4]).unwrap_err().to_string();
    assert!(
        message.contains("`table`") && message.contains("[4, 2]") && message.contains("[2, 4]"),
        "{message}"
    );
    let error = weights.scope("norm").tensor("bias", &[2]).unwrap_err();
    assert!(
        matches!(&error, Error::MissingTensor { tensor, .. } if tensor == "norm.bias"),
        "{error:?}"
    );
}

#[test]
fn a_damaged_file_is_refused_when_it_is_opened() {
    let (directory, folder) = folder();
    let path = directory.path().join("network/model.safetensors");
    let whole = fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        folder.checkpoint("network").unwrap_err()
    };

    for length in [0, 7, 8, 60, whole.len() - 1] {
        let error = refused(&whole[..length]);
        assert!(matches!(error, Error::Truncated { .. }), "{length}: {error:?}");
    }
    let with_header = |header: &str| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&[0; 64]);
        bytes
    };
    for header in [
        "not JSON",
        "[]",
        r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}"#,
        r#"{"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 8]}}"#,
        r#"{"a": {"dtype": "F32", "shape": [0], "data_offsets": [18446744073709551615, 18446744073709551615]}}"#,
    ] {
        let error = refused(&with_header(header));
        assert!(matches!(error, Error::BadHeader { .. }), "{header}: {error:?}");
    }
    let mut endless = whole.clone();
    endless[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(refused(&endless), Error::BadHeader { .. }));

    fs::remove_file(&path).unwrap();
    assert!(matches!(
        folder.checkpoint("network").unwrap_err(),
        Error::MissingWeights { .. }
    ));
}

#[test]
fn shards_are_found_through_their_index() {
    let (directory, folder) = folder();
    let network = directory.path().join("network");
    fs::rename(
        network.join("model.safetensors"),
        network.join("model-00001-of-00001.safetensors"),
    )
    .unwrap();
    let write_index = |map: HashMap<&str, &str>| {
        let index = serde_json::json!({ "weight_map": map });
        fs::write(network.join("model.safetensors.index.json"), index.to_string()).unwrap();
    };
    write_index([("table", "model-00001-of-00001.safetensors")].into());
    let checkpoint = folder.checkpoint("network").unwrap();
    assert_eq!(checkpoint.tensors().count(), 1);
    assert_eq!(checkpoint.bytes(), 32);

    write_index([("other", "model-00001-of-00001.safetensors")].into());
    assert!(matches!(
        folder.checkpoint("network").unwrap_err(),
        Error::MissingFromShard { .. }
    ));
    write_index([("table", "model-00002-of-00002.safetensors")].into());
    assert!(matches!(
        folder.checkpoint("network").unwrap_err(),
        Error::MissingFile { .. }
    ));
}

#[test]
fn the_tensor_that_holds_a_bad_value_is_found() {
    let (directory, folder) = folder();
    assert_eq!(
        folder.checkpoint("network").unwrap().first_non_finite().unwrap(),
        None
    );
    let path = directory.path().join("network/model.safetensors");
    let table = bytes_of(&[0.0, f32::NAN]);
    let view = TensorView::new(Dtype::F32, vec![2], &table).unwrap();
    safetensors::serialize_to_file([("bad", view)], None, &path).unwrap();
    let found = folder.checkpoint("network").unwrap().first_non_finite().unwrap();
    assert_eq!(found, Some((path, "bad".to_owned())));
}
