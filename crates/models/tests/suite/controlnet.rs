//! ControlNets against diffusers' `ControlNetModel`, alone and with a UNet.

use crate::reference;
use reference::{Case, compare};
use sd_models::controlnet::{self, ControlNet};
use sd_models::unet::{self, AddedConditions, ConditioningInputs, UNet};
use sd_models::{Error, unet::Residuals};
use sd_weights::{Residency, WeightType, Weights};

/// Calls `with` with the conditioning inputs of `case`.
fn with_inputs<R>(case: &Case, with: impl FnOnce(&ConditioningInputs<'_>) -> R) -> R {
    let timesteps = case.tensor("timesteps").to_vec1::<f32>().unwrap();
    let (_, _, height, width) = case.tensor("latents").dims4().unwrap();
    let time_ids = case
        .get("time_ids")
        .map(|time_ids| time_ids.to_vec2::<f32>().unwrap());
    with(&ConditioningInputs {
        timesteps: &timesteps,
        context: case.tensor("context"),
        added: time_ids.as_ref().map(|time_ids| AddedConditions {
            text_embeds: case.tensor("pooled"),
            time_ids,
        }),
        guidance: None,
        latents: (height, width),
    })
}

fn control(case: &Case, weights: Weights) -> Residuals {
    let controlnet = ControlNet::new(weights, &case.config()).unwrap();
    controlnet.load().unwrap();
    let image = case.tensor("picture");
    let conditions = with_inputs(case, |inputs| controlnet.condition(inputs, image)).unwrap();
    let input = controlnet::Input {
        latents: case.tensor("latents"),
        conditions: &conditions,
        scale: f64::from(case.tensor("scale").to_vec1::<f32>().unwrap()[0]),
    };
    controlnet.forward(&[input], 0).unwrap().remove(0)
}

fn agrees(name: &str) {
    const DOWN: [&str; 12] = [
        "down_0", "down_1", "down_2", "down_3", "down_4", "down_5", "down_6", "down_7", "down_8", "down_9",
        "down_10", "down_11",
    ];
    let case = Case::open("controlnet", name);
    let of_unet = Case::open("unet", name);
    compare(&case, |weights| {
        let weight_options = weights.options();
        let unet = of_unet.weights(weight_options.weight_type, weight_options.residency);
        let residuals = control(&case, weights);
        let unet = UNet::new(unet, &of_unet.config()).unwrap();
        let conditions = with_inputs(&case, |inputs| unet.condition(inputs)).unwrap();
        let input = unet::Input {
            latents: case.tensor("latents"),
            conditions: &conditions,
            control: Some(&residuals),
        };
        let prediction = unet.forward(&[input], 0).unwrap().remove(0);
        let mut found = vec![("prediction", prediction), ("middle", residuals.middle)];
        assert!(case.get(&format!("down_{}", residuals.down.len())).is_none());
        found.extend(DOWN.into_iter().zip(residuals.down));
        found
    });
}

#[test]
fn stable_diffusion_1_5_at_an_odd_size() {
    agrees("sd15");
}

#[test]
fn stable_diffusion_xl_with_blue_first() {
    agrees("sdxl");
}

#[test]
fn several_give_their_sum() {
    let case = Case::open("controlnet", "sdxl");
    let of = || control(&case, case.weights(WeightType::F32, Residency::Resident));
    let (one, two) = (of(), of().plus(&of()).unwrap());
    for (one, two) in one
        .down
        .iter()
        .chain([&one.middle])
        .zip(two.down.iter().chain([&two.middle]))
    {
        reference::assert_close(two, &(one * 2.0).unwrap(), 1e-6, "sum");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = Case::open("controlnet", "sd15");
    let weights = || case.weights(WeightType::F32, Residency::Streamed);
    for (name, value) in [
        ("global_pool_conditions", serde_json::json!(true)),
        ("conditioning_embedding_out_channels", serde_json::json!([])),
        ("conditioning_channels", serde_json::json!(0)),
        ("class_embed_type", serde_json::json!("timestep")),
    ] {
        let mut config: serde_json::Value = case.config();
        config[name] = value;
        match ControlNet::new(weights(), &serde_json::from_value(config).unwrap()) {
            Err(Error::Config { reason, .. }) => assert!(reason.contains(name), "{name}: {reason}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    let controlnet = ControlNet::new(weights(), &case.config()).unwrap();
    let turned = case.tensor("picture").transpose(2, 3).unwrap();
    let found = with_inputs(&case, |inputs| controlnet.condition(inputs, &turned));
    assert!(matches!(found, Err(Error::Input { .. })));
}
