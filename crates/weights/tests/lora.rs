//! LoRA files added to weights while these are read: against diffusers, against a plain computation, at every residency.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use sd_weights::{
    Adapters, Blocks, Checkpoint, Error, Fit, Holding, LoraFile, ModelFamily, ModelFolder, ModelPart,
    Residency, WeightType, Weights,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/lora")
        .join(format!("{name}.safetensors"))
}

/// Numbers between -1 and 1 that look random, the same for the same seed.
fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let values = (0..shape.iter().product()).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    });
    Tensor::from_vec(values.collect::<Vec<f32>>(), shape, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_dtype(DType::F32).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.dims(), expected.dims());
    let norm =
        |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let (found, expected) = (values(found), values(expected));
    let error = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b));
    let size = norm(&mut expected.iter().copied());
    assert!(error <= tolerance * size, "relative error {}", error / size);
}

/// Named tensors in the file `name` of a folder.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("network")).unwrap();
        Self(directory)
    }

    fn network(&self, tensors: &[(&str, Tensor)]) -> Checkpoint {
        self.write("network/model.safetensors", tensors);
        self.checkpoint()
    }

    fn checkpoint(&self) -> Checkpoint {
        ModelFolder::on_disk(self.0.path()).checkpoint("network").unwrap()
    }

    fn write(&self, name: &str, tensors: &[(&str, Tensor)]) -> PathBuf {
        let path = self.0.path().join(name);
        let tensors: HashMap<&str, Tensor> = tensors.iter().cloned().collect();
        candle_core::safetensors::save(&tensors, &path).unwrap();
        path
    }

    fn lora(&self, tensors: &[(&str, Tensor)]) -> Result<Arc<LoraFile>, Error> {
        LoraFile::open(self.write("lora.safetensors", tensors)).map(Arc::new)
    }
}

fn held(checkpoint: &Checkpoint, weight_type: WeightType, adapters: &Arc<Adapters>) -> Weights {
    let holding = Holding::new(Device::Cpu, weight_type, Residency::Resident);
    Weights::new(checkpoint.clone(), holding).with_adapters(adapters.clone())
}

