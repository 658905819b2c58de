//! GGUF files, valid and damaged, read through the public interface.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use half::bf16;
use sd_weights::{Checkpoint, ElementType, Error, Residency, WeightOptions, WeightType, Weights};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/gguf")
        .join(name)
}

fn weights(path: PathBuf, weight_type: WeightType) -> Weights {
    let options = WeightOptions::new(Device::Cpu, weight_type, Residency::Resident);
    Weights::new(Checkpoint::open_file(path).unwrap(), options)
}

#[test]
fn values_have_the_bits_of_the_reference() {
    let expected = weights(fixture("expected.safetensors"), WeightType::F32);
    let wide = weights(fixture("types.gguf"), WeightType::F32);
    let narrow = weights(fixture("types.gguf"), WeightType::AsStored);
    let names: Vec<&str> = expected.names().collect();
    assert_eq!(names.len(), 17);
    for name in names {
        let shape = expected.shape(name).unwrap();
        assert_eq!(wide.shape(name), Some(shape), "{name}");
        let values = |weights: &Weights| {
            let tensor = weights.tensor(name, shape).unwrap();
            let tensor = tensor.flatten_all().unwrap();
            (
                tensor.dtype(),
                tensor.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap(),
            )
        };
        let (_, expected) = values(&expected);
        let bits = |values: &[f32]| -> Vec<u32> { values.iter().map(|value| value.to_bits()).collect() };
        assert!(bits(&values(&wide).1) == bits(&expected), "{name}");
        let (held, narrow) = values(&narrow);
        match name {
            "F32" | "F64" => assert_eq!(held, DType::F32),
            "F16" => assert_eq!(held, DType::F16),
            _ => {
                assert_eq!(held, DType::BF16, "{name}");
                let rounded: Vec<f32> = expected
                    .iter()
                    .map(|&value| bf16::from_f32(value).to_f32())
                    .collect();
                assert!(bits(&narrow) == bits(&rounded), "{name}");
            }
        }
    }
}

#[test]
fn types_and_bytes_are_those_of_blocks() {
    let checkpoint = Checkpoint::open_file(fixture("types.gguf")).unwrap();
    let header = checkpoint.header("Q6_K").unwrap();
    assert_eq!((header.element_type, header.bytes), (ElementType::Q6K, 630));
    assert_eq!(checkpoint.header("convolution").unwrap().shape, [4, 16, 3, 4]);
    let weights = weights(fixture("types.gguf"), WeightType::AsStored);
    let held: Vec<u64> = weights
        .held()
        .filter(|(name, ..)| *name == "Q4_0")
        .map(|(.., bytes)| bytes)
        .collect();
    // As in the file: 18 bytes for 32 values.
    assert_eq!(held, [3 * 256 / 32 * 18]);
    let widened = self::weights(fixture("types.gguf"), WeightType::Bf16);
    let mut held = widened.held();
    assert!(held.any(|(name, _, bytes)| name == "Q4_0" && bytes == 3 * 256 * 2));
    let names: Vec<String> = checkpoint
        .tensors()
        .map(|(_, header)| header.element_type.to_string())
        .collect();
    assert!(names.contains(&"IQ4_XS".to_owned()), "{names:?}");
    assert_eq!(checkpoint.first_non_finite().unwrap(), None);
}

#[test]
fn metadata_is_read_on_demand() {
    let checkpoint = Checkpoint::open_file(fixture("types.gguf")).unwrap();
    let metadata = checkpoint.gguf_metadata().unwrap();
    assert_eq!(metadata.architecture(), Some("sdxl"));
    assert_eq!(metadata.text("tokenizer.ggml.model"), Some("t5"));
    assert_eq!(metadata.integer("small"), Some(7));
    assert_eq!(metadata.integer("negative"), Some(-(1 << 40)));
    assert_eq!(metadata.float("float"), Some(0.5));
    assert_eq!(metadata.boolean("yes"), Some(true));
    assert_eq!(metadata.array_length("tokenizer.ggml.tokens"), Some(4));
    let tokens = metadata.texts("tokenizer.ggml.tokens").unwrap().unwrap();
    assert_eq!(tokens, ["<pad>", "</s>", "▁a", "größer"]);
    let scores = metadata.floats("tokenizer.ggml.scores").unwrap().unwrap();
    assert_eq!(scores, [0.0, 0.0, -2.5, -3.25]);
    let kinds = metadata.integers("tokenizer.ggml.token_type").unwrap().unwrap();
    assert_eq!(kinds, [3, 3, 1, 1]);
    assert_eq!(metadata.texts("tokenizer.ggml.scores").unwrap(), None);
    assert_eq!(metadata.floats("missing").unwrap(), None);
    let safetensors = Checkpoint::open_file(fixture("expected.safetensors")).unwrap();
    assert!(safetensors.gguf_metadata().is_none());
}

