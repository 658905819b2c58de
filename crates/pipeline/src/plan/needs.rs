//! The memory needs and the arithmetic of each stage, from headers and shapes.

use sd_memory::Bytes;
use sd_models::vae::{Decoder, Encoder};
use sd_models::{Conditioned, Footprint, Load, WeightBytes, Work};
use sd_weights::{Residency, WeightOptions};

use super::{
    Arithmetic, DECODE, DENOISE, ENCODE_CONTROL, ENCODE_IMAGE, SOURCE_IMAGES, SourceImageBytes, Surroundings,
};
use crate::bundle::Bundle;
use crate::family::EncoderStage;
use crate::memory::PROGRAM;
use crate::recipe::Recipe;
use crate::stage::{self, CfgMode, latent_sides, patches};
use crate::{Result, device_budget};

/// Bytes in memory per byte of tokenizer files.
const TOKENIZER_FACTOR: u64 = 8;

/// The most tensors of the latents' size in a sampler's state, the latents included.
const REMEMBERED: u64 = 6;

/// Tensors of the latents' size for an initial image and its mask.
const INIT_LATENTS: u64 = 6;
/// The most images that share a forward pass: each then reads only a small part of the weights.
const MOST_IMAGES_PER_PASS: usize = 256;

/// A stage with one pass over a network.
#[derive(Debug)]
pub(super) struct OnePass {
    pub(super) name: &'static str,
    pub(super) weights: WeightBytes,
    /// Everything but the weights, the process itself included.
    pub(super) beside: u64,
    /// The arithmetic of the pass.
    pub(super) arithmetic: Arithmetic,
}

impl OnePass {
    /// The peak of the process.
    pub(super) fn peak(&self) -> u64 {
        let no_activations = vec![0; self.weights.blocks.len()];
        self.beside + self.weights.most_with(&no_activations, Residency::Streamed)
    }
}

/// The denoising, with one pass over its network per evaluation.
#[derive(Debug)]
pub(super) struct Denoising {
    pub(super) weights: WeightBytes,
    /// The conditioning of all evaluations, a part of what is beside the weights.
    pub(super) conditions: u64,
    /// Evaluations per image.
    pub(super) evaluations: usize,
    /// Bytes of the ControlNets' blocks: the window if they are streamed, and all.
    pub(super) control_window: u64,
    pub(super) control_weights: u64,
    /// The conditioning of the ControlNets.
    pub(super) control_conditions: u64,
    /// The arithmetic of all evaluations of an image.
    pub(super) arithmetic: Arithmetic,
    /// By the number of images that share a pass, from one on.
    pub(super) beside: Vec<Beside>,
}

/// The memory of a pass without weights.
#[derive(Debug)]
pub(super) struct Beside {
    /// Held during the whole pass.
    pub(super) throughout: u64,
    /// Held during each block.
    pub(super) of_blocks: Vec<u64>,
}

impl Denoising {
    /// The peak of the process with `kept` resident blocks and `images` that share a pass.
    pub(super) fn peak(&self, kept: usize, images: usize) -> u64 {
        let Beside {
            throughout,
            of_blocks,
        } = &self.beside[images - 1];
        throughout + self.control_window + self.weights.most_with(of_blocks, Residency::Partly(kept))
    }

    /// Bytes that stay in memory between groups with `kept` resident blocks, with the ControlNets or without.
    pub(super) fn held(&self, kept: usize, controls_stay: bool) -> u64 {
        let no_activations = vec![0; self.weights.blocks.len()];
        let controls = if controls_stay {
            self.control_weights
        } else {
            self.control_window
        };
        self.weights.most_with(&no_activations, Residency::Partly(kept))
            + controls
            + self.conditions
            + self.control_conditions
    }

    /// Bytes of the `kept` resident blocks.
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

    /// Bytes of the streamed blocks with `kept` resident ones.
    pub(super) fn streamed(&self, kept: usize) -> u64 {
        self.weights.blocks.iter().sum::<u64>() - self.kept(kept)
    }
}

/// The largest window of streamed blocks.
fn window(weights: &WeightBytes) -> u64 {
    weights.most_with(&vec![0; weights.blocks.len()], Residency::Streamed)
}