fn adapters(part: ModelPart, fits: &[(&Fit, f32)]) -> Arc<Adapters> {
    Arc::new(Adapters::new(part, fits))
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

/// `weight + factor * up @ down`, with everything after the first dimension taken together.
fn changed(weight: &Tensor, down: &Tensor, up: &Tensor, factor: f64) -> Tensor {
    let matrix = |tensor: &Tensor| tensor.flatten_from(1).unwrap();
    let product = (matrix(up).matmul(&matrix(down)).unwrap() * factor).unwrap();
    (weight + product.reshape(weight.dims()).unwrap()).unwrap()
}

#[test]
fn every_naming_changes_the_layer_it_names() {
    let files = Files::new();
    let linear = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0";
    let network = files.network(&[
        (&format!("{linear}.weight"), random(&[6, 5], 1)),
        ("down_blocks.0.resnets.0.conv1.weight", random(&[4, 3, 3, 3], 2)),
        ("down_blocks.1.resnets.0.conv1.weight", random(&[4, 3, 3, 3], 3)),
    ]);
    let (down, up) = (random(&[2, 5], 4), random(&[6, 2], 5));
    let flat = linear.replace('.', "_");
    let base = random(&[6, 5], 1);
    for (down_name, up_name) in [
        (
            format!("lora_unet_{flat}.lora_down.weight"),
            format!("lora_unet_{flat}.lora_up.weight"),
        ),
        (
            "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_out_0.lora_down.weight".to_owned(),
            "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_out_0.lora_up.weight".to_owned(),
        ),
        (
            format!("unet.{linear}.lora.down.weight"),
            format!("unet.{linear}.lora.up.weight"),
        ),
        (
            format!("unet.{linear}.lora_A.weight"),
            format!("unet.{linear}.lora_B.weight"),
        ),
        (
            format!("{linear}.lora_A.weight"),
            format!("{linear}.lora_B.weight"),
        ),
        (
            format!("base_model.model.{linear}.lora_A.weight"),
            format!("base_model.model.{linear}.lora_B.weight"),
        ),
        (
            format!("base_model.model.{linear}.lora_A.default.weight"),
            format!("base_model.model.{linear}.lora_B.default.weight"),
        ),
        (
            format!(
                "unet.{}.processor.to_out_lora.down.weight",
                linear.strip_suffix(".to_out.0").unwrap()
            ),
            format!(
                "unet.{}.processor.to_out_lora.up.weight",
                linear.strip_suffix(".to_out.0").unwrap()
            ),
        ),
    ] {
        let file = files
            .lora(&[(&down_name, down.clone()), (&up_name, up.clone())])
            .unwrap();
        let fit = file.fit(&[(ModelPart::Denoiser, &network)]).unwrap();
        assert_eq!(fit.matched(), 1, "{down_name}");
        let adapters = adapters(ModelPart::Denoiser, &[(&fit, 0.5)]);
        let found = held(&network, WeightType::F32, &adapters)
            .tensor(&format!("{linear}.weight"), &[6, 5])
            .unwrap();
        assert_close(&found, &changed(&base, &down, &up, 0.5), 1e-6);
    }
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

#[test]
fn fused_layers_are_split_and_exchanged_halves_put_right() {
    let files = Files::new();
    let block = "transformer_blocks.0";
    let network = files.network(&[
        (&format!("{block}.attn.to_q.weight"), random(&[4, 4], 1)),
        (&format!("{block}.attn.to_k.weight"), random(&[4, 4], 2)),
        (&format!("{block}.attn.to_v.weight"), random(&[4, 4], 3)),
        (
            &format!("{block}.norm1_context.linear.weight"),
            random(&[8, 4], 4),
        ),
        ("norm_out.linear.weight", random(&[8, 4], 4)),
    ]);
    let (down, up) = (random(&[2, 4], 5), random(&[12, 2], 6));
    let norm = |name: &str| {
        [
            (format!("{name}.lora_down.weight"), down.clone()),
            (format!("{name}.lora_up.weight"), up.narrow(0, 0, 8).unwrap()),
        ]
    };
    let tensors = [
        (
            "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight".to_owned(),
            down.clone(),
        ),
        (
            "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_up.weight".to_owned(),
            up.clone(),
        ),
    ]
    .into_iter()
    .chain(norm("lora_unet_joint_blocks_0_context_block_adaLN_modulation_1"))
    .chain(norm("lora_unet_final_layer_adaLN_modulation_1"))
    .collect::<Vec<_>>();
    let named: Vec<(&str, Tensor)> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.clone()))
        .collect();
    let file = files.lora(&named).unwrap();
    let width = ModelFamily::StableDiffusion3 { width: Some(4) };
    assert_eq!(file.family(), Some(width));
    let fit = file.fit(&[(ModelPart::Denoiser, &network)]).unwrap();
    let adapters = adapters(ModelPart::Denoiser, &[(&fit, 1.0)]);
    assert_eq!((fit.matched(), adapters.tensor_count()), (3, 5));
    let weights = held(&network, WeightType::F32, &adapters);
    for (index, name) in ["to_q", "to_k", "to_v"].into_iter().enumerate() {
        let found = weights
            .tensor(&format!("{block}.attn.{name}.weight"), &[4, 4])
            .unwrap();
        let rows = up.narrow(0, 4 * index, 4).unwrap().contiguous().unwrap();
        let base = random(&[4, 4], index as u64 + 1);
        assert_close(&found, &changed(&base, &down, &rows, 1.0), 1e-6);
    }
    let halves = Tensor::cat(&[up.narrow(0, 4, 4).unwrap(), up.narrow(0, 0, 4).unwrap()], 0).unwrap();
    let expected = changed(&random(&[8, 4], 4), &down, &halves, 1.0);
    for name in [
        format!("{block}.norm1_context.linear.weight"),
        "norm_out.linear.weight".to_owned(),
    ] {
        assert_close(&weights.tensor(&name, &[8, 4]).unwrap(), &expected, 1e-6);
    }
}

