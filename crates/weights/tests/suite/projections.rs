//! Weights of projections that stay quantised: what is held, resident or streamed.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use sd_ops::{Linear, linear};
use sd_weights::{
    Blocks, Checkpoint, ModelPart, ProjectionWeight, Residency, WeightOptions, WeightType, Weights,
};

use super::lora_files::{Files, adapters, random, values};

const FILES: [&str; 6] = [
    "gguf/types.gguf",
    "quantized/float8.safetensors",
    "quantized/scaled_fp8.safetensors",
    "quantized/bitsandbytes.safetensors",
    "quantized/comfy.safetensors",
    "quantized/bfl.safetensors",
];

fn checkpoint(file: &str) -> Checkpoint {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    Checkpoint::open_file(fixtures.join(file)).unwrap()
}

fn weights(file: &str, weight_type: WeightType, residency: Residency) -> Weights {
    let options = WeightOptions::new(Device::Cpu, weight_type, residency);
    Weights::new(checkpoint(file), options)
}

/// The names and shapes of the matrices.
fn matrices(weights: &Weights) -> Vec<(String, usize, usize)> {
    let matrix = |name: &str| match weights.shape(name) {
        Some(&[outputs, inputs]) => Some((name.to_owned(), outputs, inputs)),
        _ => None,
    };
    weights.names().filter_map(matrix).collect()
}

fn held_bytes(weights: &Weights, wanted: &str) -> u64 {
    let mut held = weights.held();
    held.find(|(name, ..)| *name == wanted).unwrap().2
}

fn projection(weights: &Weights, name: &str, outputs: usize, inputs: usize) -> sd_weights::Result<Linear> {
    Ok(match weights.projection(name, outputs, inputs)? {
        ProjectionWeight::Values(weight) => Linear::new(weight, None)?,
        ProjectionWeight::Quantized { rows, quantization } => Linear::quantized(rows, quantization, None)?,
    })
}

#[test]
fn projections_are_held_in_the_bytes_that_are_counted_and_have_the_values_of_the_file() {
    let mut quantized = 0;
    for file in FILES {
        let [narrow, wide] = [WeightType::AsStored, WeightType::F32]
            .map(|weight_type| weights(file, weight_type, Residency::Resident));
        for (name, outputs, inputs) in matrices(&narrow) {
            let expected = values(&wide.tensor(&name, &[outputs, inputs]).unwrap());
            let bytes = held_bytes(&narrow, &name);
            match narrow.projection(&name, outputs, inputs).unwrap() {
                ProjectionWeight::Values(weight) => {
                    assert_eq!(bytes, (outputs * inputs * weight.dtype().size_in_bytes()) as u64);
                }
                ProjectionWeight::Quantized { rows, quantization } => {
                    assert_eq!(bytes, rows.elem_count() as u64, "{file}: {name}");
                    assert!(bytes <= 2 * (outputs * inputs) as u64, "{file}: {name}");
                    let rows: Vec<Vec<u8>> = rows.to_vec2().unwrap();
                    for (row, expected) in rows.iter().zip(expected.chunks(inputs)) {
                        let mut found = vec![0.0; inputs];
                        quantization.decode(row, 0, &mut found);
                        let same = |(found, expected): (&f32, &f32)| found.to_bits() == expected.to_bits();
                        assert!(found.iter().zip(expected).all(same), "{file}: {name}");
                    }
                    quantized += 1;
                }
            }
            for weight_type in [WeightType::F32, WeightType::Bf16] {
                let weights = weights(file, weight_type, Residency::Resident);
                let ProjectionWeight::Values(weight) = weights.projection(&name, outputs, inputs).unwrap()
                else {
                    panic!("{file}: {name} is not widened")
                };
                assert_eq!(
                    held_bytes(&weights, &name),
                    (outputs * inputs * weight.dtype().size_in_bytes()) as u64
                );
            }
        }
    }
    assert!(quantized > 20, "{quantized}");
}

#[test]
fn streamed_and_resident_projections_give_the_same_bits() {
    for file in FILES {
        let pass = |residency: Residency| {
            let weights = weights(file, WeightType::AsStored, residency);
            let matrices = matrices(&weights);
            let of = matrices.clone();
            let scopes = vec![weights.clone(); matrices.len()];
            let blocks = Blocks::new(scopes, move |index, weights| {
                let (name, outputs, inputs) = &of[index];
                projection(weights, name, *outputs, *inputs)
            })
            .unwrap();
            // In later passes, buffers have been used by other blocks.
            let results = (0..3).map(|_| {
                let blocks = blocks.pass().unwrap().zip(&matrices);
                let results = blocks.map(|(block, (_, _, inputs))| {
                    let x = random(&[3, *inputs], 5);
                    values(&linear(&x, &block.unwrap()).unwrap())
                });
                results.flatten().map(f32::to_bits).collect::<Vec<_>>()
            });
            let results: Vec<_> = results.collect();
            assert!(results[0] == results[1] && results[1] == results[2], "{file}");
            results[0].clone()
        };
        let resident = pass(Residency::Resident);
        assert!(resident == pass(Residency::Streamed), "{file}");
        assert!(resident == pass(Residency::Partly(1)), "{file}");
    }
}

#[test]
fn what_a_lora_updates_is_widened_and_counted_so() {
    let (file, name) = ("quantized/comfy.safetensors", "mxfp8.weight");
    let checkpoint = checkpoint(file);
    let before = weights(file, WeightType::AsStored, Residency::Resident);
    let &[outputs, inputs] = before.shape(name).unwrap() else {
        panic!("no matrix")
    };
    assert!(held_bytes(&before, name) < 2 * (outputs * inputs) as u64);
    let files = Files::new();
    let layers: [(&str, Tensor); 2] = [
        ("lora_unet_mxfp8.lora_up.weight", random(&[outputs, 2], 1)),
        ("lora_unet_mxfp8.lora_down.weight", random(&[2, inputs], 2)),
    ];
    let lora = files.lora(&layers).unwrap();
    let fit = lora.fit(&[(ModelPart::Denoiser, &checkpoint)]).unwrap();
    let after = before.with_adapters(adapters(ModelPart::Denoiser, &[(&fit, 0.5)]));
    assert_eq!(held_bytes(&after, name), 2 * (outputs * inputs) as u64);
    let ProjectionWeight::Values(weight) = after.projection(name, outputs, inputs).unwrap() else {
        panic!("an updated weight is quantised")
    };
    assert_eq!(weight.dtype(), DType::BF16);
    let tensor = after.tensor(name, &[outputs, inputs]).unwrap();
    assert!(values(&weight) == values(&tensor));
    // The other tensors stay as they were.
    assert_eq!(
        held_bytes(&after, "nvfp4.weight"),
        held_bytes(&before, "nvfp4.weight")
    );
}

#[test]
fn a_projection_of_another_shape_is_refused() {
    let weights = weights(
        "quantized/comfy.safetensors",
        WeightType::AsStored,
        Residency::Resident,
    );
    let &[outputs, inputs] = weights.shape("mxfp8.weight").unwrap() else {
        panic!("no matrix")
    };
    assert!(weights.projection("mxfp8.weight", inputs + 1, outputs).is_err());
    assert!(weights.projection("missing.weight", outputs, inputs).is_err());
}
