//! This side of the comparison with diffusers: loads a network once, and runs one piece of its work per
//! request.
//!
//! ```text
//! compare WORK FOLDER INPUTS OUTPUT WEIGHT_TYPE HELD THREADS
//! ```
//!
//! WORK is `transformer`, `unet`, `decoder` or `t5`; INPUTS a safetensors file; WEIGHT_TYPE `f32` or `bf16`;
//! HELD the residency: `resident`, `streamed`, or for a transformer a budget in megabytes. A line of JSON
//! reports that the network is ready. Then every line on standard input runs one piece and is answered with
//! its seconds. The first result is saved as OUTPUT.

#![allow(clippy::print_stdout)] // Its output is read by `compare.py`.

use std::collections::HashMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use sd_models::{Conditioned, Load, mmdit, t5, unet, vae};
use sd_weights::{ModelFolder, Residency, WeightOptions, WeightType, Weights};

#[global_allocator]
static ALLOCATOR: sd_weights::CountingAllocator = sd_weights::CountingAllocator;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What can be done again and again.
type Piece = Box<dyn Fn() -> Result<Tensor>>;

/// What of a budget is not the network's: the program, and what the allocator has at hand.
const PROGRAM: u64 = 64 << 20;

fn main() -> Result<()> {
    sd_weights::keep_heap_small();
    sd_ops::leave_threads_to_rayon();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [work, folder, inputs, output, weight_type, held, threads] = arguments.as_slice() else {
        return Err("usage: compare WORK FOLDER INPUTS OUTPUT WEIGHT_TYPE HELD THREADS".into());
    };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.parse()?)
        .build_global()?;
    let start = Instant::now();
    let network = Network {
        folder: ModelFolder::on_disk(folder),
        inputs: candle_core::safetensors::load(inputs, &Device::Cpu)?,
        weight_type: if weight_type == "f32" {
            WeightType::F32
        } else {
            WeightType::AsStored
        },
        held: held.clone(),
    };
    let piece = network.prepare(work)?;
    println!("{{\"ready\": {}}}", start.elapsed().as_secs_f64());
    for (index, line) in std::io::stdin().lines().enumerate() {
        line?;
        let start = Instant::now();
        let result = piece()?;
        let seconds = start.elapsed().as_secs_f64();
        if index == 0 {
            result.save_safetensors("output", Path::new(output))?;
        }
        println!("{{\"seconds\": {seconds}}}");
    }
    Ok(())
}

/// A network's files, what goes in, and how its weights are held.
struct Network {
    folder: ModelFolder,
    inputs: HashMap<String, Tensor>,
    weight_type: WeightType,
    held: String,
}

impl Network {
    /// Reads what stays in memory and computes what a run computes once.
    fn prepare(&self, work: &str) -> Result<Piece> {
        match work {
            "transformer" => self.transformer(),
            "unet" => self.unet(),
            "decoder" => self.decoder(),
            "t5" => self.t5(),
            _ => Err(format!("there is no work called {work}").into()),
        }
    }

    fn transformer(&self) -> Result<Piece> {
        let config: mmdit::Config = self.folder.json("transformer/config.json")?;
        let (latents, context, pooled) = (
            self.input("latents")?,
            self.input("context")?,
            self.input("pooled")?,
        );
        let (texts, tokens, _) = context.dims3()?;
        let (_, _, height, width) = latents.dims4()?;
        let load = Load {
            inputs: 1,
            texts,
            tokens,
            latents: (height, width),
        };
        let network = |residency| -> Result<mmdit::Transformer> {
            Ok(mmdit::Transformer::new(
                self.weights("transformer", residency)?,
                &config,
            )?)
        };
        let residency = match self.residency() {
            Some(residency) => residency,
            None => {
                let budget = self.held.parse::<u64>()? << 20;
                most_kept(&network(Residency::Streamed)?, load, config.num_layers, budget)?
            }
        };
        let network = network(residency)?;
        let conditions = network.condition(&self.timesteps()?, &context, &pooled, (height, width))?;
        network.load()?;
        Ok(Box::new(move || {
            let input = mmdit::Input {
                latents: &latents,
                conditions: &conditions,
            };
            first(network.forward(&[input], &[], 0)?)
        }))
    }

    fn unet(&self) -> Result<Piece> {
        let config: unet::Config = self.folder.json("unet/config.json")?;
        let (latents, context) = (self.input("latents")?, self.input("context")?);
        let (_, _, height, width) = latents.dims4()?;
        let network = unet::UNet::new(self.weights("unet", self.known_residency()?)?, &config)?;
        let conditions = network.condition(&unet::ConditioningInputs {
            timesteps: &self.timesteps()?,
            context: &context,
            added: None,
            guidance: None,
            latents: (height, width),
        })?;
        network.load()?;
        Ok(Box::new(move || {
            let input = unet::Input {
                latents: &latents,
                conditions: &conditions,
                control: None,
            };
            first(network.forward(&[input], 0)?)
        }))
    }

    fn decoder(&self) -> Result<Piece> {
        let config: vae::Config = self.folder.json("vae/config.json")?;
        let latents = self.input("latents")?;
        let decoder = vae::Decoder::new(self.weights("vae", self.known_residency()?)?, &config)?;
        decoder.load()?;
        Ok(Box::new(move || Ok(decoder.decode(&latents)?)))
    }

    fn t5(&self) -> Result<Piece> {
        let config: t5::Config = self.folder.json("text_encoder_3/config.json")?;
        let texts = self.input("tokens")?.to_dtype(DType::U32)?.to_vec2::<u32>()?;
        let encoder =
            t5::TextEncoder::new(self.weights("text_encoder_3", self.known_residency()?)?, &config)?;
        Ok(Box::new(move || Ok(encoder.encode(&texts)?)))
    }

    fn input(&self, name: &str) -> Result<Tensor> {
        let found = self.inputs.get(name).cloned();
        found.ok_or_else(|| format!("the inputs have no {name}").into())
    }

    fn timesteps(&self) -> Result<Vec<f32>> {
        // The sides are given it once, however many texts there are.
        Ok(self.input("timestep")?.to_vec1::<f32>()?)
    }

    fn weights(&self, component: &str, residency: Residency) -> Result<Weights> {
        let weight_options = WeightOptions::new(Device::Cpu, self.weight_type, residency);
        Ok(Weights::new(self.folder.checkpoint(component)?, weight_options))
    }

    /// Nothing where a budget decides.
    fn residency(&self) -> Option<Residency> {
        match self.held.as_str() {
            "resident" => Some(Residency::Resident),
            "streamed" => Some(Residency::Streamed),
            _ => None,
        }
    }

    fn known_residency(&self) -> Result<Residency> {
        self.residency()
            .ok_or_else(|| "a budget is for transformers".into())
    }
}

/// The residency that fits into `budget` beside a step of `load`.
fn most_kept(network: &mmdit::Transformer, load: Load, blocks: usize, budget: u64) -> Result<Residency> {
    let footprint = network.forward_footprint(load, &[]);
    let beside = PROGRAM + network.condition_bytes(load, 1) + footprint.scratch;
    let weights = network.weight_bytes();
    let taken =
        |kept| beside + weights.most_with(&vec![footprint.activations; blocks], Residency::Partly(kept));
    let most = (0..=blocks).rev().find(|&kept| taken(kept) <= budget);
    most.map(Residency::Partly)
        .ok_or_else(|| format!("{budget} bytes are too few").into())
}

fn first(predictions: Vec<Tensor>) -> Result<Tensor> {
    predictions
        .into_iter()
        .next()
        .ok_or_else(|| "there is no prediction".into())
}