#[test]
fn text_encoders_are_told_apart() {
    let (one, two) = (Files::new(), Files::new());
    let layer = "text_model.encoder.layers.0.self_attn";
    let projections = |seed: u64| {
        ["q_proj", "k_proj", "v_proj", "out_proj"]
            .map(|name| (format!("{layer}.{name}.weight"), random(&[4, 4], seed)))
    };
    let open = |files: &Files, seed: u64| {
        let tensors = projections(seed);
        let named: Vec<(&str, Tensor)> = tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor.clone()))
            .collect();
        files.network(&named)
    };
    let (first, second) = (open(&one, 1), open(&two, 2));
    let pair = |name: &str, rows: usize| {
        [
            (format!("{name}.lora_down.weight"), random(&[2, 4], 3)),
            (format!("{name}.lora_up.weight"), random(&[rows, 2], 4)),
        ]
    };
    let tensors: Vec<(String, Tensor)> = pair("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 4)
        .into_iter()
        .chain(pair("lora_te2_transformer_resblocks_0_attn_in_proj", 12))
        .chain([
            (
                format!("text_encoder.{layer}.to_out_lora.down.weight"),
                random(&[2, 4], 3),
            ),
            (
                format!("text_encoder.{layer}.to_out_lora.up.weight"),
                random(&[4, 2], 4),
            ),
        ])
        .collect();
    let named: Vec<(&str, Tensor)> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.clone()))
        .collect();
    let file = one.lora(&named).unwrap();
    let fit = file
        .fit(&[
            (ModelPart::TextEncoder, &first),
            (ModelPart::TextEncoder2, &second),
        ])
        .unwrap();
    assert_eq!(fit.matched(), 3);
    let count = |part| adapters(part, &[(&fit, 1.0)]).tensor_count();
    assert_eq!(
        (
            count(ModelPart::TextEncoder),
            count(ModelPart::TextEncoder2),
            count(ModelPart::Denoiser)
        ),
        (2, 3, 0)
    );
    let weights = held(
        &second,
        WeightType::F32,
        &adapters(ModelPart::TextEncoder2, &[(&fit, 1.0)]),
    );
    let found = weights
        .tensor(&format!("{layer}.v_proj.weight"), &[4, 4])
        .unwrap();
    let rows = random(&[12, 2], 4).narrow(0, 8, 4).unwrap().contiguous().unwrap();
    assert_close(
        &found,
        &changed(&random(&[4, 4], 2), &random(&[2, 4], 3), &rows, 1.0),
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
    let named: Vec<(&str, Tensor)> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.clone()))
        .collect();
    let network = files.network(&named);
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
        let named: Vec<(&str, Tensor)> = tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor.clone()))
            .collect();
        let path = files.write(&format!("lora-{rank}.safetensors"), &named);
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
            });
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
    let rows = weights.rows("1.weight", &SHAPE, &[699, 3]).unwrap();
    let expected = Tensor::cat(
        &[table.narrow(0, 699, 1).unwrap(), table.narrow(0, 3, 1).unwrap()],
        0,
    )
    .unwrap();
    assert!(values(&rows) == values(&expected));
}

