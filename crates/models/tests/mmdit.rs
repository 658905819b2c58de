//! The transformer against diffusers' `SD3Transformer2DModel`.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

mod reference;

use candle_core::Tensor;
use reference::{Case, WITHIN_F32, assert_close, compare};
use sd_models::mmdit::{Config, Transformer};
use sd_weights::{Residency, WeightType, Weights};

fn predict(weights: Weights, config: &Config, case: &Case) -> Tensor {
    let transformer = Transformer::new(weights, config).unwrap();
    transformer.load().unwrap();
    let timesteps = case.tensor("timestep").to_vec1::<f32>().unwrap();
    let (latents, context, pooled) = (
        case.tensor("latents"),
        case.tensor("encoder_hidden_states"),
        case.tensor("pooled"),
    );
    transformer.forward(latents, &timesteps, context, pooled).unwrap()
}

fn agrees(name: &str) {
    let case = Case::open("mmdit", name);
    let config: Config = case.config();
    compare(&case, |weights| {
        vec![("noise_prediction", predict(weights, &config, &case))]
    });
}

#[test]
fn stable_diffusion_3_medium() {
    agrees("medium");
}

#[test]
fn stable_diffusion_3_5_large_norms_queries_and_keys_and_is_sharded() {
    agrees("large");
}

#[test]
fn stable_diffusion_3_5_medium_attends_twice() {
    agrees("medium35");
}

#[test]
fn a_batch_gives_what_each_of_it_gives_alone() {
    let case = Case::open("mmdit", "large");
    let config: Config = case.config();
    let transformer = Transformer::new(case.weights(WeightType::F32, Residency::Resident), &config).unwrap();
    let timesteps = case.tensor("timestep").to_vec1::<f32>().unwrap();
    for (index, timestep) in timesteps.into_iter().enumerate() {
        let one = |name: &str| case.tensor(name).narrow(0, index, 1).unwrap();
        let alone = transformer
            .forward(
                &one("latents"),
                &[timestep],
                &one("encoder_hidden_states"),
                &one("pooled"),
            )
            .unwrap();
        assert_close(&alone, &one("noise_prediction"), WITHIN_F32, "alone");
    }
}

#[test]
fn the_position_table_is_the_one_that_the_file_would_hold() {
    // Without its table the network computes it.
    let case = Case::open("mmdit", "large");
    let config: Config = case.config();
    let weights = case.weights(WeightType::F32, Residency::Resident);
    let directory = std::env::temp_dir().join(format!("sd-models-positions-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("transformer")).unwrap();
    let tensors: std::collections::HashMap<String, Tensor> = weights
        .checkpoint()
        .tensors()
        .filter(|(name, _)| *name != "pos_embed.pos_embed")
        .map(|(name, header)| (name.to_owned(), weights.tensor(name, &header.shape).unwrap()))
        .collect();
    let file = directory.join("transformer/diffusion_pytorch_model.safetensors");
    candle_core::safetensors::save(&tensors, file).unwrap();
    let checkpoint = sd_weights::ModelFolder::on_disk(&directory)
        .checkpoint("transformer")
        .unwrap();
    let found = predict(
        Weights::new(checkpoint, weights.holding().clone()),
        &config,
        &case,
    );
    std::fs::remove_dir_all(directory).unwrap();
    assert_close(
        &found,
        case.tensor("noise_prediction"),
        WITHIN_F32,
        "noise_prediction",
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = Case::open("mmdit", "large");
    let config: Config = case.config();
    let weights = || case.weights(WeightType::F32, Residency::Resident);
    for wrong in [
        Config {
            qk_norm: Some("layer_norm".to_owned()),
            ..config.clone()
        },
        Config {
            caption_projection_dim: 33,
            ..config.clone()
        },
        Config {
            num_layers: 0,
            ..config.clone()
        },
        Config {
            patch_size: 0,
            ..config.clone()
        },
    ] {
        assert!(matches!(
            Transformer::new(weights(), &wrong),
            Err(sd_models::Error::Config { .. })
        ));
    }
    let transformer = Transformer::new(weights(), &config).unwrap();
    let (context, pooled) = (case.tensor("encoder_hidden_states"), case.tensor("pooled"));
    for shape in [(2, 15, 12, 20), (2, 16, 11, 20), (2, 16, 12, 34), (1, 16, 12, 20)] {
        let latents = Tensor::zeros(shape, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        assert!(
            transformer
                .forward(&latents, &[1.0, 2.0], context, pooled)
                .is_err(),
            "{shape:?}"
        );
    }
    let deeper = Config {
        num_layers: config.num_layers + 1,
        ..config
    };
    let error = Transformer::new(weights(), &deeper).unwrap().load().unwrap_err();
    assert!(matches!(&error, sd_models::Error::Weights(_)), "{error:?}");
}
