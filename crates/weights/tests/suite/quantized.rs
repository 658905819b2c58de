//! Quantised forms that several tensors make up, read through the public interface.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use half::bf16;
use safetensors::tensor::{Dtype, TensorView};
use sd_weights::{
    Checkpoint, ElementType, Error, ModelFolder, ModelPart, Residency, WeightOptions, WeightType, Weights,
};

use super::lora_files::{Files, adapters, assert_close, changed, random};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/quantized")
        .join(name)
}

fn weights(path: PathBuf, weight_type: WeightType) -> Weights {
    let options = WeightOptions::new(Device::Cpu, weight_type, Residency::Resident);
    Weights::new(Checkpoint::open_file(path).unwrap(), options)
}

fn values(weights: &Weights, name: &str) -> (DType, Vec<f32>) {
    let shape = weights.shape(name).unwrap().to_vec();
    let tensor = weights.tensor(name, &shape).unwrap().flatten_all().unwrap();
    (
        tensor.dtype(),
        tensor.to_dtype(DType::F32).unwrap().to_vec1().unwrap(),
    )
}

/// Compares all tensors of a file with what its maker computed, bit by bit but for those that `is_close` says.
fn check(file: &str, expected: &str, is_close: impl Fn(&str) -> bool) {
    let expected = weights(fixture(expected), WeightType::F32);
    let wide = weights(fixture(file), WeightType::F32);
    let narrow = weights(fixture(file), WeightType::AsStored);
    assert!(
        wide.names().eq(expected.names()),
        "{:?}",
        wide.names().collect::<Vec<_>>()
    );
    for name in expected.names() {
        assert_eq!(wide.shape(name), expected.shape(name), "{name}");
        let (_, wanted) = values(&expected, name);
        let (_, found) = values(&wide, name);
        if is_close(name) {
            let largest = wanted
                .iter()
                .fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let close = |(found, wanted): (&f32, &f32)| (found - wanted).abs() <= 1e-6 * largest;
            assert!(found.iter().zip(&wanted).all(close), "{name}");
            continue;
        }
        let differs = |(found, wanted): &(&f32, &f32)| found.to_bits() != wanted.to_bits();
        let difference = found
            .iter()
            .zip(&wanted)
            .enumerate()
            .find(|(_, pair)| differs(pair));
        assert_eq!(difference, None, "{name}");
        let (held, found) = values(&narrow, name);
        if held == DType::BF16 {
            let rounded = |(found, wanted): (&f32, &f32)| {
                found.to_bits() == bf16::from_f32(*wanted).to_f32().to_bits() || wanted.is_nan()
            };
            assert!(found.iter().zip(&wanted).all(rounded), "{name}");
        } else {
            assert_eq!(held, DType::F32, "{name}");
        }
    }
}

#[test]
fn values_have_the_bits_of_their_makers() {
    check("float8.safetensors", "float8.expected.safetensors", |_| false);
    check(
        "bitsandbytes.safetensors",
        "bitsandbytes.expected.safetensors",
        |_| false,
    );
    check(
        "scaled_fp8.safetensors",
        "scaled_fp8.expected.safetensors",
        |_| false,
    );
    check("bfl.safetensors", "bfl.expected.safetensors", |_| false);
    check("quanto.safetensors", "quanto.expected.safetensors", |_| false);
    // The sums of a rotation are taken in another order.
    let is_rotated = |name: &str| name.starts_with("rotated");
    for file in ["comfy.safetensors", "comfy.metadata.safetensors"] {
        check(file, "comfy.expected.safetensors", is_rotated);
    }
}

#[test]
fn types_are_those_of_the_forms() {
    let types = |file: &str| -> BTreeMap<String, String> {
        let checkpoint = Checkpoint::open_file(fixture(file)).unwrap();
        let names = checkpoint
            .tensors()
            .map(|(name, header)| (name.to_owned(), header.element_type.to_string()));
        names.collect()
    };
    let found = types("bitsandbytes.safetensors");
    assert_eq!(found["nested.weight"], "NF4");
    assert_eq!(found["flat.weight"], "FP4");
    assert_eq!(found["eight.weight"], "INT8");
    let found = types("comfy.safetensors");
    assert_eq!(
        (found["mxfp8.weight"].as_str(), found["nvfp4.weight"].as_str()),
        ("MXFP8", "NVFP4")
    );
    let checkpoint = Checkpoint::open_file(fixture("comfy.safetensors")).unwrap();
    assert_eq!(checkpoint.main_type(), Some(ElementType::Mxfp8));
    assert_eq!(checkpoint.first_non_finite().unwrap(), None);
    let float8 = Checkpoint::open_file(fixture("float8.safetensors")).unwrap();
    let (_, first) = float8.first_non_finite().unwrap().unwrap();
    assert_eq!(first, "e4m3");
}

