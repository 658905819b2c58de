//! The UNets against diffusers' `UNet2DConditionModel`.

use crate::reference::{Case, WITHIN_F32, assert_close, compare};
use candle_core::Tensor;
use sd_models::Error;
use sd_models::unet::{AddedConditions, ConditioningInputs, Conditions, Config, Input, UNet};
use sd_weights::{Residency, WeightType};

fn condition(unet: &UNet, case: &Case, latents: &str) -> Conditions {
    let timesteps = case.tensor("timesteps").to_vec1::<f32>().unwrap();
    let (_, _, height, width) = case.tensor(latents).dims4().unwrap();
    let time_ids = case
        .get("time_ids")
        .map(|time_ids| time_ids.to_vec2::<f32>().unwrap());
    let guidance = case
        .get("guidance")
        .map(|guidance| f64::from(guidance.to_vec1::<f32>().unwrap()[0]));
    unet.condition(&ConditioningInputs {
        timesteps: &timesteps,
        context: case.tensor("context"),
        added: time_ids.as_ref().map(|time_ids| AddedConditions {
            text_embeds: case.tensor("pooled"),
            time_ids,
        }),
        guidance,
        latents: (height, width),
    })
    .unwrap()
}

fn predict(unet: &UNet, latents: &Tensor, conditions: &Conditions, step: usize) -> Tensor {
    let input = Input {
        latents,
        conditions,
        control: None,
    };
    unet.forward(&[input], step).unwrap().remove(0)
}

fn agrees(name: &str) {
    let case = Case::open("unet", name);
    let config: Config = case.config();
    compare(&case, |weights| {
        let unet = UNet::new(weights, &config).unwrap();
        unet.load().unwrap();
        let conditions = condition(&unet, &case, "latents");
        let predict_at = |step| predict(&unet, case.tensor("latents"), &conditions, step);
        let mut found = vec![("prediction_0", predict_at(0)), ("prediction_1", predict_at(1))];
        if let Some(latents) = case.get("odd_latents") {
            let conditions = condition(&unet, &case, "odd_latents");
            found.push(("odd_prediction", predict(&unet, latents, &conditions, 0)));
        }
        found
    });
}

#[test]
fn stable_diffusion_1_5_at_even_and_odd_sizes() {
    agrees("sd15");
}

#[test]
fn stable_diffusion_2_1_projects_linearly_and_lists_its_heads() {
    agrees("sd21");
}

#[test]
fn stable_diffusion_xl_is_conditioned_on_sizes() {
    agrees("sdxl");
}

#[test]
fn the_refiner_is_conditioned_on_an_aesthetic_score() {
    agrees("refiner");
}

#[test]
fn inpainting_takes_nine_channels() {
    agrees("inpainting");
}

#[test]
fn a_latent_consistency_model_is_conditioned_on_the_guidance_scale() {
    agrees("lcm");
}

#[test]
fn a_batch_gives_what_each_of_it_gives_alone_and_beside_others() {
    let case = Case::open("unet", "sdxl");
    let unet = UNet::new(case.weights(WeightType::F32, Residency::Resident), &case.config()).unwrap();
    let conditions = condition(&unet, &case, "latents");
    let latents = case.tensor("latents");
    for step in 0..conditions.steps() {
        let together = predict(&unet, latents, &conditions, step);
        let one = |index: usize| (latents.narrow(0, index, 1).unwrap(), conditions.only(index));
        let ones: Vec<_> = (0..conditions.texts()).map(one).collect();
        let inputs: Vec<Input<'_>> = ones
            .iter()
            .map(|(latents, conditions)| Input {
                latents,
                conditions,
                control: None,
            })
            .collect();
        let beside = unet.forward(&inputs, step).unwrap();
        for (index, input) in inputs.iter().enumerate() {
            let alone = unet.forward(&[*input], step).unwrap().remove(0);
            let expected = together.narrow(0, index, 1).unwrap();
            assert_close(&alone, &expected, WITHIN_F32, "alone");
            let difference = (&alone - &beside[index]).unwrap().abs().unwrap();
            let greatest = difference.max_all().unwrap().to_scalar::<f32>().unwrap();
            assert_eq!(greatest, 0.0, "another input in the same pass changed a bit");
        }
    }
}