/// Memory of the process, within the budget, before a run holds anything.
pub(crate) fn process_bytes(bundle: &Bundle, weight_options: &WeightOptions) -> u64 {
    device_budget::process(&weight_options.device)
        .unwrap_or_else(|| PROGRAM + TOKENIZER_FACTOR * bundle.tokenizer_bytes())
}

/// The memory needs of a run.
#[derive(Debug)]
pub(super) struct Needs {
    /// The stages before the denoising.
    pub(super) before: Vec<OnePass>,
    pub(super) denoising: Denoising,
    pub(super) decoding: OnePass,
    /// Bytes of each image that waits for the rest of its group: its latents, and its pixels if other
    /// networks follow.
    pub(super) waiting: u64,
    /// Denoising steps of an image.
    pub(super) steps: usize,
    /// Whether a group needs no other networks than these.
    pub(super) alone: bool,
    /// Whether the device has its own memory, to which weights are copied.
    pub(super) has_own_memory: bool,
}

/// Bytes of the encoded prompts of `recipe`.
pub(crate) fn prompt_bytes(bundle: &Bundle, recipe: &Recipe) -> Result<u64> {
    let texts = stage::texts(bundle, recipe.guidance_scale);
    let encoders = bundle.family.text_encoders();
    let tokens = encoders.tokens(&recipe.texts(bundle))?;
    Ok((texts * tokens * encoders.context_features() * size_of::<f32>()) as u64)
}

/// The peak of encoding `texts` with the encoder that needs most, without what is kept of others.
///
/// # Errors
/// A header is wrong, or a tokenizer cannot encode a text.
pub(crate) fn encoding_peak(
    bundle: &Bundle,
    texts: &[&str],
    clip_skip: usize,
    weight_options: &WeightOptions,
) -> Result<Bytes> {
    let streamed = weight_options.with_residency(Residency::Streamed);
    let encoders = bundle.family.text_encoders();
    let stages = encoders.stages(bundle.components(), texts, clip_skip, &streamed)?;
    let peaks = stages.into_iter().map(|stage| {
        let taken = stage.footprint.bytes();
        let taken = taken + device_budget::gaps(&weight_options.device, taken);
        window(&stage.weights) + taken + bundle.adapting_bytes(stage.component)
    });
    Ok(Bytes(
        process_bytes(bundle, weight_options) + peaks.max().unwrap_or_default(),
    ))
}

/// The bytes of the weights of all text encoders, in the form in which they are held.
///
/// # Errors
/// A header is wrong.
pub(crate) fn encoder_bytes(
    bundle: &Bundle,
    clip_skip: usize,
    weight_options: &WeightOptions,
) -> Result<Bytes> {
    let streamed = weight_options.with_residency(Residency::Streamed);
    let encoders = bundle.family.text_encoders();
    let stages = encoders.stages(bundle.components(), &[""], clip_skip, &streamed)?;
    let weights = stages.into_iter().map(|stage| stage.weights);
    Ok(Bytes(
        weights
            .map(|weights| weights.always + weights.blocks.iter().sum::<u64>())
            .sum(),
    ))
}

