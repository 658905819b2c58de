//! Times the networks of a model on a GPU by themselves, with all weights in its memory, and prints the memory that each
//! takes at most, weights included: decoding of one image of 1024 and of 2048 pixels a side, as a run does it and in
//! larger bands, and two texts of 256 tokens by T5, if the model has it.
//!
//! ```text
//! cargo run --release -p sd-models --example synthesize -- --arch sd3.5-large DIR
//! cargo run --release -p sd-models --features cuda --example networks -- DIR
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout)] // It measures, for whoever reads its output.

use std::path::Path;
use std::time::Instant;

use candle_core::{Device, Tensor};
use sd_models::{t5, vae};
use sd_weights::{
    ModelFolder, Residency, WeightOptions, WeightType, Weights, device_memory, open_cuda,
    release_device_memory, restart_device_peak,
};

const WARM_UPS: usize = 3;
const MEASURED: usize = 10;
const TOKENS: usize = 256;
/// Where a model of three text encoders has T5.
const T5: &str = "text_encoder_3";

fn main() {
    let folder = std::env::args().nth(1).unwrap();
    let folder = ModelFolder::on_disk(Path::new(&folder));
    let device = open_cuda(0).unwrap();
    let weights = |component: &str| {
        let options = WeightOptions::new(device.clone(), WeightType::AsStored, Residency::Resident);
        Weights::new(folder.checkpoint(component).unwrap(), options)
    };
    for side in [1024, 2048] {
        let config: vae::Config = folder.json("vae/config.json").unwrap();
        let side_of_latents = side / config.downsampling();
        let shape = (1, config.latent_channels, side_of_latents, side_of_latents);
        let latents = Tensor::randn(0.0_f32, 1.0, shape, &device).unwrap();
        // As a run decodes, then in larger bands.
        for larger in [None, Some(1_usize << 24), Some(1 << 26), Some(usize::MAX)] {
            let mut decoder = vae::Decoder::new(weights("vae"), &config).unwrap();
            if let Some(band) = larger {
                let stored = band.max(1 << 26);
                decoder = decoder.with_banding(vae::Banding { band, stored });
            }
            decoder.load().unwrap();
            let bands = larger.map_or_else(String::new, |band| format!(" in bands of {band} values"));
            measure(&format!("decoding {side}{bands}"), &device, || {
                decoder.decode(&latents).unwrap()
            });
        }
    }
    if let Ok(config) = folder.json::<t5::Config>(&format!("{T5}/config.json")) {
        let encoder = t5::TextEncoder::new(weights(T5), &config).unwrap();
        let texts = [1, 2].map(|first| (first..).take(TOKENS).collect::<Vec<u32>>());
        measure("T5, 2 x 256 tokens", &device, || encoder.encode(&texts).unwrap());
    }
}

/// Times calls one by one, each until the device is done.
fn measure(name: &str, device: &Device, call: impl Fn() -> Tensor) {
    let timed = || {
        let begin = Instant::now();
        let result = call();
        device.synchronize().unwrap();
        drop(result);
        begin.elapsed().as_secs_f64()
    };
    for _ in 0..WARM_UPS {
        timed();
    }
    release_device_memory(device).unwrap();
    restart_device_peak(device).unwrap();
    let mut seconds: Vec<f64> = (0..MEASURED).map(|_| timed()).collect();
    seconds.sort_by(f64::total_cmp);
    let memory = device_memory(device).unwrap().unwrap();
    println!(
        "{name}: {:.4} s, tensors {:.2} GB, pool {:.2} GB (of 10^9 bytes)",
        seconds[MEASURED / 2],
        memory.used_peak as f64 / 1e9,
        memory.held_peak as f64 / 1e9
    );
}
