//! The predicted footprint of the UNet against the allocator's count. A single test, so that nothing else
//! allocates in the meantime.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod synthetic;

use candle_core::{DType, Device, Tensor};
use sd_models::unet::{AddedConditions, ConditioningInputs, Conditions, Config, Input, UNet};
use sd_models::{Conditioned, Load};
use sd_weights::{CountingAllocator, Residency, allocated_bytes, allocated_peak, restart_allocated_peak};
use synthetic::assert_predicted;
use synthetic::networks::unet::UNet as Shape;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const TOKENS: usize = 77;
const STEPS: usize = 5;
const POOLED: usize = 1280;

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

fn condition(unet: &UNet, context: &Tensor, pooled: Option<&Tensor>, latents: (usize, usize)) -> Conditions {
    let timesteps: Vec<f32> = (0..STEPS).map(|step| 900.0 - step as f32).collect();
    let time_ids = vec![vec![512.0; 6]; context.dim(0).unwrap()];
    let inputs = ConditioningInputs {
        timesteps: &timesteps,
        context,
        added: pooled.map(|pooled| AddedConditions {
            text_embeds: pooled,
            time_ids: &time_ids,
        }),
        guidance: None,
        latents,
    };
    unet.condition(&inputs).unwrap()
}

#[test]
fn the_unet_takes_what_it_says() {
    // What threads take counts for the more the more there are.
    rayon::ThreadPoolBuilder::new()
        .num_threads(2)
        .build_global()
        .unwrap();
    let mut start = None;
    let small = Shape {
        channels: &[64, 128, 128],
        heads: &[2, 4, 4],
        attends: &[true, true, false],
        transformer_layers: &[1, 1, 1],
        context: 256,
        ..Shape::SD15
    };
    let without_middle = Shape {
        channels: &[64, 128, 192],
        heads: &[2, 4, 6],
        attends: &[true, true, true],
        transformer_layers: &[1, 1, 2],
        context: 256,
        middle: false,
        residuals: 1,
        ..Shape::SD15
    };
    let large = Shape {
        channels: &[64, 128, 192],
        heads: &[2, 4, 6],
        transformer_layers: &[1, 2, 3],
        context: 384,
        ..Shape::SDXL
    };
    for (shape, residencies, loads) in [
        (
            small,
            [Residency::Resident, Residency::Streamed],
            [(1, 2, (88, 72)), (2, 1, (86, 74))],
        ),
        (
            without_middle,
            [Residency::Resident, Residency::Streamed],
            [(1, 2, (88, 72)), (2, 1, (90, 74))],
        ),
        (
            large,
            [Residency::Streamed, Residency::Partly(20)],
            [(1, 2, (96, 96)), (3, 1, (96, 80))],
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let tensors = shape.tensors();
        let start = *start.get_or_insert_with(allocated_bytes);
        let config: Config = serde_json::from_value(shape.config()).unwrap();
        for residency in residencies {
            let weights = synthetic::weights(directory.path(), &tensors, residency);
            for (inputs, texts, latents) in loads {
                let load = Load {
                    inputs,
                    texts,
                    tokens: TOKENS,
                    latents,
                };
                let context = zeros(&[texts, TOKENS, shape.context]);
                let pooled = shape.added.map(|_| zeros(&[texts, POOLED]));
                let image = zeros(&[texts, Shape::LATENTS, latents.0, latents.1]);
                let unet = UNet::new(weights.clone(), &config).unwrap();
                // The context is counted as what the conditions hold.
                let given = pooled.iter().chain([&image]);
                let given: usize = given.map(|tensor| 4 * tensor.elem_count()).sum();
                let before = start + given as u64;
                // What threads keep of convolutions is more than the conditions need.
                sd_ops::release_scratch();
                restart_allocated_peak();
                let conditions = condition(&unet, &context, pooled.as_ref(), latents);
                let what = format!("{residency:?}, {load:?}");
                let held = unet.condition_bytes(load, STEPS);
                let predicted = held
                    + unet.condition_footprint(load, STEPS).bytes()
                    + unet.condition_weight_bytes().always;
                let measured = allocated_peak() - before;
                assert!(
                    measured <= predicted,
                    "{what}: conditions {measured} of {predicted}"
                );

                unet.load().unwrap();
                let inputs = vec![
                    Input {
                        latents: &image,
                        conditions: &conditions,
                        control: None,
                    };
                    inputs
                ];
                restart_allocated_peak();
                unet.forward(&inputs, 1).unwrap();
                let footprint = unet.forward_footprint(load);
                let activations = unet.block_activations(load);
                assert_eq!(activations.iter().max(), Some(&footprint.activations), "{what}");
                let together = unet.weight_bytes().most_with(&activations, residency);
                let predicted = held + together + footprint.scratch;
                let measured = allocated_peak() - before;
                eprintln!(
                    "{what}: predicted {predicted}, measured {measured} ({:.3}), {footprint:?}",
                    measured as f64 / predicted as f64
                );
                assert_predicted(&what, predicted, measured);
            }
        }
    }
}