#[test]
fn configurations_that_are_not_known_are_refused_by_name() {
    let case = Case::open("unet", "sdxl");
    let weights = || case.weights(WeightType::F32, Residency::Streamed);
    let with = |name: &str, value: serde_json::Value| {
        let mut config: serde_json::Value = case.config();
        config[name] = value;
        UNet::new(weights(), &serde_json::from_value(config).unwrap())
    };
    for (name, value) in [
        ("class_embed_type", serde_json::json!("projection")),
        ("resnet_time_scale_shift", serde_json::json!("scale_shift")),
        ("addition_embed_type", serde_json::json!("image")),
        ("addition_time_embed_dim", serde_json::json!(null)),
        (
            "mid_block_type",
            serde_json::json!("UNetMidBlock2DSimpleCrossAttn"),
        ),
        (
            "down_block_types",
            serde_json::json!(["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"]),
        ),
        ("up_block_types", serde_json::json!([])),
        // Without the reverse it says nothing of the way up.
        ("transformer_layers_per_block", serde_json::json!([1, [2, 2], 3])),
        ("transformer_layers_per_block", serde_json::json!([1, [], 3])),
        (
            "reverse_transformer_layers_per_block",
            serde_json::json!([[3], 2, 1]),
        ),
        ("reverse_transformer_layers_per_block", serde_json::json!(2)),
        ("attention_head_dim", serde_json::json!(3)),
        ("attention_head_dim", serde_json::json!([2, 2, 2, 2])),
        ("layers_per_block", serde_json::json!([1, 1, 1, 1])),
        ("transformer_layers_per_block", serde_json::json!([0, 2, 3, 3])),
        ("only_cross_attention", serde_json::json!([false, false])),
        ("cross_attention_dim", serde_json::json!([24, 24])),
        ("layers_per_block", serde_json::json!(0)),
        ("norm_num_groups", serde_json::json!(5)),
        ("block_out_channels", serde_json::json!([])),
        ("conv_in_kernel", serde_json::json!(5)),
        ("freq_shift", serde_json::json!(1)),
    ] {
        match with(name, value) {
            Err(Error::Config { reason, .. }) => {
                assert!(reason.contains(name), "{name}: {reason}");
                assert!(!reason.contains("Some(") && !reason.contains("Each("), "{reason}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    for (name, value) in [
        ("freq_shift", serde_json::json!(0.0)),
        ("upcast_attention", serde_json::json!(true)),
        ("something_new", serde_json::json!("of no account")),
        ("act_fn", serde_json::json!("swish")),
        ("mid_block_type", serde_json::json!(null)),
        ("mid_block_type", serde_json::json!("UNetMidBlock2D")),
        ("only_cross_attention", serde_json::json!([false, false, false])),
        (
            "reverse_transformer_layers_per_block",
            serde_json::json!([[3, 3], [2, 2], 1]),
        ),
        ("transformer_layers_per_block", serde_json::json!([0, 2, 3])),
    ] {
        assert!(with(name, value).is_ok(), "{name}");
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let case = Case::open("unet", "refiner");
    let config: Config = case.config();
    assert_eq!(
        (config.time_id_count(12), config.pooled_features(5)),
        (Some(5), Some(12))
    );
    let unet = UNet::new(case.weights(WeightType::F32, Residency::Streamed), &config).unwrap();
    let context = case.tensor("context");
    let time_ids = case.tensor("time_ids").to_vec2::<f32>().unwrap();
    let added = AddedConditions {
        text_embeds: case.tensor("pooled"),
        time_ids: &time_ids,
    };
    let right = ConditioningInputs {
        timesteps: &[500.0],
        context,
        added: Some(added),
        guidance: None,
        latents: (8, 16),
    };
    let narrow = context.narrow(2, 0, 8).unwrap();
    let six: Vec<Vec<f32>> = vec![vec![512.0; 6]; 2];
    for wrong in [
        ConditioningInputs {
            context: &narrow,
            ..right
        },
        ConditioningInputs { added: None, ..right },
        ConditioningInputs {
            added: Some(AddedConditions {
                time_ids: &six,
                ..added
            }),
            ..right
        },
        ConditioningInputs {
            added: Some(AddedConditions {
                time_ids: &time_ids[..1],
                ..added
            }),
            ..right
        },
        ConditioningInputs {
            guidance: Some(7.5),
            ..right
        },
        ConditioningInputs {
            latents: (0, 16),
            ..right
        },
    ] {
        assert!(
            matches!(unet.condition(&wrong), Err(Error::Input { .. })),
            "{wrong:?}"
        );
    }
    let conditions = unet.condition(&right).unwrap();
    let latents = case.tensor("latents");
    let control = sd_models::unet::Residuals {
        down: vec![latents.clone()],
        middle: latents.clone(),
    };
    let input = Input {
        latents,
        conditions: &conditions,
        control: None,
    };
    let turned = latents.transpose(2, 3).unwrap();
    for (input, step) in [
        (input, 1),
        (
            Input {
                latents: &turned,
                ..input
            },
            0,
        ),
        (
            Input {
                control: Some(&control),
                ..input
            },
            0,
        ),
    ] {
        assert!(matches!(unet.forward(&[input], step), Err(Error::Input { .. })));
    }
}
