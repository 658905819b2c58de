//! ControlNets of Stable Diffusion 3 against diffusers' `SD3ControlNetModel`, run with a transformer.

use crate::reference::{Case, WITHIN_F32, assert_close, compare};
use candle_core::Tensor;
use sd_models::Error;
use sd_models::mmdit::control::{Conditions, Config, Control, ControlNet};
use sd_models::mmdit::{self, Input, Transformer};
use sd_weights::{Residency, WeightType, Weights};

/// The transformer that is conditioned, and what it is given.
fn conditioned() -> Case {
    Case::open("controlnet", "transformer")
}

fn network(case: &Case, weights: Weights) -> (ControlNet, Conditions) {
    let given = conditioned();
    let network = ControlNet::new(weights, &case.config()).unwrap();
    network.load().unwrap();
    let timesteps = given.tensor("timestep").to_vec1::<f32>().unwrap();
    let conditions = network
        .condition(
            &timesteps,
            given.tensor("encoder_hidden_states"),
            given.tensor("pooled"),
            case.tensor("picture"),
        )
        .unwrap();
    (network, conditions)
}

fn transformer(weight_type: WeightType, residency: Residency) -> (Transformer, mmdit::Conditions) {
    let case = conditioned();
    let transformer = Transformer::new(case.weights(weight_type, residency), &case.config()).unwrap();
    transformer.load().unwrap();
    let timesteps = case.tensor("timestep").to_vec1::<f32>().unwrap();
    let (_, _, height, width) = case.tensor("latents").dims4().unwrap();
    let (context, pooled) = (case.tensor("encoder_hidden_states"), case.tensor("pooled"));
    let conditions = transformer.condition(&timesteps, context, pooled, (height, width));
    (transformer, conditions.unwrap())
}

/// What the transformer predicts with `networks` beside it: of the `i`-th latents at step `i`, as their
/// timesteps differ.
fn predict(
    (transformer, conditions): &(Transformer, mmdit::Conditions),
    networks: &[(ControlNet, Conditions, f64)],
) -> Tensor {
    let case = conditioned();
    let predictions: Vec<Tensor> = (0..conditions.texts())
        .map(|index| {
            let input = Input {
                latents: &case.tensor("latents").narrow(0, index, 1).unwrap(),
                conditions: &conditions.only(index),
            };
            let of_text: Vec<_> = networks
                .iter()
                .map(|(_, conditions, _)| [conditions.only(index)])
                .collect();
            let controls: Vec<Control<'_>> = networks
                .iter()
                .zip(&of_text)
                .map(|((network, _, scale), conditions)| Control {
                    network,
                    conditions,
                    scale: *scale,
                })
                .collect();
            transformer.forward(&[input], &controls, index).unwrap().remove(0)
        })
        .collect();
    Tensor::cat(&predictions, 0).unwrap()
}

fn scale(case: &Case) -> f64 {
    f64::from(case.tensor("scale").to_vec1::<f32>().unwrap()[0])
}

fn agrees(name: &str) {
    let case = Case::open("controlnet", name);
    compare(&case, |weights| {
        let weight_options = weights.options().clone();
        let transformer = transformer(weight_options.weight_type, weight_options.residency);
        let (network, conditions) = network(&case, weights);
        vec![(
            "prediction",
            predict(&transformer, &[(network, conditions, scale(&case))]),
        )]
    });
}

#[test]
fn one_that_reads_text_has_positions_of_its_own_and_a_mask() {
    agrees("sd3");
}

#[test]
fn one_that_reads_no_text_takes_the_transformer_s_tokens() {
    agrees("sd35-large");
}

#[test]
fn several_are_added_each_spread_over_the_blocks_by_itself() {
    let cases = ["sd3", "sd35-large"].map(|name| Case::open("controlnet", name));
    let networks = cases.each_ref().map(|case| {
        let (network, conditions) = network(case, case.weights(WeightType::F32, Residency::Streamed));
        (network, conditions, scale(case))
    });
    let found = predict(&transformer(WeightType::F32, Residency::Streamed), &networks);
    let expected = cases[1].tensor("prediction_of_both");
    assert_close(&found, expected, WITHIN_F32, "prediction_of_both");
}

