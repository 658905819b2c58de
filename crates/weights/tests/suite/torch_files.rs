//! PyTorch files, valid, hostile and damaged, read through the public interface.

use std::path::{Path, PathBuf};

use candle_core::Device;
use proptest::prelude::*;
use sd_weights::{Checkpoint, ElementType, Error, Residency, WeightOptions, WeightType, Weights};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/torch")
        .join(name)
}

fn weights(checkpoint: Checkpoint) -> Weights {
    Weights::new(
        checkpoint,
        WeightOptions::new(Device::Cpu, WeightType::F32, Residency::Resident),
    )
}

/// The values of every tensor of floats, by name.
fn values(checkpoint: Checkpoint) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let tensors: Vec<(String, Vec<usize>)> = checkpoint
        .tensors()
        .filter(|(_, header)| header.element_type != ElementType::I64)
        .map(|(name, header)| (name.to_owned(), header.shape.clone()))
        .collect();
    let weights = weights(checkpoint);
    tensors
        .into_iter()
        .map(|(name, shape)| {
            let tensor = weights.tensor(&name, &shape).unwrap();
            (name, shape, tensor.flatten_all().unwrap().to_vec1().unwrap())
        })
        .collect()
}

#[test]
fn tables_of_tensors_are_read_whatever_they_are_wrapped_in() {
    let expected = Checkpoint::open_file(fixture("expected.safetensors")).unwrap();
    let headers = |checkpoint: &Checkpoint| -> Vec<(String, ElementType, Vec<usize>)> {
        let header = |(name, header): (&str, &sd_weights::TensorHeader)| {
            (name.to_owned(), header.element_type, header.shape.clone())
        };
        checkpoint.tensors().map(header).collect()
    };
    let (of_expected, expected) = (headers(&expected), values(expected));
    assert_eq!(of_expected.len(), 15);
    for name in ["state.pth", "wrapped.pth", "training.ckpt"] {
        let found = Checkpoint::open_file(fixture(name)).unwrap();
        assert_eq!(headers(&found), of_expected, "{name}");
        assert_eq!(values(found), expected, "{name}");
    }
    let nested = values(Checkpoint::open_file(fixture("nested.bin")).unwrap());
    for (found, expected) in nested.iter().zip(&expected) {
        assert_eq!(found.0, format!("generator.body.{}", expected.0));
        assert_eq!(found.2, expected.2);
    }
}

#[test]
fn what_is_no_table_of_tensors_is_refused() {
    let refused = |name: &str| Checkpoint::open_file(fixture(name)).unwrap_err();
    let error = refused("harmful.pth");
    assert!(
        matches!(&error, Error::ForbiddenGlobal { global, .. } if global.ends_with(".system")),
        "{error:?}"
    );
    for (name, reason) in [
        ("turned.pth", "tensor `turned`"),
        ("old.pth", "before 1.6"),
        ("list.pth", "no table"),
    ] {
        let error = refused(name);
        assert!(
            matches!(&error, Error::BadTorchFile { reason: found, .. } if found.contains(reason)),
            "{error:?}"
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weights.pth");
    std::fs::write(&path, b"PK\x03\x04").unwrap();
    let error = Checkpoint::open_file(&path).unwrap_err();
    assert!(matches!(error, Error::BadTorchFile { .. }), "{error:?}");
}

/// Opens `bytes` as a file, and reads all that it says it has.
fn read_all(bytes: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weights.pth");
    std::fs::write(&path, bytes).unwrap();
    let Ok(checkpoint) = Checkpoint::open_file(&path) else {
        return;
    };
    let tensors: Vec<(String, Vec<usize>)> = checkpoint
        .tensors()
        .map(|(name, header)| {
            assert!(header.offset + header.bytes <= bytes.len() as u64, "{name}");
            (name.to_owned(), header.shape.clone())
        })
        .collect();
    let weights = weights(checkpoint);
    for (name, shape) in tensors {
        let _ = weights.tensor(&name, &shape);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        kept in any::<prop::sample::Index>(),
        truncated: bool,
        in_pickle: bool,
    ) {
        let mut bytes = std::fs::read(fixture("training.ckpt")).unwrap();
        // The pickle is the first entry, and the largest.
        let range = if in_pickle { 64..1600 } else { 0..bytes.len() };
        for (place, value) in changes {
            let place = range.start + place.index(range.len());
            bytes[place] = value;
        }
        if truncated {
            let kept = kept.index(bytes.len());
            bytes.truncate(kept);
        }
        read_all(&bytes);
    }
}
