//! Denoises with a transformer on a GPU, resident and streamed within budgets of device memory, and prints
//! time and memory of each and whether the latents are equal:
//!
//! ```text
//! cargo run --release -p sd-models --example synthesize -- --arch sd3.5-large DIR
//! cargo run --release -p sd-models --features cuda --example device -- DIR 1024 6 3
//! ```
//!
//! The numbers are the side of the images in pixels, and budgets in GB. Images are guided, with a batch of
//! two. Streamed blocks are cached in page-locked host memory after the first step; the last row streams from
//! the files.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // It measures, for whoever reads its output.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use sd_models::Conditioned;
use sd_models::mmdit::{Config, Input, Transformer};
use sd_weights::{
    Blocks, HostMemory, ModelFolder, Residency, WeightOptions, WeightType, Weights, bound_device_memory,
    bytes_read, bytes_uploaded, device_memory, open_cuda, release_device_memory, restart_device_peak,
};

const GB: f64 = (1_u64 << 30) as f64;
/// Steps that the conditions are made for, as a run of the model has them, and how many of them are gone
/// through.
const STEPS: usize = 28;
const MEASURED: usize = 3;
const TOKENS: usize = 77 + 256;
/// Pixels of the side of a latent.
const LATENT: usize = 8;
/// What is left under a budget for gaps between tensors.
const GAPS: u64 = 384 << 20;

struct Bench {
    folder: ModelFolder,
    config: Config,
    device: Device,
    latent_side: usize,
}

struct Outcome {
    latents: Vec<f32>,
    seconds: Vec<f64>,
    uploaded: u64,
    read: u64,
    /// The most that tensors took, that was held for them, and that the driver counted beside what it counted
    /// before.
    used: u64,
    held: u64,
    driver: u64,
    host: u64,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = ModelFolder::on_disk(Path::new(&arguments.next().unwrap()));
    let side: usize = arguments.next().unwrap().parse().unwrap();
    let budgets: Vec<u64> = arguments
        .map(|gigabytes| (gigabytes.parse::<f64>().unwrap() * GB) as u64)
        .collect();
    let device = open_cuda(0).unwrap();
    let config: Config = folder.json("transformer/config.json").unwrap();
    let bench = Bench {
        folder,
        config,
        device,
        latent_side: side / LATENT,
    };

    let blocks = bench.transformer(Residency::Resident, 0).weight_bytes();
    let largest = blocks.blocks.iter().max().copied().unwrap();
    let weights = blocks.always + blocks.blocks.iter().sum::<u64>();
    println!(
        "{} blocks, {:.2} GB, the largest {:.3} GB",
        blocks.blocks.len(),
        gigabytes(weights),
        gigabytes(largest)
    );
    bench.measure_link();

    let resident = bench.run(Residency::Resident, 0).unwrap();
    // What the driver takes for itself: code, cuBLAS's scratch.
    let overhead = resident.driver - resident.held;
    let beside = resident.used - weights;
    println!(
        "beside the weights {:.2} GB, beside the tensors {:.2} GB",
        gigabytes(beside),
        gigabytes(overhead)
    );
    row("resident", &resident, &resident);
    let from_host = budgets.iter().map(|&budget| (u64::MAX, budget));
    let from_files = budgets.last().map(|&budget| (0, budget));
    for (host, budget) in from_host.chain(from_files) {
        let available = budget - overhead;
        let window = Residency::WINDOW as u64 * largest;
        let kept = available.saturating_sub(GAPS + beside + blocks.always + window) / largest;
        release_device_memory(&bench.device).unwrap();
        bound_device_memory(&bench.device, Some(available)).unwrap();
        let from = if host == 0 { "files" } else { "host memory" };
        let name = format!("{:.0} GB, {kept} blocks kept, from {from}", gigabytes(budget));
        match bench.run(Residency::Partly(kept as usize), host) {
            Ok(outcome) => row(&name, &outcome, &resident),
            Err(error) => println!("| {name} | {error}, {:?} |", device_memory(&bench.device)),
        }
    }
}

fn row(name: &str, outcome: &Outcome, resident: &Outcome) {
    let mut seconds = outcome.seconds[1..].to_vec();
    seconds.sort_by(f64::total_cmp);
    let step = seconds[seconds.len() / 2];
    println!(
        "| {name} | {step:.3} s | first {:.2} s | {:.2} GB copied | {:.1} GB/s | {:.2} GB read | tensors {:.2} GB | held {:.2} GB \
         | driver {:.2} GB | host {:.2} GB | {} |",
        outcome.seconds[0],
        gigabytes(outcome.uploaded),
        outcome.uploaded as f64 / step / 1e9,
        gigabytes(outcome.read),
        gigabytes(outcome.used),
        gigabytes(outcome.held),
        gigabytes(outcome.driver),
        gigabytes(outcome.host),
        if outcome.latents == resident.latents {
            "equal"
        } else {
            "DIFFERENT"
        }
    );
}

fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / GB
}

impl Bench {
    fn weights(&self, residency: Residency, host: u64) -> (Weights, HostMemory) {
        let host_memory = HostMemory::up_to(host);
        let weight_options = WeightOptions {
            host_memory: host_memory.clone(),
            ..WeightOptions::new(self.device.clone(), WeightType::AsStored, residency)
        };
        let checkpoint = self.folder.checkpoint("transformer").unwrap();
        (Weights::new(checkpoint, weight_options), host_memory)
    }

    fn transformer(&self, residency: Residency, host: u64) -> Transformer {
        Transformer::new(self.weights(residency, host).0, &self.config).unwrap()
    }

    /// How fast blocks come from host memory when nothing is computed.
    fn measure_link(&self) {
        const MEASURED_BLOCKS: usize = 12;
        let (weights, _host) = self.weights(Residency::Streamed, u64::MAX);
        let blocks = Blocks::new(
            (0..MEASURED_BLOCKS).map(|block| weights.scope("transformer_blocks").scope(block)),
            |_, weights| {
                let tensors = weights.held().map(|(name, shape, _)| weights.tensor(name, shape));
                tensors.collect::<sd_weights::Result<Vec<Tensor>>>()
            },
        )
        .unwrap();
        for pass in 0..3 {
            let (start, uploaded) = (Instant::now(), bytes_uploaded());
            for block in blocks.pass().unwrap() {
                drop(block.unwrap());
            }
            self.device.synchronize().unwrap();
            let (seconds, bytes) = (start.elapsed().as_secs_f64(), bytes_uploaded() - uploaded);
            println!(
                "link, pass {pass}: {:.2} GB in {seconds:.3} s, {:.1} GB/s",
                gigabytes(bytes),
                bytes as f64 / seconds / 1e9
            );
        }
    }

    /// Some steps of a guided denoising.
    fn run(&self, residency: Residency, host: u64) -> sd_models::Result<Outcome> {
        let sampler = Sampler::start(&self.device);
        let (weights, host_memory) = self.weights(residency, host);
        let transformer = Transformer::new(weights, &self.config)?;
        let side = self.latent_side;
        let timesteps: Vec<f32> = (0..STEPS)
            .map(|step| 1000.0 * (1.0 - step as f32 / STEPS as f32))
            .collect();
        let conditions = transformer.condition(
            &timesteps,
            &values(&[2, TOKENS, self.config.joint_attention_dim], 1).to_device(&self.device)?,
            &values(&[2, self.config.pooled_projection_dim], 2).to_device(&self.device)?,
            (side, side),
        )?;
        // What that took is another stage's.
        release_device_memory(&self.device)?;
        restart_device_peak(&self.device)?;
        transformer.load()?;

        let mut latents = values(&[1, self.config.in_channels, side, side], 3);
        let (mut seconds, mut uploaded, mut read) = (Vec::new(), 0, 0);
        for step in 0..MEASURED {
            let before = (bytes_uploaded(), bytes_read());
            let start = Instant::now();
            let both = latents.repeat((2, 1, 1, 1))?.to_device(&self.device)?;
            let input = Input {
                latents: &both,
                conditions: &conditions,
            };
            let predicted = transformer.forward(&[input], &[], step)?.remove(0);
            let predicted = predicted.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
            let (without, with) = (predicted.narrow(0, 0, 1)?, predicted.narrow(0, 1, 1)?);
            let velocity = (&without + ((with - &without)? * 4.5)?)?;
            latents = (latents - (velocity / STEPS as f64)?)?;
            seconds.push(start.elapsed().as_secs_f64());
            (uploaded, read) = (bytes_uploaded() - before.0, bytes_read() - before.1);
        }
        let memory = device_memory(&self.device)?.unwrap();
        let latents: Vec<f32> = latents.flatten_all()?.to_vec1()?;
        assert!(latents.iter().all(|value| value.is_finite()));
        Ok(Outcome {
            latents,
            seconds,
            uploaded,
            read,
            used: memory.used_peak,
            held: memory.held_peak,
            driver: sampler.peak(),
            host: host_memory.taken(),
        })
    }
}

/// Values between -1 and 1, evenly spread, the same every time.
fn values(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed << 32 | 0x9e37_79b9;
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|_| {
            // Marsaglia, "Xorshift RNGs", 2003.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// A thread that reads the driver's figure again and again.
struct Sampler {
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Sampler {
    fn start(device: &Device) -> Self {
        let (peak, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (theirs, stopped, device) = (peak.clone(), stop.clone(), device.clone());
        thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Ok(Some(memory)) = device_memory(&device) {
                    theirs.fetch_max(memory.total - memory.free, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        Self { peak, stop }
    }

    fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