#[test]
fn inputs_that_share_a_pass_change_no_bit_of_each_other() {
    let case = Case::open("controlnet", "sd3");
    let (network, of_network) = network(&case, case.weights(WeightType::F32, Residency::Streamed));
    let (transformer, conditions) = transformer(WeightType::F32, Residency::Streamed);
    let given = conditioned();
    let latents = given.tensor("latents");
    let ones: Vec<_> = (0..conditions.texts())
        .map(|index| {
            let latents = latents.narrow(0, index, 1).unwrap();
            (latents, conditions.only(index), of_network.only(index))
        })
        .collect();
    let predict = |ones: &[(Tensor, mmdit::Conditions, Conditions)]| {
        let inputs: Vec<Input<'_>> = ones
            .iter()
            .map(|(latents, conditions, _)| Input { latents, conditions })
            .collect();
        let control = Control {
            network: &network,
            conditions: &ones.iter().map(|one| one.2.clone()).collect::<Vec<_>>(),
            scale: 1.0,
        };
        transformer.forward(&inputs, &[control], 1).unwrap()
    };
    let together = predict(&ones);
    for (together, one) in together.iter().zip(&ones) {
        let alone = predict(std::slice::from_ref(one)).remove(0);
        let difference = (&alone - together).unwrap().abs().unwrap().max_all().unwrap();
        assert_eq!(difference.to_scalar::<f32>().unwrap(), 0.0);
    }
}

#[test]
fn texts_that_run_in_parallel_change_no_bit_of_each_other() {
    let case = Case::open("controlnet", "sd3");
    let (network, of_network) = network(&case, case.weights(WeightType::F32, Residency::Streamed));
    let (transformer, conditions) = transformer(WeightType::F32, Residency::Streamed);
    assert!(conditions.texts() > 1);
    let given = conditioned();
    let input = Input {
        latents: given.tensor("latents"),
        conditions: &conditions,
    };
    // Beside a ControlNet, though it adds nothing, they pass through a block together.
    let control = Control {
        network: &network,
        conditions: &[of_network],
        scale: 0.0,
    };
    let together = transformer.forward(&[input], &[control], 1).unwrap().remove(0);
    let apart = transformer.forward(&[input], &[], 1).unwrap().remove(0);
    assert_eq!(apart.dims(), together.dims());
    let difference = (&apart - &together).unwrap().abs().unwrap().max_all().unwrap();
    assert_eq!(difference.to_scalar::<f32>().unwrap(), 0.0);
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = Case::open("controlnet", "sd3");
    let weights = || case.weights(WeightType::F32, Residency::Streamed);
    for (name, value) in [
        ("pos_embed_type", serde_json::json!("learned")),
        ("pos_embed_max_size", serde_json::json!(null)),
        ("num_layers", serde_json::json!(0)),
        ("extra_conditioning_channels", serde_json::json!(1 << 20)),
        ("qk_norm", serde_json::json!("layer_norm")),
    ] {
        let mut config: serde_json::Value = case.config();
        config[name] = value;
        match ControlNet::new(weights(), &serde_json::from_value(config).unwrap()) {
            Err(Error::Config { reason, .. }) => assert!(reason.contains(name), "{name}: {reason}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    let config: Config = case.config();
    let conditioned = conditioned();
    assert_eq!(config.mismatch(&conditioned.config()), None);
    let wider = mmdit::Config {
        num_attention_heads: 3,
        ..conditioned.config()
    };
    let reason = config.mismatch(&wider).unwrap();
    assert_eq!(reason, "it has 12 features inside, and the model 18");

    // An image without its mask, one of another size than the latents, and conditions of too few inputs.
    let network = ControlNet::new(weights(), &config).unwrap();
    let (context, pooled) = (
        conditioned.tensor("encoder_hidden_states"),
        conditioned.tensor("pooled"),
    );
    let image = case.tensor("picture");
    let unmasked = image.narrow(1, 0, 16).unwrap();
    assert!(network.condition(&[1.0], context, pooled, &unmasked).is_err());
    let turned = network.condition(&[1.0], context, pooled, &image.transpose(2, 3).unwrap());
    let turned = turned.unwrap();
    let (transformer, conditions) = transformer(WeightType::F32, Residency::Streamed);
    let input = Input {
        latents: conditioned.tensor("latents"),
        conditions: &conditions,
    };
    for conditions in [&[turned][..], &[]] {
        let control = Control {
            network: &network,
            conditions,
            scale: 1.0,
        };
        let found = transformer.forward(&[input], &[control], 0);
        assert!(matches!(found, Err(Error::Input { .. })), "{found:?}");
    }
}
