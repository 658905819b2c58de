//! LoHa, LoKr and DoRA: against LyCORIS and PEFT, in fused layers, with several files, and damaged.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::lora_files::{Files, adapters, assert_close, changed, held, random, values};
use candle_core::{Device, Tensor};
use sd_weights::{Checkpoint, Error, Fit, LoraFile, ModelPart, WeightType};

const LAYERS: [&str; 3] = ["linear", "conv", "point"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/lycoris")
        .join(name)
}

fn load(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture(name), &Device::Cpu).unwrap()
}

/// The tensor `name` of `network` with the files of `fits`.
fn merged(network: &Checkpoint, fits: &[(&Fit, f32)], name: &str) -> Tensor {
    let shape = network.header(name).unwrap().shape.clone();
    held(network, WeightType::F32, &adapters(ModelPart::Denoiser, fits))
        .tensor(name, &shape)
        .unwrap()
}

fn fit(file: &Arc<LoraFile>, network: &Checkpoint) -> Fit {
    file.fit(&[(ModelPart::Denoiser, network)]).unwrap()
}

#[test]
fn weights_are_those_of_lycoris_and_peft() {
    let files = Files::new();
    let network = files.network(&load("network.safetensors").into_iter().collect::<Vec<_>>());
    let expected = load("merged.safetensors");
    let mut compared = 0;
    for name in [
        "loha",
        "loha-tucker",
        "lokr",
        "lokr-both",
        "lokr-left",
        "lokr-full",
        "lokr-tucker",
        "dora",
        "dora-inputs",
        "dora-tucker",
        "loha-dora",
        "lokr-dora-inputs",
        "peft-dora",
    ] {
        let path = match name {
            "peft-dora" => "peft-dora/adapter_model.safetensors".to_owned(),
            _ => format!("{name}.safetensors"),
        };
        let file = Arc::new(LoraFile::open(fixture(&path)).unwrap());
        file.check_values().unwrap();
        let fit = fit(&file, &network);
        assert_eq!((fit.matched(), fit.unmatched()), (3, &[][..]), "{name}");
        for (scale, text) in [(1.0, "1.0"), (0.7, "0.7")] {
            for layer in LAYERS {
                let found = merged(&network, &[(&fit, scale)], &format!("{layer}.weight"));
                let expected = &expected[&format!("{name}.{text}.{layer}")];
                let (found, expected) = (values(&found), values(expected));
                let most = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                for (found, expected) in found.iter().zip(&expected) {
                    assert!(
                        (found - expected).abs() <= 1e-6 * most,
                        "{name} {scale} {layer}: {found}, {expected}"
                    );
                }
                compared += 1;
            }
        }
    }
    assert_eq!(compared, expected.len());
}

/// A linear layer's LoKr of whole matrices, a LoHa and the magnitudes of a DoRA.
fn layer_tensors(name: &str, kind: &str, seed: u64) -> Vec<(String, Tensor)> {
    let tensor = |role: &str, shape: &[usize]| (format!("{name}.{role}"), random(shape, seed));
    match kind {
        "lokr" => vec![tensor("lokr_w1", &[3, 2]), tensor("lokr_w2", &[4, 2])],
        "loha" => vec![
            tensor("hada_w1_a", &[12, 2]),
            tensor("hada_w1_b", &[2, 4]),
            tensor("hada_w2_a", &[12, 3]),
            tensor("hada_w2_b", &[3, 4]),
        ],
        _ => vec![
            tensor("lora_up.weight", &[12, 2]),
            tensor("lora_down.weight", &[2, 4]),
            tensor(kind, if kind == "dora_scale" { &[12, 1] } else { &[12] }),
        ],
    }
}

#[test]
fn fused_layers_are_split() {
    let fused = "lora_unet_joint_blocks_0_x_block_attn_qkv";
    let names = ["to_q", "to_k", "to_v"].map(|name| format!("transformer_blocks.0.attn.{name}.weight"));
    let whole = random(&[12, 4], 7);
    for kind in ["lokr", "loha", "dora_scale"] {
        // The update of one layer with all rows is what the three layers get together.
        let (one, three) = (Files::new(), Files::new());
        let single = one.network(&[("layer.weight", whole.clone())]);
        let parts: Vec<(String, Tensor)> = names
            .iter()
            .enumerate()
            .map(|(index, name)| {
                let rows = whole.narrow(0, 4 * index, 4).unwrap().contiguous().unwrap();
                (name.clone(), rows)
            })
            .collect();
        let split = three.network(&parts);
        let file = one.lora(&layer_tensors("lycoris_layer", kind, 3)).unwrap();
        let expected = merged(&single, &[(&fit(&file, &single), 0.8)], "layer.weight");
        let file = three.lora(&layer_tensors(fused, kind, 3)).unwrap();
        let fit = fit(&file, &split);
        assert_eq!(fit.matched(), 1, "{kind}");
        let parts = names.each_ref().map(|name| merged(&split, &[(&fit, 0.8)], name));
        assert_close(&Tensor::cat(&parts, 0).unwrap(), &expected, 1e-6);
        assert!(values(&expected) != values(&whole), "{kind}");
    }
    // The norms of inputs would be over all three tensors.
    let files = Files::new();
    let parts = names.map(|name| (name, random(&[4, 4], 7)));
    let network = files.network(&parts);
    let mut tensors = layer_tensors(fused, "dora_scale", 3);
    tensors[2].1 = random(&[1, 4], 3);
    let file = files.lora(&tensors).unwrap();
    let error = file.fit(&[(ModelPart::Denoiser, &network)]).unwrap_err();
    assert!(
        matches!(&error, Error::UnsupportedLora { tensor, .. } if tensor == &tensors[2].0),
        "{error:?}"
    );
}