#[test]
fn rows_of_quantised_tables_are_read() {
    let weights = weights(fixture("comfy.safetensors"), WeightType::AsStored);
    for name in ["mxfp8.weight", "nvfp4.weight", "rotated64.weight", "rows.weight"] {
        let shape = weights.shape(name).unwrap().to_vec();
        let (_, whole) = values(&weights, name);
        let row = |index: usize| &whole[index * shape[1]..(index + 1) * shape[1]];
        let rows = weights.table(name, &shape).unwrap().rows(&[2, 0]).unwrap();
        let rows: Vec<Vec<f32>> = rows.to_dtype(DType::F32).unwrap().to_vec2().unwrap();
        assert!(rows[0] == row(2) && rows[1] == row(0), "{name}");
    }
}

#[test]
fn a_lora_updates_quantised_weights() {
    let checkpoint = Checkpoint::open_file(fixture("comfy.safetensors")).unwrap();
    let before = weights(fixture("comfy.safetensors"), WeightType::F32);
    let files = Files::new();
    let matrices = |name: &str, seed| {
        let shape = before.shape(&format!("{name}.weight")).unwrap();
        let (up, down) = (random(&[shape[0], 2], seed), random(&[2, shape[1]], seed + 1));
        (name.to_owned(), up, down)
    };
    let layers = [matrices("int8", 3), matrices("mxfp8", 5), matrices("rows", 7)];
    let tensors: Vec<_> = layers
        .iter()
        .flat_map(|(name, up, down)| {
            let name = |matrix: &str| format!("lora_unet_{name}.lora_{matrix}.weight");
            [(name("up"), up.clone()), (name("down"), down.clone())]
        })
        .collect();
    let lora = files.lora(&tensors).unwrap();
    let fit = lora.fit(&[(ModelPart::Denoiser, &checkpoint)]).unwrap();
    let after = before.with_adapters(adapters(ModelPart::Denoiser, &[(&fit, 0.5)]));
    for (name, up, down) in &layers {
        let name = format!("{name}.weight");
        let shape = before.shape(&name).unwrap();
        let expected = changed(&before.tensor(&name, shape).unwrap(), down, up, 0.5);
        assert_close(&after.tensor(&name, shape).unwrap(), &expected, 1e-6);
    }
}

/// A tensor of a file: name, type, shape, bytes.
type Entry<'a> = (&'a str, Dtype, &'a [usize], &'a [u8]);

fn opened(tensors: &[Entry<'_>]) -> Result<Checkpoint, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let tensors = tensors.iter().map(|&(name, dtype, shape, bytes)| {
        (
            name.to_owned(),
            TensorView::new(dtype, shape.to_vec(), bytes).unwrap(),
        )
    });
    safetensors::serialize_to_file(tensors, None, &path).unwrap();
    Checkpoint::open_file(path)
}

#[test]
fn forms_that_are_not_read_are_refused_by_name() {
    let weight: Entry<'_> = ("a.weight", Dtype::I8, &[2, 2], &[0; 4]);
    let refused = |tensors: &[Entry<'_>], wanted: &str| {
        let error = opened(tensors).unwrap_err();
        assert!(
            matches!(&error, Error::QuantizedTensor { tensor, method, .. } if tensor.starts_with("a.") && method == wanted),
            "{error:?}"
        );
    };
    for (name, method) in [
        ("a.wscales", "SVDQuant (nunchaku)"),
        ("a.qzeros", "AWQ or GPTQ"),
        ("a.weight._data._data", "quanto in 4 bits"),
        ("a.weight_quantizer._scale", "ModelOpt"),
        ("a._weight_qdata", "torchao"),
        ("a.scale", "SDNQ"),
    ] {
        refused(&[weight, (name, Dtype::F32, &[], &[0; 4])], method);
    }
    let json = br#"{"format": "awq_w4a16", "group": 64}"#;
    refused(
        &[weight, ("a.comfy_quant", Dtype::U8, &[json.len()], json)],
        "awq_w4a16",
    );
    let json = br#"{"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": 1024}"#;
    refused(
        &[
            weight,
            ("a.comfy_quant", Dtype::U8, &[json.len()], json),
            ("a.weight_scale", Dtype::F32, &[], &[0; 4]),
        ],
        "int8_tensorwise with rotated groups of 1024 among 2 inputs",
    );
}

