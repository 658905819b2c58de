//! The autoencoder against diffusers' `AutoencoderKL`.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod reference;

use reference::{Case, assert_close, compare};
use sd_models::vae::{Config, Decoder, Encoder};
use sd_weights::{Residency, WeightType};

fn agrees(name: &str) {
    let case = Case::open("vae", name);
    let config: Config = case.config();
    compare(&case, |weights| {
        let decoded = Decoder::new(weights.clone(), &config)
            .unwrap()
            .decode(case.tensor("latents"))
            .unwrap();
        let encoded = Encoder::new(weights, &config)
            .unwrap()
            .encode(case.tensor("image"))
            .unwrap();
        vec![
            ("decoded", decoded),
            ("encoded_mean", encoded.mean),
            ("encoded_logvar", encoded.log_variance),
        ]
    });
}

#[test]
fn without_quant_convolutions() {
    agrees("plain");
}

#[test]
fn with_quant_convolutions() {
    agrees("quant");
}

#[test]
fn scales_are_undone() {
    let case = Case::open("vae", "plain");
    let config: Config = case.config();
    assert_eq!(
        (config.scaling_factor, config.shift_factor, config.downsampling()),
        (1.5305, Some(0.0609), 8)
    );
    let latents = case.tensor("latents");
    let scaled = config.scale(latents).unwrap();
    let expected = ((latents - 0.0609).unwrap() * 1.5305).unwrap();
    assert_close(&scaled, &expected, 1e-6, "scaled");
    assert_close(&config.unscale(&scaled).unwrap(), latents, 1e-6, "unscaled");
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = Case::open("vae", "plain");
    let config: Config = case.config();
    let weights = || case.weights(WeightType::F32, Residency::Resident);
    let decoder = Decoder::new(weights(), &config).unwrap();
    let wrong = Case::open("vae", "quant");
    assert!(matches!(
        decoder.decode(wrong.tensor("latents")),
        Err(sd_models::Error::Input { .. })
    ));
    let groups = Config {
        norm_num_groups: 5,
        ..config.clone()
    };
    assert!(matches!(
        Decoder::new(weights(), &groups),
        Err(sd_models::Error::Config { .. })
    ));
    let wider = Config {
        block_out_channels: vec![8, 12, 16, 20],
        ..config
    };
    let error = Decoder::new(weights(), &wider)
        .unwrap()
        .decode(case.tensor("latents"))
        .unwrap_err();
    assert!(
        matches!(
            error,
            sd_models::Error::Weights(sd_weights::Error::WrongShape { .. })
        ),
        "{error:?}"
    );
}
