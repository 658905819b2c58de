//! The predicted footprint of the VAE against the measured one.

#![allow(clippy::unwrap_used, clippy::print_stderr)] // Without its data a test has failed; it says how close it came.

mod random;

use candle_core::{Device, Tensor};
use sd_models::Footprint;
use sd_models::vae::{Banding, Config, Decoder, Encoder};
use sd_weights::WeightType;

#[global_allocator]
static ALLOCATOR: sd_weights::CountingAllocator = sd_weights::CountingAllocator;

fn input(shape: [usize; 4]) -> Tensor {
    Tensor::from_vec(random::values(shape.iter().product()), &shape, &Device::Cpu).unwrap()
}

/// Bytes that `run` takes at most beside what there was before.
fn taken<R>(run: impl FnOnce() -> R) -> u64 {
    let before = sd_weights::allocated_bytes();
    sd_weights::restart_allocated_peak();
    drop(run());
    sd_weights::allocated_peak() - before
}

fn assert_predicted(what: &str, predicted: Footprint, taken: u64) {
    let ratio = predicted.bytes() as f64 / taken as f64;
    eprintln!("{what}: {taken} bytes taken, {ratio:.3} times as many predicted");
    assert!(
        (1.0..=1.1).contains(&ratio),
        "{what}: {predicted:?} predicted, {taken} taken"
    );
}

/// The only test of this binary, so that nothing else allocates.
#[test]
fn what_is_taken_is_what_was_predicted() {
    // What threads take counts for the more the more there are.
    rayon::ThreadPoolBuilder::new()
        .num_threads(2)
        .build_global()
        .unwrap();
    let banding = |band: usize, stored: usize| {
        Some(Banding {
            band: 1 << band,
            stored: 1 << stored,
        })
    };
    for (channels, attention, [batch, height, width], banding) in [
        // Bands by the size of the image, with everything kept.
        (vec![32, 32, 64], true, [1, 128, 128], None),
        // One band.
        (vec![16, 32, 32], false, [1, 250, 260], Some(Banding::WHOLE)),
        // The last level is computed again and its first input is not held, as it is from 1024x1024 on.
        (vec![16, 32, 32, 32], true, [1, 160, 192], banding(19, 23)),
        (vec![16, 32, 32], false, [2, 256, 280], banding(19, 22)),
        // The first input of the last level is held, and it is computed again.
        (vec![16, 16, 32], false, [1, 256, 300], banding(19, 25)),
    ] {
        let config = Config {
            block_out_channels: channels,
            latent_channels: 8,
            norm_num_groups: 16,
            use_quant_conv: false,
            use_post_quant_conv: false,
            mid_block_add_attention: attention,
            ..Config::default()
        };
        let weights = random::autoencoder(&config, WeightType::Bf16);
        let mut decoder = Decoder::new(weights.clone(), &config).unwrap();
        let mut encoder = Encoder::new(weights, &config).unwrap();
        if let Some(banding) = banding {
            (decoder, encoder) = (decoder.with_banding(banding), encoder.with_banding(banding));
        }
        let factor = config.downsampling();
        decoder.load().unwrap();
        encoder.load().unwrap();
        let what = format!("{:?}, {batch} of {width}x{height}", config.block_out_channels);
        let latents = input([batch, 8, height, width]);
        assert_predicted(
            &format!("decoding {what}"),
            decoder.footprint(batch, height, width),
            taken(|| decoder.decode(&latents).unwrap()),
        );
        let image = input([batch, 3, factor * height, factor * width]);
        assert_predicted(
            &format!("encoding {what}"),
            encoder.footprint(batch, height, width),
            taken(|| encoder.encode(&image).unwrap()),
        );
    }
}
