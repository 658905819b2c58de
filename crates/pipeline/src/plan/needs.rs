//! What each stage of a run cannot do without, from headers and shapes.

use sd_memory::Bytes;
use sd_models::mmdit::{Load, Transformer};
use sd_models::vae::Decoder;
use sd_models::{Footprint, WeightBytes, clip, t5};
use sd_weights::{Holding, Residency};

use crate::bundle::Bundle;
use crate::recipe::Recipe;
use crate::stage::{GuidancePasses, latent_sides, patches};
use crate::{Result, device_budget};

/// The program itself: its code, the runtime, the terminal, small change of the allocator.
const PROGRAM: u64 = 32 << 20;
/// What a tokenizer takes in memory for each byte of its files.
const TOKENIZER_FACTOR: u64 = 8;

pub(super) const DENOISE: &str = "denoise";

/// A stage that passes over a network once.
#[derive(Debug)]
pub(super) struct OnePass {
    pub(super) name: &'static str,
    pub(super) weights: WeightBytes,
    /// Everything beside the weights, the process itself included.
    pub(super) beside: u64,
}

impl OnePass {
    /// The most bytes that the process has.
    pub(super) fn peak(&self) -> u64 {
        self.beside + self.weights.always + window(&self.weights, 0)
    }
}

/// The denoising, which passes over its network for every step.
#[derive(Debug)]
pub(super) struct Denoising {
    pub(super) weights: WeightBytes,
    /// What steers all steps, among what is beside the weights.
    pub(super) conditions: u64,
    /// Everything beside the weights when so many pictures share a pass: of one picture, of two, ….
    pub(super) beside: Vec<u64>,
}

impl Denoising {
    /// The most bytes that the process has while `kept` blocks stay and `pictures` share a pass.
    pub(super) fn peak(&self, kept: usize, pictures: usize) -> u64 {
        self.beside[pictures - 1] + self.weights.always + self.kept(kept) + window(&self.weights, kept)
    }

    /// Bytes of the blocks that stay when there are `kept`.
    pub(super) fn kept(&self, kept: usize) -> u64 {
        let blocks = &self.weights.blocks;
        let residency = Residency::Partly(kept);
        blocks
            .iter()
            .enumerate()
            .filter(|&(index, _)| residency.keeps(index, blocks.len()))
            .map(|(_, bytes)| bytes)
            .sum()
    }

    /// Bytes of the blocks that are streamed when `kept` stay.
    pub(super) fn streamed(&self, kept: usize) -> u64 {
        self.weights.blocks.iter().sum::<u64>() - self.kept(kept)
    }
}

/// Bytes of the streamed blocks that are in memory at a time: the most that any two in a row have, and the first
/// after the last, for the next pass begins while the last one ends.
fn window(weights: &WeightBytes, kept: usize) -> u64 {
    let length = weights.blocks.len();
    let residency = Residency::Partly(kept);
    let streamed: Vec<u64> = (0..length)
        .filter(|&index| !residency.keeps(index, length))
        .map(|index| weights.blocks[index])
        .collect();
    (0..streamed.len())
        .map(|first| {
            let count = Residency::WINDOW.min(streamed.len());
            (first..first + count)
                .map(|index| streamed[index % streamed.len()])
                .sum()
        })
        .max()
        .unwrap_or(0)
}

/// What a run cannot do without.
#[derive(Debug)]
pub(super) struct Needs {
    /// The stages before the denoising.
    pub(super) before: Vec<OnePass>,
    pub(super) denoising: Denoising,
    pub(super) decoding: OnePass,
}