#[test]
fn what_does_not_fit_says_for_which_family_it_is() {
    let files = Files::new();
    let attention = |width: usize| {
        [
            (
                "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight".to_owned(),
                random(&[8, 8], 1),
            ),
            (
                "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight".to_owned(),
                random(&[8, width], 1),
            ),
        ]
    };
    let tensors = attention(768);
    let named: Vec<(&str, Tensor)> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor.clone()))
        .collect();
    let network = files.network(&named);
    let pair = |name: &str, width: usize| {
        [
            (
                format!("lora_unet_{name}.lora_down.weight"),
                random(&[2, width], 1),
            ),
            (format!("lora_unet_{name}.lora_up.weight"), random(&[8, 2], 1)),
        ]
    };
    let refused = |layers: Vec<[(String, Tensor); 2]>| {
        let tensors: Vec<(String, Tensor)> = layers.into_iter().flatten().collect();
        let named: Vec<(&str, Tensor)> = tensors
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor.clone()))
            .collect();
        let file = files.lora(&named).unwrap();
        file.fit(&[(ModelPart::Denoiser, &network)]).unwrap_err()
    };
    let of_xl = vec![
        pair("down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", 8),
        pair("down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k", 2048),
    ];
    let error = refused(of_xl);
    assert!(
        matches!(
            error,
            Error::LoraDoesNotFit {
                matched: 1,
                layers: 2,
                family: Some(ModelFamily::StableDiffusionXl),
                model: Some(ModelFamily::StableDiffusion1),
                ..
            }
        ),
        "{error:?}"
    );
    let message = error.to_string();
    assert!(
        message.contains("1 of its 2 layers")
            && message.contains("made for SDXL, the model is Stable Diffusion 1.x"),
        "{message}"
    );
    let error = refused(vec![pair("joint_blocks_0_x_block_attn_proj", 8)]);
    assert!(
        matches!(
            error,
            Error::LoraDoesNotFit {
                matched: 0,
                family: Some(ModelFamily::StableDiffusion3 { width: None }),
                ..
            }
        ),
        "{error:?}"
    );
    let error = refused(vec![pair("somewhere_else", 8)]);
    assert!(
        matches!(
            error,
            Error::LoraDoesNotFit {
                matched: 0,
                layers: 1,
                family: None,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn other_methods_and_damage_are_named() {
    let files = Files::new();
    let pair = || {
        [
            ("lora_unet_a.lora_down.weight", random(&[2, 4], 1)),
            ("lora_unet_a.lora_up.weight", random(&[4, 2], 1)),
        ]
    };
    for (name, method) in [
        ("lora_unet_a.dora_scale", "DoRA"),
        ("lora_unet_a.hada_w1_a", "LoHa"),
        ("lora_unet_a.lokr_w1", "LoKr"),
        ("lora_unet_a.diff", "full differences"),
    ] {
        let mut tensors = pair().to_vec();
        tensors.push((name, random(&[4, 1], 1)));
        let error = files.lora(&tensors).unwrap_err();
        assert!(
            matches!(&error, Error::UnsupportedLora { method: found, tensor, .. } if *found == method && tensor == name),
            "{error:?}"
        );
        assert!(error.to_string().contains(method));
    }
    let error = files.lora(&[("conv_in.weight", random(&[4, 4], 1))]).unwrap_err();
    assert!(matches!(error, Error::NotLora { tensors: 1, .. }), "{error:?}");
    let [down, up] = pair();
    for damaged in [
        vec![down.clone()],
        vec![down.clone(), ("lora_unet_a.lora_up.weight", random(&[4, 3], 1))],
        vec![down.clone(), ("lora_unet_a.lora_up.weight", random(&[4], 1))],
        vec![down.clone(), up.clone(), ("lora_unet_a.alpha", random(&[2], 1))],
        vec![
            down.clone(),
            up.clone(),
            ("lora_unet_a.lora_mid.weight", random(&[2, 3, 1, 1], 1)),
        ],
        vec![
            ("lora_unet_a.lora_down.weight", random(&[2, 4, 3], 1)),
            up.clone(),
        ],
    ] {
        let error = files.lora(&damaged).unwrap_err();
        assert!(
            matches!(&error, Error::BadLora { layer, .. } if layer == "a"),
            "{error:?}"
        );
    }
}
