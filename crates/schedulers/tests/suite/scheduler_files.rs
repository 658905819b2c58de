//! The default sampler for the `scheduler_config.json` of well-known models, and which samplers support which
//! models.

use sd_schedulers::{Refusal, Sampler, SamplerKind, ScheduleKind, SchedulerConfig};

/// `scheduler_config.json` of widely used models, as on the hub.
const OF_THE_HUB: [(&str, &str, SamplerKind); 12] = [
    (
        "Stable Diffusion 1.5",
        r#"{"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,
        "trained_betas": null, "clip_sample": false}"#,
        SamplerKind::Pndm,
    ),
    (
        "Stable Diffusion 2.1",
        r#"{"_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "clip_sample": false, "num_train_timesteps": 1000, "prediction_type": "v_prediction",
        "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null}"#,
        SamplerKind::Ddim,
    ),
    (
        "Stable Diffusion XL",
        r#"{"_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false, "interpolation_type": "linear",
        "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": false,
        "skip_prk_steps": true, "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": null,
        "use_karras_sigmas": false}"#,
        SamplerKind::Euler,
    ),
    (
        "Stable Diffusion XL Turbo",
        r#"{"_class_name": "EulerAncestralDiscreteScheduler", "_diffusers_version": "0.24.0.dev0", "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false, "interpolation_type": "linear",
        "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": false,
        "skip_prk_steps": true, "steps_offset": 1, "timestep_spacing": "trailing", "trained_betas": null}"#,
        SamplerKind::EulerAncestral,
    ),
    (
        "Stable Diffusion 3",
        r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.29.0.dev0", "num_train_timesteps": 1000,
        "shift": 3.0}"#,
        SamplerKind::FlowEuler,
    ),
    (
        "LCM DreamShaper",
        r#"{"_class_name": "LCMScheduler", "_diffusers_version": "0.22.0.dev0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "clip_sample": false, "clip_sample_range": 1.0, "dynamic_thresholding_ratio": 0.995,
        "num_train_timesteps": 1000, "original_inference_steps": 50, "prediction_type": "epsilon",
        "rescale_betas_zero_snr": false, "sample_max_value": 1.0, "set_alpha_to_one": true, "steps_offset": 1,
        "thresholding": false, "timestep_scaling": 10.0, "timestep_spacing": "leading", "trained_betas": null}"#,
        SamplerKind::Lcm,
    ),
    (
        "DreamShaper",
        r#"{"_class_name": "DEISMultistepScheduler", "_diffusers_version": "0.18.0.dev0", "algorithm_type": "deis",
        "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false,
        "dynamic_thresholding_ratio": 0.995, "lower_order_final": true, "num_train_timesteps": 1000,
        "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": false, "skip_prk_steps": true,
        "solver_order": 2, "solver_type": "logrho", "steps_offset": 1, "thresholding": false, "timestep_spacing": "leading",
        "trained_betas": null}"#,
        SamplerKind::Deis,
    ),
    (
        "Playground 2.5",
        r#"{"_class_name": "EDMDPMSolverMultistepScheduler", "_diffusers_version": "0.27.0.dev0", "algorithm_type": "dpmsolver++",
        "dynamic_thresholding_ratio": 0.995, "euler_at_final": false, "final_sigmas_type": "zero", "lower_order_final": true,
        "num_train_timesteps": 1000, "prediction_type": "epsilon", "rho": 7.0, "sample_max_value": 1.0, "sigma_data": 0.5,
        "sigma_max": 80.0, "sigma_min": 0.002, "solver_order": 2, "solver_type": "midpoint", "thresholding": false}"#,
        SamplerKind::EdmDpmPlusPlus2M,
    ),
    (
        "CosXL",
        r#"{"_class_name": "EDMEulerScheduler", "_diffusers_version": "0.28.0.dev0", "num_train_timesteps": 1000,
        "prediction_type": "v_prediction", "rho": 7.0, "sigma_data": 1.0, "sigma_max": 120.0, "sigma_min": 0.002,
        "sigma_schedule": "exponential"}"#,
        SamplerKind::EdmEuler,
    ),
    (
        "a model of TCD",
        r#"{"_class_name": "TCDScheduler", "_diffusers_version": "0.28.0", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "clip_sample": false, "clip_sample_range": 1.0, "dynamic_thresholding_ratio": 0.995,
        "interpolation_type": "linear", "num_train_timesteps": 1000, "original_inference_steps": 50,
        "prediction_type": "epsilon", "rescale_betas_zero_snr": false, "sample_max_value": 1.0, "set_alpha_to_one": false,
        "skip_prk_steps": true, "steps_offset": 1, "thresholding": false, "timestep_scaling": 10.0,
        "timestep_spacing": "leading", "trained_betas": null, "use_karras_sigmas": false}"#,
        SamplerKind::Tcd,
    ),
    (
        "a model of rectified flow with DPM-Solver",
        r#"{"_class_name": "DPMSolverMultistepScheduler", "_diffusers_version": "0.32.0.dev0", "algorithm_type": "dpmsolver++",
        "beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001, "dynamic_thresholding_ratio": 0.995,
        "euler_at_final": false, "final_sigmas_type": "zero", "flow_shift": 3.0, "lambda_min_clipped": -Infinity,
        "lower_order_final": true, "num_train_timesteps": 1000, "prediction_type": "flow_prediction",
        "rescale_betas_zero_snr": false, "sample_max_value": 1.0, "solver_order": 2, "solver_type": "midpoint",
        "steps_offset": 0, "thresholding": false, "timestep_spacing": "linspace", "trained_betas": null,
        "use_beta_sigmas": false, "use_exponential_sigmas": false, "use_flow_sigmas": true, "use_karras_sigmas": false,
        "use_lu_lambdas": false, "variance_type": null}"#,
        SamplerKind::DpmPlusPlus2M,
    ),
    (
        "a merge with Runge-Kutta",
        r#"{"_class_name": "PNDMScheduler", "_diffusers_version": "0.10.2", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "num_train_timesteps": 1000, "prediction_type": "epsilon", "set_alpha_to_one": false,
        "skip_prk_steps": false, "steps_offset": 1, "trained_betas": null}"#,
        SamplerKind::PndmRungeKutta,
    ),
];