impl Needs {
    pub(super) fn of(bundle: &Bundle, recipe: &Recipe, holding: &Holding) -> Result<Self> {
        let process = device_budget::process(&holding.device)
            .unwrap_or_else(|| PROGRAM + TOKENIZER_FACTOR * bundle.tokenizer_bytes());
        let texts = if recipe.guidance_scale.guides() { 2 } else { 1 };
        let sides @ (rows, columns) = latent_sides(bundle, recipe.size);
        let tokens = bundle.clip_length() + bundle.t5_length();
        let float = size_of::<f32>() as u64;
        let context = (texts * tokens * bundle.transformer.joint_attention_dim) as u64 * float;
        let latents = (bundle.transformer.in_channels * rows * columns) as u64 * float;

        let streamed = holding.with_residency(Residency::Streamed);
        let encoding = |name, weights, taken: Footprint| OnePass {
            name,
            weights,
            beside: process + context + taken.bytes(),
        };
        let mut before = Vec::new();
        for part in [&bundle.clip_large, &bundle.clip_big] {
            let encoder = clip::TextEncoder::new(bundle.weights(part.component, &streamed)?, &part.config)?;
            let taken = encoder.footprint(texts, bundle.clip_length());
            before.push(encoding(part.component, encoder.weight_bytes(), taken));
        }
        if let Some(part) = &bundle.t5 {
            let encoder = t5::TextEncoder::new(bundle.weights(part.component, &streamed)?, &part.config)?;
            let taken = encoder.footprint(texts, bundle.t5_length());
            before.push(encoding(part.component, encoder.weight_bytes(), taken));
        }

        let transformer = Transformer::new(bundle.weights("transformer", &streamed)?, &bundle.transformer)?;
        let passes = GuidancePasses::for_patches(patches(bundle, sides));
        let all_texts = Load {
            inputs: 1,
            texts,
            tokens,
            latents: sides,
        };
        let load = |pictures: usize| match passes {
            GuidancePasses::Batched => Load {
                inputs: pictures,
                ..all_texts
            },
            GuidancePasses::Separate => Load {
                inputs: pictures * texts,
                texts: 1,
                ..all_texts
            },
        };
        let conditions = transformer.condition_bytes(all_texts, recipe.steps);
        let steering = transformer.condition_footprint(all_texts, recipe.steps).bytes();
        before.push(OnePass {
            name: "conditions",
            weights: transformer.condition_weight_bytes(),
            beside: process + context + conditions + steering,
        });
        // Of every picture the latents before and after a step, their batch, and the prediction.
        let all_latents = (recipe.images as u64 + 8) * latents;
        let beside = (1..=recipe.images)
            .map(|pictures| {
                let pass = transformer.forward_footprint(load(pictures)).bytes();
                process + conditions + all_latents + (4 * texts * pictures) as u64 * latents + pass
            })
            .collect();
        let denoising = Denoising {
            weights: transformer.weight_bytes(),
            conditions,
            beside,
        };

        let decoder = Decoder::new(bundle.weights("vae", holding)?, &bundle.vae)?;
        // The picture in 32-bit numbers and in bytes, and its file.
        let pixels = (recipe.size.width() * recipe.size.height()) as u64;
        let picture = 3 * pixels * (2 * float + 2);
        let decoding = OnePass {
            name: "decode",
            weights: WeightBytes {
                blocks: Vec::new(),
                always: decoder.weight_bytes(),
            },
            beside: process
                + recipe.images as u64 * latents
                + picture
                + decoder.footprint(1, rows, columns).bytes(),
        };
        Ok(Self {
            before,
            denoising,
            decoding,
        })
    }

    /// Stages and the least that each needs.
    fn least(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let passes = self.before.iter().chain([&self.decoding]);
        passes
            .map(|stage| (stage.name, stage.peak()))
            .chain([(DENOISE, self.denoising.peak(0, 1))])
    }

    pub(super) fn smallest_budget(&self) -> Bytes {
        Bytes(self.least().map(|(_, bytes)| bytes).max().unwrap_or_default())
    }

    /// The stage that needs the most when all is as small as it can be.
    pub(super) fn largest_stage(&self) -> &'static str {
        self.least()
            .max_by_key(|&(_, bytes)| bytes)
            .map_or(DENOISE, |(name, _)| name)
    }
}
