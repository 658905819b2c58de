//! Checks of a network's tensors before any of them is read.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use sd_weights::{
    Blocks, Checkpoint, ElementType, Error, LoraFile, Residency, WeightOptions, WeightType, Weights,
};

/// A file of tensors, each with its type, shape and bytes of zeros.
fn write(path: &Path, tensors: &[(&str, Dtype, &[usize])]) {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, dtype, shape)| vec![0; shape.iter().product::<usize>() * dtype.bitsize() / 8])
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, dtype, shape), bytes)| {
        (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn weights(path: &Path, weight_type: WeightType) -> Weights {
    let options = WeightOptions::new(Device::Cpu, weight_type, Residency::Streamed);
    Weights::new(Checkpoint::open_file(path).unwrap(), options)
}

/// Layers of a `weight`, `[3, 2]`, and a `bias`, `[3]`.
fn layers(weights: &Weights, count: usize) -> sd_weights::Result<Blocks<()>> {
    let scopes = (0..count).map(|layer| weights.scope("layers").scope(layer));
    Blocks::new(scopes, |_, weights| {
        weights.tensor("weight", &[3, 2])?;
        weights.tensor("bias", &[3]).map(drop)
    })
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    (directory, path)
}

/// Names, types and shapes.
type Tensors<'a> = Vec<(&'a str, Dtype, &'a [usize])>;

#[test]
fn what_a_network_will_read_is_checked_when_its_blocks_are_listed() {
    let (_directory, path) = file();
    let whole: [(&str, Dtype, &[usize]); 4] = [
        ("layers.0.weight", Dtype::F32, &[3, 2]),
        ("layers.0.bias", Dtype::F16, &[3]),
        ("layers.1.weight", Dtype::BF16, &[3, 2]),
        ("layers.1.bias", Dtype::F64, &[3]),
    ];
    write(&path, &whole);
    layers(&weights(&path, WeightType::AsStored), 2).unwrap();

    let listed = |change: &dyn Fn(&mut Tensors<'_>)| {
        let mut tensors = whole.to_vec();
        change(&mut tensors);
        write(&path, &tensors);
        layers(&weights(&path, WeightType::AsStored), 2).unwrap_err()
    };
    let missing = listed(&|tensors| {
        tensors.remove(2);
    });
    assert!(
        matches!(&missing, Error::MissingTensor { tensor, .. } if tensor == "layers.1.weight"),
        "{missing:?}"
    );
    let shape = listed(&|tensors| tensors[3].2 = &[4]);
    assert!(
        matches!(&shape, Error::WrongShape { tensor, wanted, found, .. }
            if tensor == "layers.1.bias" && **wanted == [3] && **found == [4]),
        "{shape:?}"
    );
    let kind = listed(&|tensors| tensors[0].1 = Dtype::I32);
    assert!(
        matches!(&kind, Error::UnsupportedType { tensor, found: ElementType::I32, .. } if tensor == "layers.0.weight"),
        "{kind:?}"
    );
    // Of several errors the first is reported, with the number of the others.
    let several = listed(&|tensors| {
        tensors[1].2 = &[2];
        tensors.truncate(2);
    });
    let Error::Unfit { first, others: 2 } = &several else {
        panic!("{several:?}");
    };
    assert!(matches!(**first, Error::WrongShape { .. }), "{first:?}");
    let message = several.to_string();
    assert!(
        message.contains("`layers.0.bias`")
            && message.ends_with("; 2 other tensors of this network do not fit either"),
        "{message}"
    );
}

#[test]
fn a_name_with_another_prefix_is_suggested() {
    let (_directory, path) = file();
    write(
        &path,
        &[
            ("network.layers.0.weight", Dtype::F32, &[3, 2]),
            ("network.layers.0.bias", Dtype::F32, &[3]),
        ],
    );
    let error = layers(&weights(&path, WeightType::AsStored), 1).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("has no tensor `layers.0.weight` (but `network.layers.0.weight`)"),
        "{message}"
    );
}

#[test]
fn nothing_is_read_for_it_however_large() {
    // A header that promises 64 GB of a file that has no block of them.
    let (_directory, path) = file();
    let header = r#"{"layers.0.weight": {"dtype": "F32", "shape": [3, 2], "data_offsets": [0, 24]},
        "layers.0.bias": {"dtype": "F32", "shape": [3], "data_offsets": [24, 36]},
        "large": {"dtype": "F32", "shape": [16, 1073741824], "data_offsets": [36, 68719476772]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    std::fs::write(&path, &bytes).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(bytes.len() as u64 + 68_719_476_772).unwrap();
    let weights = weights(&path, WeightType::AsStored);
    layers(&weights, 1).unwrap();
    assert!(weights.table("large", &[16, 1 << 30]).is_ok());
    // And a configuration that asks for what no machine has is an error, not an attempt.
    let endless = Blocks::single(weights, |weights| {
        weights.tensor("layers.0.bias", &[usize::MAX, 3])
    });
    assert!(matches!(endless.unwrap_err(), Error::WrongShape { .. }));
}

#[test]
fn a_table_is_checked_before_its_rows_are_read() {
    let (_directory, path) = file();
    write(
        &path,
        &[("table", Dtype::F32, &[4, 2]), ("numbers", Dtype::I64, &[4, 2])],
    );
    let weights = weights(&path, WeightType::AsStored);
    assert!(matches!(
        weights.table("table", &[2, 4]),
        Err(Error::WrongShape { .. })
    ));
    assert!(matches!(
        weights.table("numbers", &[4, 2]),
        Err(Error::UnsupportedType { .. })
    ));
    assert!(matches!(
        weights.table("other", &[4, 2]),
        Err(Error::MissingTensor { .. })
    ));
}

#[test]
fn numbers_of_64_bits_are_held_in_32() {
    let (_directory, path) = file();
    // More than are converted at a time.
    let count = (1 << 19) + 3;
    let numbers: Vec<f64> = (0..count).map(|index| f64::from(index) / 3.0 - 1e5).collect();
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F64, vec![count as usize], &bytes).unwrap();
    safetensors::serialize_to_file([("numbers", view)], None, &path).unwrap();
    let shape = [count as usize];
    let narrow: Vec<f32> = numbers.iter().map(|&number| number as f32).collect();
    for weight_type in [WeightType::AsStored, WeightType::F32] {
        let weights = weights(&path, weight_type);
        let held: Vec<u64> = weights.held().map(|(.., bytes)| bytes).collect();
        assert_eq!(held, [4 * u64::from(count as u32)]);
        let tensor = weights.tensor("numbers", &shape).unwrap();
        assert_eq!(tensor.dtype(), DType::F32);
        assert!(tensor.to_vec1::<f32>().unwrap() == narrow);
        let block =
            Blocks::single(weights.clone(), move |weights| weights.tensor("numbers", &shape)).unwrap();
        assert!(
            block
                .pass()
                .unwrap()
                .next()
                .unwrap()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
                == narrow
        );
        let rows = weights.table("numbers", &shape).unwrap().rows(&[0]).unwrap();
        assert!(rows.to_vec2::<f32>().unwrap()[0] == narrow);
    }
    let halves = weights(&path, WeightType::Bf16)
        .tensor("numbers", &shape)
        .unwrap();
    let expected: Vec<half::bf16> = narrow
        .iter()
        .map(|&number| half::bf16::from_f32(number))
        .collect();
    assert!(halves.to_vec1::<half::bf16>().unwrap() == expected);
    assert_eq!(
        Checkpoint::open_file(&path).unwrap().first_non_finite().unwrap(),
        None
    );
}

#[test]
fn the_types_of_a_lora_are_known_when_it_is_opened() {
    let (_directory, path) = file();
    let of = |dtype| {
        write(
            &path,
            &[
                ("lora_unet_mid.lora_up.weight", dtype, &[3, 1]),
                ("lora_unet_mid.lora_down.weight", Dtype::F64, &[1, 2]),
            ],
        );
        LoraFile::open(&path)
    };
    assert!(of(Dtype::F64).is_ok());
    assert!(of(Dtype::F8_E4M3).is_ok());
    assert!(matches!(
        of(Dtype::I16).unwrap_err(),
        Error::UnsupportedType {
            found: ElementType::I16,
            ..
        }
    ));
}