#[test]
fn published_models_use_their_own_sampler() {
    for (model, config, kind) in OF_THE_HUB {
        let config = SchedulerConfig::parse(config).unwrap();
        assert_eq!(config.sampler(), Ok(kind), "{model}");
        let sampler = Sampler::new(&config, kind, ScheduleKind::Automatic, 20, 0, 1024);
        assert!(sampler.is_ok(), "{model}: {sampler:?}");
    }
}

#[test]
fn samplers_of_two_kinds_of_models_lead_both() {
    let made = |config: &str, kind| {
        let config = SchedulerConfig::parse(config).unwrap();
        Sampler::new(&config, kind, ScheduleKind::Automatic, 20, 0, 1024)
    };
    // Stable Diffusion 3 with DPM++ 2M has the noise levels of `use_flow_sigmas`, shifted as its own.
    let own = made(
        r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}"#,
        SamplerKind::DpmPlusPlus2M,
    );
    let written = made(
        r#"{"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": true, "prediction_type": "flow_prediction",
        "flow_shift": 3.0, "shift": 9.0}"#,
        SamplerKind::DpmPlusPlus2M,
    );
    assert_eq!(own.unwrap().timesteps(), written.unwrap().timesteps());

    let playground = r#"{"_class_name": "EDMDPMSolverMultistepScheduler"}"#;
    assert_eq!(
        made(playground, SamplerKind::Euler).unwrap().kind(),
        SamplerKind::EdmEuler
    );
    assert_eq!(
        made(playground, SamplerKind::DpmPlusPlus2MSde).unwrap().kind(),
        SamplerKind::EdmDpmPlusPlus2MSde
    );
    for (config, kind) in [
        (playground, SamplerKind::Heun),
        (playground, SamplerKind::FlowEuler),
        ("{}", SamplerKind::EdmEuler),
        ("{}", SamplerKind::FlowLcm),
        (
            r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#,
            SamplerKind::Dpm2M,
        ),
    ] {
        assert!(
            matches!(made(config, kind), Err(Refusal::OtherModels { .. })),
            "{config} {kind}"
        );
    }
}
