//! The predicted footprint of the MMDiT against the allocator's count. A single test, so that nothing else
//! allocates in the meantime.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod synthetic;

use candle_core::{DType, Device, Tensor};
use sd_models::mmdit::{Config, Input, Transformer};
use sd_models::{Conditioned, Load};
use sd_weights::{CountingAllocator, Residency, allocated_bytes, allocated_peak, restart_allocated_peak};
use synthetic::assert_predicted;
use synthetic::networks::sd3::Sd3;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn config(shape: &Sd3) -> Config {
    Config {
        sample_size: 64,
        patch_size: Sd3::PATCH,
        in_channels: Sd3::CHANNELS,
        out_channels: None,
        num_layers: shape.layers,
        attention_head_dim: Sd3::HEAD,
        num_attention_heads: shape.heads,
        joint_attention_dim: Sd3::CONTEXT,
        caption_projection_dim: shape.width(),
        pooled_projection_dim: Sd3::POOLED,
        pos_embed_max_size: shape.table_side,
        qk_norm: Some("rms_norm".to_owned()),
        dual_attention_layers: (0..shape.dual_attention_layers).collect(),
    }
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn the_transformer_takes_what_it_says() {
    let mut start = None;
    for (dual_attention_layers, matrices) in [(0, DType::BF16), (2, DType::BF16), (0, DType::F8E4M3)] {
        let shape = Sd3 {
            layers: 4,
            heads: 8,
            table_side: 64,
            dual_attention_layers,
            context: Sd3::CONTEXT,
            pooled: Sd3::POOLED,
        };
        let directory = tempfile::tempdir().unwrap();
        let tensors = shape.tensors();
        let start = *start.get_or_insert_with(allocated_bytes);
        let config = config(&shape);
        for residency in [Residency::Resident, Residency::Streamed, Residency::Partly(2)] {
            if dual_attention_layers > 0 && residency != Residency::Partly(2) {
                continue;
            }
            let weights = synthetic::weights_with(matrices, directory.path(), &tensors, residency);
            for (inputs, texts, side) in [(1, 2, 64), (3, 1, 64), (2, 2, 48)] {
                let load = Load {
                    inputs,
                    texts,
                    tokens: 154,
                    latents: (side, side),
                };
                let (context, pooled) = (zeros(&[texts, 154, Sd3::CONTEXT]), zeros(&[texts, Sd3::POOLED]));
                let latents = zeros(&[texts, Sd3::CHANNELS, side, side]);
                let transformer = Transformer::new(weights.clone(), &config).unwrap();

                let steps = 5;
                // What threads keep for their products counts as taken, from the first run on.
                let given = [&context, &pooled, &latents];
                let given: usize = given.iter().map(|tensor| 4 * tensor.elem_count()).sum();
                let before = start + given as u64;
                restart_allocated_peak();
                let timesteps: Vec<f32> = (0..steps).map(|step| 900.0 - step as f32).collect();
                let conditions = transformer
                    .condition(&timesteps, &context, &pooled, (side, side))
                    .unwrap();
                let what = format!("{residency:?}, {load:?}, {dual_attention_layers} dual, {matrices:?}");
                let passed = transformer.condition_weight_bytes();
                let window: u64 = passed.blocks.windows(2).map(|two| two[0] + two[1]).max().unwrap();
                let held = transformer.condition_bytes(load, steps);
                let footprint = transformer.condition_footprint(load, steps).bytes();
                let predicted = held + footprint + window.max(passed.always);
                assert!(allocated_peak() - before <= predicted, "{what}: conditions");

                transformer.load().unwrap();
                let inputs = vec![
                    Input {
                        latents: &latents,
                        conditions: &conditions
                    };
                    inputs
                ];
                restart_allocated_peak();
                transformer.forward(&inputs, &[], 1).unwrap();
                let weight_bytes = transformer.weight_bytes();
                let kept: u64 = (0..shape.layers)
                    .filter(|&block| residency.keeps(block, shape.layers))
                    .map(|block| weight_bytes.blocks[block])
                    .sum();
                let streamed = shape.layers - residency.kept_of(shape.layers);
                let window = weight_bytes.blocks[0] * streamed.min(Residency::WINDOW) as u64;
                let footprint = transformer.forward_footprint(load, &[]);
                let predicted = held + weight_bytes.always + kept + window + footprint.bytes();
                eprintln!(
                    "{what}: predicted {predicted}, measured {}, footprint {footprint:?} weights {}",
                    allocated_peak() - before,
                    weight_bytes.always + kept + window
                );
                assert_predicted(&what, predicted, allocated_peak() - before);
            }
        }
    }
}