impl Needs {
    pub(super) fn of(
        bundle: &Bundle,
        recipe: &Recipe,
        weight_options: &WeightOptions,
        surroundings: Surroundings,
        budget: Bytes,
        source_images: SourceImageBytes,
    ) -> Result<Self> {
        let has_own_memory = device_budget::process(&weight_options.device).is_some();
        // With several groups the prompts of all models are cached.
        let has_groups = recipe.images > 1;
        let other_prompts = if has_groups { surroundings.other_prompts } else { 0 };
        let mut process = process_bytes(bundle, weight_options) + other_prompts;
        let mut before = Vec::new();
        // They are in host memory.
        if !has_own_memory {
            if source_images.reading > 0 {
                before.push(OnePass {
                    name: SOURCE_IMAGES,
                    weights: WeightBytes {
                        blocks: Vec::new(),
                        always: 0,
                    },
                    beside: process + source_images.most(),
                    arithmetic: Arithmetic::default(),
                });
            }
            process += source_images.held;
        }
        let texts = stage::texts(bundle, recipe.guidance_scale);
        let sampler = recipe.sampler(bundle)?;
        let evaluations = sampler.evaluations();
        let sides @ (rows, columns) = latent_sides(bundle, recipe.size);
        let text_encoders = bundle.family.text_encoders();
        let tokens = text_encoders.tokens(&recipe.texts(bundle))?;
        let float = size_of::<f32>() as u64;
        let context = prompt_bytes(bundle, recipe)?;
        let latents = (bundle.vae.latent_channels * rows * columns) as u64 * float;
        let pixels = (recipe.size.width() * recipe.size.height()) as u64;
        let waiting = if surroundings.alone {
            latents
        } else {
            3 * pixels + INIT_LATENTS * latents
        };
        let waiting_before = if surroundings.alone { 0 } else { waiting };
        let prompts = if has_groups { context } else { 0 };

        // Activations, with the fragmentation of device memory.
        let with_gaps = |bytes: u64| bytes + device_budget::gaps(&weight_options.device, bytes);
        let taking = |taken: Footprint| with_gaps(taken.bytes());
        let streamed = weight_options.with_residency(Residency::Streamed);
        let element = weight_options.activation_type().size_in_bytes();
        let arithmetic = |work: Work, weights: &WeightBytes| Arithmetic::of(work, element, weights);
        let encoding = |name: &'static str, weights: WeightBytes, taken: Footprint, work| OnePass {
            name,
            arithmetic: arithmetic(work, &weights),
            weights,
            beside: process + context + waiting_before + taking(taken) + bundle.adapting_bytes(name),
        };
        let stages = text_encoders.stages(
            bundle.components(),
            &recipe.texts(bundle),
            recipe.clip_skip,
            &streamed,
        )?;
        for EncoderStage {
            component,
            weights,
            footprint,
            work,
        } in stages
        {
            before.push(encoding(component, weights, footprint, work));
        }

