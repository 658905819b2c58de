//! Decodes random latents with a random autoencoder of Stable Diffusion 3.5's size, and says what it took:
//! `cargo run --release -p sd-models --example decode -- SIDE`.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // It measures, for whoever reads its output.

#[path = "../tests/random/mod.rs"]
mod random;

use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use sd_models::vae::Decoder;
use sd_weights::WeightType;

#[global_allocator]
static ALLOCATOR: sd_weights::CountingAllocator = sd_weights::CountingAllocator;

const GB: f64 = (1_u64 << 30) as f64;

fn main() {
    if std::env::args().nth(2).is_none() {
        sd_weights::return_large_pieces_at_once();
    }
    let side: usize = std::env::args().nth(1).map_or(512, |side| side.parse().unwrap());
    let config = random::stable_diffusion_3();
    let weights = random::autoencoder(&config, WeightType::Bf16);
    let latent = side / config.downsampling();
    let latents = Tensor::randn(
        0.0_f32,
        1.0,
        (1, config.latent_channels, latent, latent),
        &Device::Cpu,
    )
    .unwrap();
    let decoder = Decoder::new(weights, &config).unwrap();
    // The first picture is small: it reads the weights.
    decoder
        .decode(&latents.narrow(2, 0, 8).unwrap().narrow(3, 0, 8).unwrap())
        .unwrap();
    let weights = sd_weights::allocated_bytes();
    sd_weights::restart_allocated_peak();
    let start = Instant::now();
    let picture = decoder.decode(&latents).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let peak = sd_weights::allocated_peak();
    let mean = picture
        .to_dtype(DType::F64)
        .unwrap()
        .sqr()
        .unwrap()
        .mean_all()
        .unwrap()
        .to_scalar::<f64>()
        .unwrap();
    println!("{side}x{side}: {seconds:.2} s, mean square {mean:.9}");
    println!(
        "allocated at most   {:.3} GB, of which before {:.3} GB",
        peak as f64 / GB,
        weights as f64 / GB
    );
    println!("resident at most    {:.3} GB", resident_at_most() / GB);
}

/// `VmHWM` of this process.
fn resident_at_most() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kilobytes.unwrap_or(f64::NAN) * 1024.0
}