/// A file with the given version and metadata, and a tensor for each entry: name, dimensions, type, offset.
fn file(version: u32, entries: &[Vec<u8>], tensors: &[(&str, &[u64], u32, u64)], data: usize) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(version.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((entries.len() as u64).to_le_bytes());
    bytes.extend(entries.concat());
    for (name, dimensions, kind, offset) in tensors {
        bytes.extend(text(name));
        bytes.extend((dimensions.len() as u32).to_le_bytes());
        dimensions
            .iter()
            .for_each(|size| bytes.extend(size.to_le_bytes()));
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(32) + data, 0);
    bytes
}

fn opened(bytes: &[u8]) -> Result<Checkpoint, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    std::fs::write(&path, bytes).unwrap();
    Checkpoint::open_file(path)
}

/// An entry of metadata: key, type and bytes of the value.
fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [
        &(key.len() as u64).to_le_bytes(),
        key.as_bytes(),
        &kind.to_le_bytes(),
        value,
    ]
    .concat()
}

#[test]
fn what_is_no_gguf_file_is_refused_with_a_reason() {
    let of = |tensors: &[(&str, &[u64], u32, u64)]| file(3, &[], tensors, 64);
    assert!(opened(&of(&[("a", &[4], 0, 0), ("b", &[4], 0, 32)])).is_ok());
    assert!(opened(&file(2, &[], &[("a", &[], 0, 0)], 64)).is_ok());
    let array = [&4_u32.to_le_bytes()[..], &3_u64.to_le_bytes(), &[0; 12]].concat();
    for (bytes, reason) in [
        (file(1, &[], &[], 0), "version is 1"),
        (file(3_u32.swap_bytes(), &[], &[], 0), "big-endian"),
        (of(&[("a", &[4], 0, 0), ("a", &[4], 0, 32)]), "two tensors `a`"),
        (of(&[("a", &[16], 0, 0), ("b", &[4], 0, 32)]), "overlap"),
        (of(&[("a", &[4], 0, 4)]), "multiple of 32"),
        (of(&[("a", &[31, 2], 2, 0)]), "no blocks of Q4_0"),
        (of(&[("a", &[1 << 40, 1 << 40], 0, 0)]), "impossible shape"),
        (of(&[("a", &[1; 9], 0, 0)]), "9 dimensions"),
        (of(&[("a", &[4], 0, u64::MAX - 31)]), "impossible offset"),
        (
            file(3, &[entry("general.alignment", 4, &[24, 0, 0, 0])], &[], 0),
            "no power of two",
        ),
        (file(3, &[entry("x", 13, &[])], &[], 0), "unknown type 13"),
        (
            file(
                3,
                &[entry("comfy.gguf.orig_shape.a", 9, &array)],
                &[("a", &[4], 0, 0)],
                64,
            ),
            "would have had the shape [0, 0, 0]",
        ),
        (
            file(3, &[entry("x", 9, &[9_u32.to_le_bytes(); 40].concat())], &[], 0),
            "without end",
        ),
    ] {
        let error = opened(&bytes).unwrap_err();
        assert!(
            matches!(&error, Error::BadGguf { reason: found, .. } if found.contains(reason)),
            "{reason}: {error:?}"
        );
    }
    let error = opened(&of(&[("a.b", &[256], 17, 0)])).unwrap_err();
    assert!(
        matches!(&error, Error::QuantizedTensor { tensor, method, .. } if tensor == "a.b" && method == "IQ2_XS"),
        "{error:?}"
    );
    let error = opened(&of(&[("a", &[17], 0, 0)])).unwrap_err();
    assert!(matches!(error, Error::Truncated { .. }), "{error:?}");
}

#[test]
fn a_file_that_ends_early_is_refused() {
    let whole = std::fs::read(fixture("types.gguf")).unwrap();
    for length in (5..whole.len() - 32).step_by(61) {
        let error = opened(&whole[..length]).unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{length}: {error:?}");
    }
}