        let network = bundle.denoising_network(&streamed, &streamed)?;
        let cfg_mode = CfgMode::for_patches(patches(sides));
        let all_texts = Load {
            inputs: 1,
            texts,
            tokens,
            latents: sides,
        };
        let load = |images: usize| match cfg_mode {
            CfgMode::Batched => Load {
                inputs: images,
                ..all_texts
            },
            CfgMode::Sequential => Load {
                inputs: images * texts,
                texts: 1,
                ..all_texts
            },
        };
        let adapting = bundle.adapting_bytes(bundle.family.component());
        let conditions = network.conditioned().condition_bytes(all_texts, evaluations);
        let conditioning = taking(network.conditioned().condition_footprint(all_texts, evaluations));
        let of_conditions = |network: &dyn Conditioned| {
            let work = network.condition_work(all_texts, evaluations);
            arithmetic(work, &network.condition_weight_bytes())
        };
        before.push(OnePass {
            name: "conditions",
            weights: network.conditioned().condition_weight_bytes(),
            arithmetic: of_conditions(network.conditioned()),
            beside: process + context + waiting_before + conditions + conditioning + adapting,
        });
        let follows_latents = bundle
            .controls()
            .iter()
            .any(|control| control.input().latents.is_some());
        let encodes = [
            (ENCODE_IMAGE, recipe.img2img.is_some()),
            (ENCODE_CONTROL, follows_latents),
        ];
        for (name, _) in encodes.into_iter().filter(|(_, encodes)| *encodes) {
            let encoder = Encoder::new(bundle.weights("vae", weight_options)?, &bundle.vae)?;
            let weights = WeightBytes {
                blocks: Vec::new(),
                always: encoder.weight_bytes(),
            };
            before.push(OnePass {
                name,
                arithmetic: arithmetic(encoder.work(rows, columns), &weights),
                weights,
                // The image in bytes, in f32, and in the type of the device.
                beside: process
                    + context
                    + waiting_before
                    + 3 * pixels * (1 + 3 * float)
                    + taking(encoder.footprint(1, rows, columns)),
            });
        }
        let controls = network.controls();
        let mut of_controls = 0;
        for control in &controls {
            of_controls += control.condition_bytes(all_texts, evaluations);
            // The conditioning of one is computed beside that of the others.
            before.push(OnePass {
                name: "control",
                weights: control.condition_weight_bytes(),
                arithmetic: of_conditions(*control),
                beside: process
                    + context
                    + waiting_before
                    + of_controls
                    + taking(control.condition_footprint(all_texts, evaluations))
                    + 3 * (recipe.size.width() * recipe.size.height()) as u64 * 2 * float,
            });
        }
        let init_latents = match &recipe.img2img {
            Some(img2img) if img2img.mask.is_some() => 2 * INIT_LATENTS * latents,
            Some(_) => INIT_LATENTS * latents,
            None => 0,
        };
        // Per image of a pass: the sampler's state, the latents before and after a step, their batch, and the
        // prediction.
        let beside = |images: usize| {
            let (mut of_blocks, scratch) = network.footprint(load(images));
            for bytes in &mut of_blocks {
                *bytes = with_gaps(*bytes);
            }
            let in_pass = (8 + 4 * texts * images) as u64 * latents;
            let of_each = REMEMBERED * latents + init_latents + waiting;
            Beside {
                throughout: process
                    + prompts
                    + conditions
                    + of_controls
                    + images as u64 * of_each
                    + in_pass
                    + with_gaps(scratch)
                    + adapting,
                of_blocks,
            }
        };
        let control_weights: u64 = controls
            .iter()
            .map(|control| control.weight_bytes())
            .map(|weights| weights.always + weights.blocks.iter().sum::<u64>())
            .sum();
        let weights = network.conditioned().weight_bytes();
        // Each input of an image reads the weights of each block, its ControlNets' too.
        let of_image = load(1);
        let read = WeightBytes {
            blocks: Vec::new(),
            always: of_image.inputs as u64
                * (weights.always + weights.blocks.iter().sum::<u64>() + control_weights),
        };
        let mut denoising = Denoising {
            arithmetic: arithmetic(network.work(of_image), &read).times(evaluations),
            weights,
            conditions,
            evaluations,
            control_window: controls
                .iter()
                .map(|control| window(&control.weight_bytes()))
                .sum(),
            control_weights,
            control_conditions: of_controls,
            beside: vec![beside(1)],
        };
        // Images share passes only if blocks are streamed, and as many as fit.
        let streams = denoising.peak(denoising.weights.blocks.len(), 1) > budget.0;
        let most = recipe.images.min(MOST_IMAGES_PER_PASS);
        while streams && denoising.beside.len() < most {
            let next = beside(denoising.beside.len() + 1);
            if next.throughout > budget.0 {
                break;
            }
            denoising.beside.push(next);
        }

        let decoder = Decoder::new(bundle.weights("vae", weight_options)?, &bundle.vae)?;
        // The image in f32 and in bytes, and its file.
        let image = 3 * pixels * (2 * float + 2);
        let weights = WeightBytes {
            blocks: Vec::new(),
            always: decoder.weight_bytes(),
        };
        let decoding = OnePass {
            name: DECODE,
            arithmetic: arithmetic(decoder.work(rows, columns), &weights),
            weights,
            beside: process
                + prompts
                + init_latents
                + waiting
                + image
                + taking(decoder.footprint(1, rows, columns)),
        };
        Ok(Self {
            before,
            denoising,
            decoding,
            waiting,
            steps: sampler.steps(),
            alone: surroundings.alone,
            has_own_memory,
        })
    }

    /// The stages with their smallest needs.
    fn least(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let passes = self.before.iter().chain([&self.decoding]);
        passes
            .map(|stage| (stage.name, stage.peak()))
            .chain([(DENOISE, self.denoising.peak(0, 1))])
    }

    pub(super) fn smallest_budget(&self) -> Bytes {
        Bytes(self.least().map(|(_, bytes)| bytes).max().unwrap_or_default())
    }

    /// The stage with the largest minimum.
    pub(super) fn largest_stage(&self) -> &'static str {
        self.least()
            .max_by_key(|&(_, bytes)| bytes)
            .map_or(DENOISE, |(name, _)| name)
    }
}
