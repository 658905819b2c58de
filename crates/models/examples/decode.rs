//! Decodes random latents with a random VAE of the size of Stable Diffusion 3.5's, and prints its time and
//! memory: `cargo run --release -p sd-models --example decode -- SIDE`. With a second argument `whole` it
//! also decodes in one piece and compares, which takes 12 GB at 2048.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // It measures, for whoever reads its output.

#[path = "../tests/random/mod.rs"]
mod random;

use std::time::Instant;

use candle_core::{Device, Tensor};
use sd_models::vae::{Banding, Decoder};
use sd_weights::WeightType;

#[global_allocator]
static ALLOCATOR: sd_weights::CountingAllocator = sd_weights::CountingAllocator;

fn main() {
    sd_weights::keep_heap_small();
    let side: usize = std::env::args().nth(1).map_or(512, |side| side.parse().unwrap());
    let config = random::stable_diffusion_3();
    let (channels, side_of_latents) = (config.latent_channels, side / config.downsampling());
    let shape = (1, channels, side_of_latents, side_of_latents);
    let values = random::values(channels * side_of_latents * side_of_latents);
    let latents = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
    let decoder = Decoder::new(random::autoencoder(&config, WeightType::Bf16), &config).unwrap();
    decoder.load().unwrap();
    let before = sd_weights::allocated_bytes();
    sd_weights::restart_allocated_peak();
    let start = Instant::now();
    let image = decoder.decode(&latents).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let taken = sd_weights::allocated_peak() - before;
    let mean = image.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>();
    println!("{side}x{side}: {seconds:.2} s, mean square {}", mean.unwrap());
    let predicted = decoder.footprint(1, side_of_latents, side_of_latents).bytes();
    println!("taken at most       {}", gigabytes(taken));
    println!("predicted           {}", gigabytes(predicted));
    println!("weights and latents {}", gigabytes(before));
    println!("resident at most    {}", gigabytes(resident_at_most()));
    if std::env::args().nth(2).as_deref() == Some("whole") {
        let whole = decoder.with_banding(Banding::WHOLE).decode(&latents).unwrap();
        let difference = (whole - image).unwrap().abs().unwrap().max_all().unwrap();
        println!("greatest difference {}", difference.to_scalar::<f32>().unwrap());
        println!("in one piece        {}", gigabytes(resident_at_most()));
    }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.3} GB", bytes as f64 / f64::from(1 << 30))
}

/// `VmHWM` of this process.
fn resident_at_most() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or_default() << 10
}
