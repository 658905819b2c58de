//! The predicted footprint of an MMDiT with ControlNets against the allocator's count. A single test, so that
//! nothing else allocates in the meantime.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod synthetic;

use candle_core::{DType, Device, Tensor};
use sd_models::mmdit::control::{self, Control, ControlNet};
use sd_models::mmdit::{Config, Input, Transformer};
use sd_models::{Conditioned, Load};
use sd_weights::{
    CountingAllocator, Residency, Weights, allocated_bytes, allocated_peak, restart_allocated_peak,
};
use synthetic::assert_predicted;
use synthetic::networks::sd3::{Sd3, Sd3Control};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const HEADS: usize = 8;
const TOKENS: usize = 154;
const STEPS: usize = 5;
const SHAPE: Sd3 = Sd3 {
    layers: 4,
    heads: HEADS,
    table_side: 64,
    dual_attention_layers: 0,
    context: Sd3::CONTEXT,
    pooled: Sd3::POOLED,
};

fn config() -> Config {
    Config {
        sample_size: 64,
        patch_size: Sd3::PATCH,
        in_channels: Sd3::CHANNELS,
        out_channels: None,
        num_layers: SHAPE.layers,
        attention_head_dim: Sd3::HEAD,
        num_attention_heads: HEADS,
        joint_attention_dim: Sd3::CONTEXT,
        caption_projection_dim: SHAPE.width(),
        pooled_projection_dim: Sd3::POOLED,
        pos_embed_max_size: SHAPE.table_side,
        qk_norm: Some("rms_norm".to_owned()),
        dual_attention_layers: Vec::new(),
    }
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap()
}

/// What is given to a pass.
struct Given {
    context: Tensor,
    pooled: Tensor,
    latents: Tensor,
    image: Tensor,
}

impl Given {
    fn new(load: Load) -> Self {
        let (rows, columns) = load.latents;
        Self {
            context: zeros(&[load.texts, TOKENS, Sd3::CONTEXT]),
            pooled: zeros(&[load.texts, Sd3::POOLED]),
            latents: zeros(&[load.texts, Sd3::CHANNELS, rows, columns]),
            image: zeros(&[1, Sd3::CHANNELS, rows, columns]),
        }
    }

    fn bytes(&self) -> u64 {
        let all = [&self.context, &self.pooled, &self.latents, &self.image];
        all.iter().map(|tensor| 4 * tensor.elem_count() as u64).sum()
    }
}

/// Holds what the conditions of `network` take to what it says, and gives them with what they hold.
fn conditions(network: &ControlNet, given: &Given, load: Load, before: u64) -> (control::Conditions, u64) {
    restart_allocated_peak();
    let timesteps: Vec<f32> = (0..STEPS).map(|step| 900.0 - step as f32).collect();
    let conditions = network
        .condition(&timesteps, &given.context, &given.pooled, &given.image)
        .unwrap();
    let passed = network.condition_weight_bytes();
    let window: u64 = passed.blocks.windows(2).map(|two| two[0] + two[1]).max().unwrap();
    let held = network.condition_bytes(load, STEPS);
    let footprint = network.condition_footprint(load, STEPS).bytes();
    let predicted = held + footprint + window.max(passed.always);
    assert!(allocated_peak() - before <= predicted, "{load:?}: conditions");
    (conditions, held)
}

fn measure(transformer: &Weights, networks: &[&(Weights, control::Config)], load: Load, start: u64) {
    let given = Given::new(load);
    let before = start + given.bytes();
    let transformer = Transformer::new(transformer.clone(), &config()).unwrap();
    let networks: Vec<ControlNet> = networks
        .iter()
        .map(|(weights, config)| ControlNet::new(weights.clone(), config).unwrap())
        .collect();
    let timesteps = [900.0; STEPS];
    let own = transformer
        .condition(&timesteps, &given.context, &given.pooled, load.latents)
        .unwrap();
    let mut held = transformer.condition_bytes(load, STEPS);
    let mut of_controls = Vec::new();
    for network in &networks {
        let (conditions, bytes) = conditions(network, &given, load, before + held);
        held += bytes;
        network.load().unwrap();
        of_controls.push(vec![conditions; load.inputs]);
    }
    transformer.load().unwrap();
    let inputs = vec![
        Input {
            latents: &given.latents,
            conditions: &own,
        };
        load.inputs
    ];
    let controls: Vec<Control<'_>> = networks
        .iter()
        .zip(&of_controls)
        .map(|(network, conditions)| Control {
            network,
            conditions,
            scale: 0.8,
        })
        .collect();
    restart_allocated_peak();
    transformer.forward(&inputs, &controls, 1).unwrap();
    let weights =
        |bytes: sd_models::WeightBytes, residency| bytes.most_with(&vec![0; bytes.blocks.len()], residency);
    let of_networks: u64 = networks
        .iter()
        .map(|network| weights(network.weight_bytes(), Residency::Streamed))
        .sum();
    let footprint = transformer.forward_footprint(load, &networks.iter().collect::<Vec<_>>());
    let predicted =
        held + of_networks + weights(transformer.weight_bytes(), Residency::Streamed) + footprint.bytes();
    let measured = allocated_peak() - before;
    let what = format!("{} ControlNets, {load:?}", networks.len());
    assert_predicted(&what, predicted, measured);
}

#[test]
fn controlnets_take_what_they_say() {
    // What threads take counts for the more the more there are.
    rayon::ThreadPoolBuilder::new()
        .num_threads(2)
        .build_global()
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let open = |name: &str, tensors: &[synthetic::networks::Tensor]| {
        let folder = directory.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        synthetic::weights(&folder, tensors, Residency::Streamed)
    };
    let network = |name: &str, shape: &Sd3Control| {
        let config = serde_json::from_value(shape.config()).unwrap();
        (open(name, &shape.tensors()), config)
    };
    let transformer = open("transformer", &SHAPE.tensors());
    let with_text = network(
        "with-text",
        &Sd3Control {
            layers: 2,
            heads: HEADS,
            context: Some(Sd3::CONTEXT),
            pooled: Sd3::POOLED,
        },
    );
    let without_text = network(
        "without-text",
        &Sd3Control {
            layers: 3,
            heads: HEADS,
            context: None,
            pooled: Sd3::POOLED,
        },
    );
    let start = allocated_bytes();
    for networks in [&[&with_text][..], &[&without_text], &[&with_text, &without_text]] {
        for (inputs, texts, latents) in [(1, 2, (64, 64)), (3, 1, (56, 64))] {
            let load = Load {
                inputs,
                texts,
                tokens: TOKENS,
                latents,
            };
            measure(&transformer, networks, load, start);
        }
    }
}
