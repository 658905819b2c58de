//! The predicted footprint of a ControlNet against the allocator's count. A single test, so that nothing else
//! allocates in the meantime.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod synthetic;

use candle_core::{DType, Device, Tensor};
use sd_models::controlnet::{Config, ControlNet, Input};
use sd_models::unet::ConditioningInputs;
use sd_models::{Conditioned, Load};
use sd_weights::{CountingAllocator, Residency, allocated_bytes, allocated_peak, restart_allocated_peak};
use synthetic::assert_predicted;
use synthetic::networks::unet::UNet;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const TOKENS: usize = 77;
const STEPS: usize = 3;
const IMAGE: [usize; 4] = [16, 32, 96, 256];

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn a_controlnet_takes_what_it_says() {
    // What threads take counts for the more the more there are.
    rayon::ThreadPoolBuilder::new()
        .num_threads(2)
        .build_global()
        .unwrap();
    let shape = UNet {
        channels: &[64, 128, 128],
        heads: &[2, 4, 4],
        attends: &[true, true, false],
        transformer_layers: &[1, 1, 1],
        context: 256,
        ..UNet::SD15
    };
    let directory = tempfile::tempdir().unwrap();
    let tensors = shape.controlnet_tensors(&IMAGE);
    let start = allocated_bytes();
    let config: Config = serde_json::from_value(shape.controlnet_config(&IMAGE)).unwrap();
    for residency in [Residency::Resident, Residency::Streamed] {
        let weights = synthetic::weights(directory.path(), &tensors, residency);
        for (inputs, texts, latents) in [(1, 2, (88, 72)), (2, 1, (94, 86))] {
            let load = Load {
                inputs,
                texts,
                tokens: TOKENS,
                latents,
            };
            let context = zeros(&[texts, TOKENS, shape.context]);
            let image = zeros(&[1, 3, 8 * latents.0, 8 * latents.1]);
            let noise = zeros(&[texts, UNet::LATENTS, latents.0, latents.1]);
            let controlnet = ControlNet::new(weights.clone(), &config).unwrap();
            // The context is counted as what the conditions hold.
            let given = 4 * (image.elem_count() + noise.elem_count());
            let before = start + given as u64;
            sd_ops::release_scratch();
            restart_allocated_peak();
            let conditioning = ConditioningInputs {
                timesteps: &[900.0, 500.0, 100.0],
                context: &context,
                added: None,
                guidance: None,
                latents,
            };
            let conditions = controlnet.condition(&conditioning, &image).unwrap();
            let what = format!("{residency:?}, {load:?}");
            let held = controlnet.condition_bytes(load, STEPS);
            let taken = controlnet.condition_footprint(load, STEPS).bytes();
            let predicted = held + taken + controlnet.condition_weight_bytes().always;
            let measured = allocated_peak() - before;
            // Its small networks run one after the other, at sizes that differ.
            assert!(
                measured <= predicted && measured * 5 >= predicted * 4,
                "{what}: conditions {measured} of {predicted}"
            );

            controlnet.load().unwrap();
            let inputs = vec![
                Input {
                    latents: &noise,
                    conditions: &conditions,
                    scale: 0.8,
                };
                inputs
            ];
            restart_allocated_peak();
            let residuals = controlnet.forward(&inputs, 1).unwrap();
            let measured = allocated_peak() - before;
            let given: usize = residuals
                .iter()
                .flat_map(|residuals| residuals.down.iter().chain([&residuals.middle]))
                .map(|tensor| 4 * tensor.elem_count())
                .sum();
            assert_eq!(controlnet.residual_bytes(load), given as u64);
            let together = controlnet
                .weight_bytes()
                .most_with(&controlnet.block_activations(load), residency);
            let predicted = held + together + controlnet.forward_footprint(load).scratch;
            eprintln!(
                "{what}: predicted {predicted}, measured {measured} ({:.3})",
                measured as f64 / predicted as f64
            );
            assert_predicted(&what, predicted, measured);
        }
    }
}
