//! LoRA files merged into weights as they are read: against diffusers, against a plain computation, at every
//! residency.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::lora_files::{Files, adapters, assert_close, changed, held, random, values};
use candle_core::{DType, Device, Tensor};
use sd_weights::{Blocks, Checkpoint, Error, Fit, LoraFile, ModelFolder, ModelPart, Residency, WeightType};
use sha2::{Digest, Sha256};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/lora")
        .join(format!("{name}.safetensors"))
}

#[test]
fn weights_are_those_that_diffusers_fuses() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("unet")).unwrap();
    std::fs::copy(fixture("unet"), directory.path().join("unet/model.safetensors")).unwrap();
    let unet = ModelFolder::on_disk(directory.path()).checkpoint("unet").unwrap();
    for name in ["diffusers", "kohya", "original"] {
        let file = Arc::new(LoraFile::open(fixture(name)).unwrap());
        let fit = file.fit(&[(ModelPart::Denoiser, &unet)]).unwrap();
        assert_eq!(
            (fit.matched(), fit.unmatched()),
            (file.layer_count(), &[][..]),
            "{name}"
        );
        let adapters = adapters(ModelPart::Denoiser, &[(&fit, 0.7)]);
        let fused = candle_core::safetensors::load(fixture(&format!("{name}.fused")), &Device::Cpu).unwrap();
        assert_eq!(adapters.tensor_count(), fused.len(), "{name}");
        let weights = held(&unet, WeightType::F32, &adapters);
        for (tensor, expected) in &fused {
            let found = weights.tensor(tensor, expected.dims()).unwrap();
            assert_close(&found, expected, 1e-6);
            let before = held(&unet, WeightType::F32, &Arc::default())
                .tensor(tensor, expected.dims())
                .unwrap();
            assert!(
                values(&before) != values(&found),
                "{name} does not change {tensor}"
            );
        }
    }
}