#[test]
fn files_update_a_tensor_in_their_order() {
    let files = Files::new();
    let weight = random(&[12, 4], 7);
    let network = files.network(&[("layer.weight", weight.clone())]);
    let lora = |kind: &str, seed: u64| {
        let path = files.write(
            &format!("{kind}-{seed}.safetensors"),
            &layer_tensors("layer", kind, seed),
        );
        fit(&Arc::new(LoraFile::open(path).unwrap()), &network)
    };
    let (plain_one, plain_two) = (lora("lokr", 1), lora("loha", 2));
    let dora = lora("dora_scale", 3);
    let dora_of_peft = lora("lora_magnitude_vector", 3);
    let read = |fits: &[(&Fit, f32)]| merged(&network, fits, "layer.weight");
    // Sums do not depend on the order.
    assert_close(
        &read(&[(&plain_one, 0.5), (&plain_two, 2.0)]),
        &read(&[(&plain_two, 2.0), (&plain_one, 0.5)]),
        1e-6,
    );
    // A DoRA updates what the files before it have made, and is as if that were the model.
    for before in [&plain_one, &plain_two] {
        let between = read(&[(before, 0.9)]);
        let other = Files::new();
        let updated = other.network(&[("layer.weight", between.clone())]);
        let expected = merged(&updated, &[(&dora, 0.6)], "layer.weight");
        assert_close(&read(&[(before, 0.9), (&dora, 0.6)]), &expected, 1e-6);
        assert!(values(&read(&[(&dora, 0.6), (before, 0.9)])) != values(&expected));
    }
    assert_close(&read(&[(&dora, 0.6)]), &read(&[(&dora_of_peft, 0.6)]), 0.0);
    // The magnitudes are the norms of the rows.
    let rows = values(&read(&[(&dora, 1.0)]));
    for (row, magnitude) in rows.chunks(4).zip(values(&random(&[12], 3))) {
        let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        assert!((norm - magnitude.abs()).abs() < 1e-5, "{norm}, {magnitude}");
    }
    // A LoRA beside its DoRA is added in full at scale 1.
    let added = changed(&weight, &random(&[2, 4], 3), &random(&[12, 2], 3), 1.0);
    assert!(values(&added) != rows);
}

#[test]
fn damage_is_named() {
    let files = Files::new();
    type Change<'a> = &'a dyn Fn(&mut Vec<(String, Tensor)>);
    let with = |kind: &str, change: Change<'_>| {
        let mut tensors = layer_tensors("lora_unet_a", kind, 1);
        change(&mut tensors);
        files.lora(&tensors)
    };
    for kind in ["loha", "lokr", "dora_scale"] {
        assert!(with(kind, &|_| ()).is_ok(), "{kind}");
        for missing in 0..layer_tensors("a", kind, 1).len() {
            if kind == "dora_scale" && missing == 2 {
                continue;
            }
            let error = with(kind, &|tensors| drop(tensors.remove(missing))).unwrap_err();
            assert!(
                matches!(&error, Error::BadLora { layer, .. } if layer == "a"),
                "{error:?}"
            );
        }
    }
    let wrong: [(&str, usize, &[usize]); 8] = [
        ("loha", 0, &[12, 3]),
        ("loha", 2, &[11, 3]),
        ("loha", 3, &[3, 5]),
        ("loha", 0, &[12]),
        ("lokr", 0, &[3]),
        ("lokr", 1, &[4, 2, 1]),
        ("dora_scale", 2, &[11, 1]),
        ("dora_scale", 2, &[1, 3]),
    ];
    for (kind, index, shape) in wrong {
        let error = with(kind, &|tensors| tensors[index].1 = random(shape, 1)).unwrap_err();
        assert!(
            matches!(&error, Error::BadLora { .. }),
            "{kind} {shape:?}: {error:?}"
        );
    }
    // Of two methods, and of one matrix in two forms.
    for (kind, more) in [("loha", "lokr"), ("lokr", "dora_scale")] {
        let more = layer_tensors("lora_unet_a", more, 2);
        let error = with(kind, &|tensors| tensors.extend(more.clone())).unwrap_err();
        assert!(matches!(&error, Error::BadLora { .. }), "{kind}: {error:?}");
    }
    let factors = [
        ("lora_unet_a.lokr_w2_a", [4, 1]),
        ("lora_unet_a.lokr_w2_b", [1, 2]),
    ]
    .map(|(name, shape)| (name.to_owned(), random(&shape, 2)));
    let error = with("lokr", &|tensors| tensors.extend(factors.clone())).unwrap_err();
    assert!(matches!(&error, Error::BadLora { .. }), "{error:?}");
    // Values that are no numbers, in magnitudes too.
    let no_number = Tensor::new(&[[f32::NAN]], &Device::Cpu).unwrap();
    let no_numbers = no_number.broadcast_as((12, 1)).unwrap().contiguous().unwrap();
    let file = with("dora_scale", &|tensors| tensors[2].1 = no_numbers.clone()).unwrap();
    assert!(matches!(file.check_values(), Err(Error::BadLora { .. })));
}
