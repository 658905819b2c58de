//! The transformer against diffusers' `SD3Transformer2DModel`.

use crate::reference::{Case, WITHIN_F32, assert_close, compare};
use candle_core::Tensor;
use sd_models::mmdit::{Conditions, Config, Input, Transformer};
use sd_weights::{Residency, WeightType, Weights};

/// What `transformer` needs to know of the texts and timesteps of `case`.
fn condition(transformer: &Transformer, case: &Case) -> Conditions {
    let timesteps = case.tensor("timestep").to_vec1::<f32>().unwrap();
    let (_, _, height, width) = case.tensor("latents").dims4().unwrap();
    transformer
        .condition(
            &timesteps,
            case.tensor("encoder_hidden_states"),
            case.tensor("pooled"),
            (height, width),
        )
        .unwrap()
}

/// The predictions for each latents of the case, whose timesteps differ: the `i`-th at step `i`.
fn predict(weights: Weights, config: &Config, case: &Case) -> Tensor {
    let transformer = Transformer::new(weights, config).unwrap();
    transformer.load().unwrap();
    let conditions = condition(&transformer, case);
    let predictions: Vec<Tensor> = (0..conditions.texts())
        .map(|index| {
            let input = Input {
                latents: &case.tensor("latents").narrow(0, index, 1).unwrap(),
                conditions: &conditions.only(index),
            };
            transformer.forward(&[input], &[], index).unwrap().remove(0)
        })
        .collect();
    Tensor::cat(&predictions, 0).unwrap()
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
fn stable_diffusion_3_5_medium_has_dual_attention() {
    agrees("medium35");
}

#[test]
fn a_batch_gives_what_each_of_it_gives_alone_and_beside_others() {
    let case = Case::open("mmdit", "large");
    let config: Config = case.config();
    let transformer = Transformer::new(case.weights(WeightType::F32, Residency::Resident), &config).unwrap();
    let conditions = condition(&transformer, &case);
    let latents = case.tensor("latents");
    for step in 0..conditions.steps() {
        let batch = Input {
            latents,
            conditions: &conditions,
        };
        let together = transformer.forward(&[batch], &[], step).unwrap().remove(0);
        let one = |index: usize| (latents.narrow(0, index, 1).unwrap(), conditions.only(index));
        let ones: Vec<_> = (0..conditions.texts()).map(one).collect();
        let inputs: Vec<Input<'_>> = ones
            .iter()
            .map(|(latents, conditions)| Input { latents, conditions })
            .collect();
        let beside = transformer.forward(&inputs, &[], step).unwrap();
        for (index, input) in inputs.iter().enumerate() {
            let alone = transformer.forward(&[*input], &[], step).unwrap().remove(0);
            let expected = together.narrow(0, index, 1).unwrap();
            assert_close(&alone, &expected, WITHIN_F32, "alone");
            let difference = (&alone - &beside[index]).unwrap().abs().unwrap();
            let greatest = difference.max_all().unwrap().to_scalar::<f32>().unwrap();
            assert_eq!(greatest, 0.0, "another input in the same pass changed a bit");
        }
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
        Weights::new(checkpoint, weights.options().clone()),
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
    for size in [(11, 20), (12, 34)] {
        assert!(
            transformer.condition(&[1.0], context, pooled, size).is_err(),
            "{size:?}"
        );
    }
    assert!(transformer.condition(&[1.0], pooled, context, (12, 20)).is_err());
    let conditions = transformer.condition(&[1.0], context, pooled, (12, 20)).unwrap();
    for (shape, step) in [
        ((2, 15, 12, 20), 0),
        ((2, 16, 12, 18), 0),
        ((1, 16, 12, 20), 0),
        ((2, 16, 12, 20), 1),
    ] {
        let latents = Tensor::zeros(shape, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        let input = Input {
            latents: &latents,
            conditions: &conditions,
        };
        assert!(
            transformer.forward(&[input], &[], step).is_err(),
            "{shape:?} at step {step}"
        );
    }
    let deeper = Config {
        num_layers: config.num_layers + 1,
        ..config
    };
    // By the header, before anything is loaded.
    let error = Transformer::new(weights(), &deeper).unwrap_err();
    assert!(matches!(&error, sd_models::Error::Weights(_)), "{error:?}");
}