#[test]
fn folders_of_peft_are_added_as_their_settings_say() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("unet")).unwrap();
    std::fs::copy(fixture("unet"), directory.path().join("unet/model.safetensors")).unwrap();
    let unet = ModelFolder::on_disk(directory.path()).checkpoint("unet").unwrap();
    for name in ["peft-patterns", "peft-rslora"] {
        let path = fixture(name).with_extension("").join("adapter_model.safetensors");
        let file = Arc::new(LoraFile::open(&path).unwrap());
        assert_eq!(file.missing_settings(), None);
        let fit = file.fit(&[(ModelPart::Denoiser, &unet)]).unwrap();
        let adapters = adapters(ModelPart::Denoiser, &[(&fit, 1.0)]);
        let fused = candle_core::safetensors::load(fixture(&format!("{name}.fused")), &Device::Cpu).unwrap();
        assert_eq!(adapters.tensor_count(), fused.len(), "{name}");
        let weights = held(&unet, WeightType::F32, &adapters);
        for (tensor, expected) in &fused {
            assert_close(&weights.tensor(tensor, expected.dims()).unwrap(), expected, 1e-6);
        }

        // Missing settings are reported; settings that need more than LoRA are refused by name.
        let alone = directory.path().join("adapter_model.safetensors");
        std::fs::copy(&path, &alone).unwrap();
        let settings = alone.with_file_name("adapter_config.json");
        std::fs::remove_file(&settings).unwrap_or_default();
        assert_eq!(
            LoraFile::open(&alone).unwrap().missing_settings(),
            Some(settings.as_path())
        );
        std::fs::write(&settings, r#"{"lora_alpha": 4, "use_qalora": true}"#).unwrap();
        let error = LoraFile::open(&alone).unwrap_err().to_string();
        assert!(error.contains("`use_qalora` is true"), "{error}");
        std::fs::write(&settings, r#"{"lora_alpha": 4, "use_dora": true}"#).unwrap();
        let error = LoraFile::open(&alone).unwrap_err().to_string();
        assert!(error.contains("it has no magnitudes"), "{error}");
        std::fs::write(&settings, "{").unwrap();
        assert!(LoraFile::open(&alone).is_err());
    }
}

#[test]
fn files_are_known_by_webui_s_hash() {
    let files = Files::new();
    let tensors = [
        ("conv.lora_A.weight", random(&[2, 3], 1)),
        ("conv.lora_B.weight", random(&[4, 2], 2)),
    ];
    let path = files.write("plain.safetensors", &tensors);
    let bytes = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let digest = Sha256::digest(&bytes[8 + header..]);
    let expected: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(LoraFile::open(path).unwrap().hash().unwrap(), expected);
}

#[test]
fn values_that_are_no_numbers_are_found_before_they_are_used() {
    let files = Files::new();
    let lora = |up: Tensor| {
        files.lora(&[
            ("conv.lora_A.weight", random(&[2, 3], 1)),
            ("conv.lora_B.weight", up),
        ])
    };
    lora(random(&[4, 2], 2)).unwrap().check_values().unwrap();
    for value in [f32::NAN, f32::INFINITY] {
        let mut values = vec![0.5; 8];
        values[7] = value;
        let up = Tensor::from_vec(values, (4, 2), &Device::Cpu).unwrap();
        let error = lora(up).unwrap().check_values().unwrap_err();
        assert!(matches!(error, Error::BadLora { .. }), "{error:?}");
    }
    // An unsupported type is found in the header.
    let error = lora(Tensor::zeros((4, 2), DType::U32, &Device::Cpu).unwrap()).unwrap_err();
    assert!(matches!(error, Error::UnsupportedType { .. }), "{error:?}");
}

#[test]
fn convolutions_alphas_and_cores_count() {
    let files = Files::new();
    let (wide, point) = (random(&[4, 3, 3, 3], 1), random(&[4, 2, 1, 1], 2));
    let network = files.network(&[
        ("conv_a.weight", wide.clone()),
        ("conv_b.weight", wide.clone()),
        ("conv_c.weight", point.clone()),
    ]);
    let alpha = |value: f64| Tensor::new(value, &Device::Cpu).unwrap();
    let file = files
        .lora(&[
            ("lora_unet_conv_a.lora_down.weight", random(&[2, 3, 3, 3], 3)),
            ("lora_unet_conv_a.lora_up.weight", random(&[4, 2, 1, 1], 4)),
            ("lora_unet_conv_a.alpha", alpha(3.0)),
            // Decomposed once more: inputs to 2, a core of 3 x 3 from 2 to 5.
            ("lora_unet_conv_b.lora_down.weight", random(&[2, 3, 1, 1], 5)),
            ("lora_unet_conv_b.lora_mid.weight", random(&[5, 2, 3, 3], 6)),
            ("lora_unet_conv_b.lora_up.weight", random(&[4, 5, 1, 1], 7)),
            ("lora_unet_conv_b.alpha", alpha(1.0).to_dtype(DType::F16).unwrap()),
            // A linear layer's matrices for a convolution by 1 x 1.
            ("lora_unet_conv_c.lora_down.weight", random(&[3, 2], 8)),
            ("lora_unet_conv_c.lora_up.weight", random(&[4, 3], 9)),
            (
                "lora_unet_conv_c.alpha",
                Tensor::new(&[6_i64], &Device::Cpu).unwrap(),
            ),
            ("lora_unet_not_there.lora_down.weight", random(&[3, 2], 8)),
            ("lora_unet_not_there.lora_up.weight", random(&[4, 3], 9)),
        ])
        .unwrap();
    let fit = file.fit(&[(ModelPart::Denoiser, &network)]).unwrap();
    assert_eq!(
        (fit.matched(), fit.unmatched()),
        (3, &["not_there".to_owned()][..])
    );
    let weights = held(
        &network,
        WeightType::F32,
        &adapters(ModelPart::Denoiser, &[(&fit, 2.0)]),
    );
    let found = |name: &str, shape: &[usize]| weights.tensor(name, shape).unwrap();
    assert_close(
        &found("conv_a.weight", &[4, 3, 3, 3]),
        &changed(&wide, &random(&[2, 3, 3, 3], 3), &random(&[4, 2, 1, 1], 4), 3.0),
        1e-6,
    );
    // core[r, s, y, x] * down[s, i], summed over s: [5, 3, 3, 3].
    let core = random(&[5, 2, 3, 3], 6)
        .permute((0, 2, 3, 1))
        .unwrap()
        .reshape((45, 2))
        .unwrap();
    let down = core
        .matmul(&random(&[2, 3], 5))
        .unwrap()
        .reshape((5, 3, 3, 3))
        .unwrap();
    let down = down.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
    assert_close(
        &found("conv_b.weight", &[4, 3, 3, 3]),
        &changed(&wide, &down, &random(&[4, 5, 1, 1], 7), 2.0 / 5.0),
        1e-6,
    );
    assert_close(
        &found("conv_c.weight", &[4, 2, 1, 1]),
        &changed(&point, &random(&[3, 2], 8), &random(&[4, 3], 9), 4.0),
        1e-6,
    );
}

const BLOCKS: usize = 4;
/// More than is changed at a time, and not a whole number of it.
const SHAPE: [usize; 2] = [700, 2003];

/// A network of blocks, and two files that change all of them, of which one is in 16 bits.
fn blocks(files: &Files) -> (Checkpoint, [Fit; 2]) {
    let name = |block: usize| format!("{block}.weight");
    let tensors: Vec<(String, Tensor)> = (0..BLOCKS)
        .map(|block| {
            let kind = if block == 0 { DType::F32 } else { DType::BF16 };
            (name(block), random(&SHAPE, block as u64).to_dtype(kind).unwrap())
        })
        .collect();
    let network = files.network(&tensors);
    let fits = [(DType::F32, 8), (DType::F16, 3)].map(|(kind, rank)| {
        let tensors: Vec<(String, Tensor)> = (0..BLOCKS)
            .flat_map(|block| {
                [
                    (
                        format!("{block}.lora_A.weight"),
                        random(&[rank, SHAPE[1]], 10 + rank as u64),
                    ),
                    (
                        format!("{block}.lora_B.weight"),
                        random(&[SHAPE[0], rank], 20 + rank as u64),
                    ),
                ]
            })
            .map(|(name, tensor)| (name, tensor.to_dtype(kind).unwrap()))
            .collect();
        let path = files.write(&format!("lora-{rank}.safetensors"), &tensors);
        let file = Arc::new(LoraFile::open(path).unwrap());
        file.fit(&[(ModelPart::Denoiser, &network)]).unwrap()
    });
    (network, fits)
}

#[test]
fn streamed_blocks_have_the_bits_of_resident_ones() {
    let files = Files::new();
    let (network, [one, other]) = blocks(&files);
    let adapters = adapters(ModelPart::Denoiser, &[(&one, 0.8), (&other, -0.3)]);
    for weight_type in [WeightType::AsStored, WeightType::F32, WeightType::Bf16] {
        let read = |residency: Residency| -> Vec<Vec<f32>> {
            let weights = held(&network, weight_type, &adapters).with_residency(residency);
            let blocks = Blocks::new((0..BLOCKS).map(|block| weights.scope(block)), |_, weights| {
                weights.tensor("weight", &SHAPE)
            })
            .unwrap();
            let mut found = Vec::new();
            // The second pass reads into the buffers of the first.
            for _ in 0..2 {
                found = blocks
                    .pass()
                    .unwrap()
                    .map(|block| values(&block.unwrap()))
                    .collect();
            }
            found
        };
        let resident = read(Residency::Resident);
        assert!(read(Residency::Streamed) == resident, "{weight_type:?}");
        assert!(read(Residency::Partly(2)) == resident, "{weight_type:?}");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert!(
            pool.install(|| read(Residency::Resident)) == resident,
            "{weight_type:?}"
        );
        // Rounded once: the exact sum, as far as 32 bits go, in the type that it is held in.
        let base = random(&SHAPE, 1)
            .to_dtype(DType::BF16)
            .unwrap()
            .to_dtype(DType::F32)
            .unwrap();
        let narrow = |tensor: Tensor| tensor.to_dtype(DType::F16).unwrap().to_dtype(DType::F32).unwrap();
        let first = changed(
            &base,
            &random(&[8, SHAPE[1]], 18),
            &random(&[SHAPE[0], 8], 28),
            0.8,
        );
        let both = changed(
            &first,
            &narrow(random(&[3, SHAPE[1]], 13)),
            &narrow(random(&[SHAPE[0], 3], 23)),
            -0.3,
        );
        let (expected, tolerance) = match weight_type {
            WeightType::F32 => (both, 1e-6),
            // A few sums lie so near the middle of two numbers that 32 bits do not tell on which side.
            _ => (both.to_dtype(DType::BF16).unwrap(), 1e-4),
        };
        let found = Tensor::from_slice(&resident[1], &SHAPE, &Device::Cpu).unwrap();
        assert_close(&found, &expected, tolerance);
    }
}

#[test]
fn rows_of_a_table_are_changed_like_the_table() {
    let files = Files::new();
    let (network, [one, _]) = blocks(&files);
    let weights = held(
        &network,
        WeightType::F32,
        &adapters(ModelPart::Denoiser, &[(&one, 1.5)]),
    );
    let table = weights.tensor("1.weight", &SHAPE).unwrap();
    let rows = weights
        .table("1.weight", &SHAPE)
        .unwrap()
        .rows(&[699, 3])
        .unwrap();
    let expected = Tensor::cat(
        &[table.narrow(0, 699, 1).unwrap(), table.narrow(0, 3, 1).unwrap()],
        0,
    )
    .unwrap();
    assert!(values(&rows) == values(&expected));
}