#[test]
fn scales_that_do_not_fit_are_refused() {
    let state = br#"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [4, 32]}"#;
    let whole: [Entry<'_>; 4] = [
        ("a.weight", Dtype::U8, &[64, 1], &[0; 64]),
        ("a.weight.absmax", Dtype::F32, &[2], &[0; 8]),
        ("a.weight.quant_map", Dtype::F32, &[16], &[0; 64]),
        (
            "a.weight.quant_state.bitsandbytes__nf4",
            Dtype::U8,
            &[state.len()],
            state,
        ),
    ];
    let checkpoint = opened(&whole).unwrap();
    assert_eq!(checkpoint.header("a.weight").unwrap().shape, [4, 32]);
    assert_eq!(checkpoint.tensors().count(), 1);
    assert_eq!(checkpoint.bytes(), 64 + 8 + 64);
    for (index, entry) in [
        (0, ("a.weight", Dtype::U8, &[63, 1][..], &[0; 63][..])),
        (1, ("a.weight.absmax", Dtype::F32, &[3], &[0; 12])),
        (1, ("a.weight.absmax", Dtype::U8, &[2], &[0; 2])),
        (2, ("a.weight.quant_map", Dtype::F32, &[15], &[0; 60])),
        (
            3,
            ("a.weight.quant_state.bitsandbytes__nf4", Dtype::U8, &[2], b"{}"),
        ),
    ] {
        let mut tensors = whole;
        tensors[index] = entry;
        let error = opened(&tensors).unwrap_err();
        assert!(
            matches!(&error, Error::BadQuantization { tensor, .. } if tensor == "a.weight"),
            "{error:?}"
        );
    }
    let scales: Entry<'_> = ("a.weight_scale", Dtype::F32, &[3], &[0; 12]);
    let error = opened(&[("a.weight", Dtype::F8_E4M3, &[2, 2], &[0; 4]), scales]).unwrap_err();
    assert!(matches!(error, Error::BadQuantization { .. }), "{error:?}");
}

#[test]
fn a_weight_and_its_scales_may_lie_in_different_shards() {
    let folder = tempfile::tempdir().unwrap();
    let component = folder.path().join("unet");
    fs::create_dir(&component).unwrap();
    let bytes = fs::read(fixture("bitsandbytes.safetensors")).unwrap();
    let whole = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut shards: BTreeMap<String, Vec<(String, TensorView<'_>)>> = BTreeMap::new();
    for (index, (name, view)) in whole.tensors().into_iter().enumerate() {
        shards
            .entry(format!("{}.safetensors", index % 3))
            .or_default()
            .push((name, view));
    }
    let names = shards
        .iter()
        .flat_map(|(shard, tensors)| tensors.iter().map(move |(name, _)| (name, shard)));
    let index = serde_json::json!({ "weight_map": names.collect::<BTreeMap<_, _>>() });
    fs::write(component.join("model.safetensors.index.json"), index.to_string()).unwrap();
    let config = serde_json::json!({ "quantization_config": { "quant_method": "bitsandbytes", "load_in_4bit": true } });
    fs::write(component.join("config.json"), config.to_string()).unwrap();
    for (shard, tensors) in shards {
        safetensors::serialize_to_file(tensors, None, &component.join(shard)).unwrap();
    }
    let checkpoint = ModelFolder::on_disk(folder.path()).checkpoint("unet").unwrap();
    assert_eq!(checkpoint.identity().unwrap().len(), 3);
    let options = WeightOptions::new(Device::Cpu, WeightType::F32, Residency::Resident);
    let found = Weights::new(checkpoint, options);
    let expected = weights(fixture("bitsandbytes.expected.safetensors"), WeightType::F32);
    for name in expected.names() {
        assert!(values(&found, name) == values(&expected, name), "{name}");
    }
}
