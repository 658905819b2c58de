//! Every sampler against diffusers' schedulers, evaluation by evaluation. `tools/reference/make_samplers.py`
//! writes the data.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use sd_schedulers::{
    FlowMatchEuler, Refusal, Sampler, SamplerKind, SamplerState, ScheduleKind, SchedulerConfig, StepError,
};
use serde::Deserialize;

const SHAPE: (usize, usize, usize, usize) = (1, 2, 2, 3);

#[derive(Deserialize)]
struct Case {
    kind: SamplerKind,
    schedule: ScheduleKind,
    config: serde_json::Value,
    steps: usize,
    first: usize,
    patches: Option<usize>,
    /// The `eta` that diffusers' step gets.
    eta: Option<f64>,
    initial_noise_scale: f32,
    timesteps: Vec<f32>,
    /// An original image with the noise of each evaluation, where the data has it.
    noised: Vec<Vec<f32>>,
    /// How many times each evaluation drew noise.
    noises: Vec<usize>,
    /// The latents after each evaluation, where the data has them.
    samples: Vec<Vec<f32>>,
}

impl Case {
    fn sampler(&self) -> Sampler {
        let config = SchedulerConfig {
            eta: self.eta,
            ..SchedulerConfig::parse(&self.config.to_string()).unwrap()
        };
        let patches = self.patches.unwrap_or(256);
        let made = Sampler::new(&config, self.kind, self.schedule, self.steps, self.first, patches);
        made.unwrap_or_else(|refusal| panic!("{}: {refusal}", self.name()))
    }

    fn name(&self) -> String {
        let Self {
            kind,
            schedule,
            steps,
            first,
            config,
            eta,
            ..
        } = self;
        format!("{kind}, {schedule}, {steps} steps from {first}, {config}, {eta:?}")
    }
}

fn cases() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/samplers.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The formulas that stand for a network, for noise and for images.
fn tensor(value: impl Fn(f64) -> f64) -> Tensor {
    let (_, channels, rows, columns) = SHAPE;
    let values: Vec<f32> = (0..channels * rows * columns)
        .map(|place| value(place as f64) as f32)
        .collect();
    Tensor::from_vec(values, SHAPE, &Device::Cpu).unwrap()
}

fn prediction(evaluation: usize, scaled: &Tensor) -> Tensor {
    let own = tensor(|place| 0.8 * (1.7 * place + 2.3 * evaluation as f64 + 0.5).sin());
    (own + (scaled * 0.15).unwrap()).unwrap()
}

fn noise(draw: usize) -> Tensor {
    tensor(|place| 1.4 * (2.9 * place + 1.1 * draw as f64 + 0.2).cos())
}

fn begin(sampler: &Sampler) -> SamplerState {
    let noise = tensor(|place| 1.3 * (0.9 * place + 0.4).sin());
    SamplerState::new((noise * f64::from(sampler.initial_noise_scale())).unwrap())
}

/// Advances `state` by `evaluation`; returns the number of draws so far.
fn advance(sampler: &Sampler, evaluation: usize, state: &mut SamplerState, drawn: usize) -> usize {
    let mut drawn = drawn;
    let scaled = sampler.scale_input(evaluation, &state.latents).unwrap();
    let mut draw = |_: &candle_core::Shape| {
        drawn += 1;
        Ok(noise(drawn))
    };
    sampler
        .step(evaluation, &prediction(evaluation, &scaled), state, &mut draw)
        .unwrap();
    drawn
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference, relative to the largest number.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected
        .iter()
        .fold(1e-6, |most: f32, value| most.max(value.abs()));
    let pairs = found.iter().zip(expected);
    pairs
        .map(|(found, expected)| (found - expected).abs() / largest)
        .fold(0.0, |most, share| {
            if share.is_nan() {
                f32::INFINITY
            } else {
                most.max(share)
            }
        })
}

#[test]
fn every_evaluation_is_that_of_the_reference() {
    let mut worst = BTreeMap::<&str, f32>::new();
    let cases = cases();
    for case in &cases {
        let (name, sampler) = (case.name(), case.sampler());
        assert_eq!(sampler.evaluations(), case.timesteps.len(), "{name}");
        let timesteps = difference(sampler.timesteps(), &case.timesteps);
        assert!(
            timesteps < 1e-6,
            "{name}: {:?} {:?}",
            sampler.timesteps(),
            case.timesteps
        );
        let scale = difference(&[sampler.initial_noise_scale()], &[case.initial_noise_scale]);
        assert!(scale < 1e-6, "{name}: scale {scale}");

        let (original, added) = (
            tensor(|place| 0.6 * (1.3 * place).cos()),
            tensor(|place| (3.1 * place + 0.7).sin()),
        );
        let mut state = begin(&sampler);
        let mut drawn = 0;
        for (evaluation, sample) in case.samples.iter().enumerate() {
            if !case.noised[evaluation].is_empty() {
                let noised = sampler.add_noise_at(evaluation, &original, &added).unwrap();
                let off = difference(&values(&noised), &case.noised[evaluation]);
                assert!(off < 1e-5, "{name}: noise before {evaluation} is off by {off}");
            }
            let before = drawn;
            drawn = advance(&sampler, evaluation, &mut state, drawn);
            assert_eq!(drawn - before, case.noises[evaluation], "{name}: {evaluation}");
            assert_eq!(
                drawn - before,
                sampler.noise_draws(evaluation),
                "{name}: {evaluation}"
            );
            if !sample.is_empty() {
                let off = difference(&values(&state.latents), sample);
                assert!(off <= 1e-4, "{name}: evaluation {evaluation} is off by {off}");
                let worst = worst.entry(case.kind.name()).or_default();
                *worst = worst.max(off);
            }
        }
        assert_eq!(sampler.steps_done(sampler.evaluations()), case.steps - case.first);
    }
    println!("{} cases, the largest differences: {worst:#?}", cases.len());
    assert_eq!(worst.len(), SamplerKind::ALL.len());
    assert!(cases.len() > 600);
}

#[test]
fn a_run_resumes_bit_by_bit_from_any_evaluation() {
    for case in cases().iter().filter(|case| case.steps == 7) {
        let sampler = case.sampler();
        let mut whole = begin(&sampler);
        let mut drawn = 0;
        let mut kept = Vec::new();
        for evaluation in 0..sampler.evaluations() {
            let tensors = whole.tensors().into_iter();
            let tensors: BTreeMap<String, Tensor> =
                tensors.map(|(name, tensor)| (name, tensor.clone())).collect();
            kept.push(tensors);
            drawn = advance(&sampler, evaluation, &mut whole, drawn);
        }
        let middle = sampler.evaluations() / 2;
        for begun in [1, middle, middle + 1] {
            let Some(tensors) = kept.get(begun) else { continue };
            let mut resumed = SamplerState::from_tensors(|name| tensors.get(name).cloned()).unwrap();
            let mut drawn = (0..begun).map(|evaluation| sampler.noise_draws(evaluation)).sum();
            for evaluation in begun..sampler.evaluations() {
                drawn = advance(&sampler, evaluation, &mut resumed, drawn);
            }
            assert_eq!(
                values(&resumed.latents),
                values(&whole.latents),
                "{}",
                case.name()
            );
        }
    }
}

#[test]
fn flow_euler_is_what_it_was_to_the_bit() {
    let config = r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}"#;
    let plain = FlowMatchEuler::new(&serde_json::from_str(config).unwrap(), 28, 1024);
    let config = SchedulerConfig::parse(config).unwrap();
    let sampler = Sampler::new(
        &config,
        SamplerKind::FlowEuler,
        ScheduleKind::Automatic,
        28,
        0,
        1024,
    )
    .unwrap();
    assert_eq!(sampler.timesteps(), plain.timesteps());
    let mut state = begin(&sampler);
    let mut latents = state.latents.clone();
    for evaluation in 0..sampler.evaluations() {
        latents = plain
            .step(evaluation, &latents, &prediction(evaluation, &latents))
            .unwrap();
        advance(&sampler, evaluation, &mut state, 0);
        assert_eq!(values(&state.latents), values(&latents));
    }
}

#[test]
fn exact_predictions_give_the_original_sample() {
    let (original, added) = (
        tensor(|place| 0.6 * (1.3 * place).cos()),
        tensor(|place| (3.1 * place + 0.7).sin()),
    );
    for kind in SamplerKind::ALL {
        let class = kind.diffusers_class();
        let config =
            SchedulerConfig::parse(&format!(r#"{{"_class_name": "{class}", "clip_sample": false}}"#))
                .unwrap();
        let sampler = Sampler::new(&config, kind, ScheduleKind::Automatic, 9, 2, 256).unwrap();
        let state = SamplerState::new(sampler.add_noise(&original, &added).unwrap());
        // The output of a perfect network.
        let prediction = if kind.is_flow() {
            (&added - &original).unwrap()
        } else if kind.is_edm() {
            // The output of the preconditioned network; the training data has a standard deviation of 0.5.
            let noise = ((&state.latents - &original).unwrap() / &added).unwrap();
            let sigma = f64::from(values(&noise)[0]);
            let variance = sigma * sigma + 0.25;
            let known = (&state.latents * (0.25 / variance)).unwrap();
            ((&original - known).unwrap() * (variance.sqrt() / (0.5 * sigma))).unwrap()
        } else {
            added.clone()
        };
        let found = sampler.predicted_original_sample(0, &prediction, &state).unwrap();
        let off = difference(&values(&found), &values(&original));
        assert!(off < 1e-3, "{kind}: {off}");
    }
}

#[test]
fn steps_are_counted_as_the_user_counts_them() {
    for kind in SamplerKind::ALL {
        let config = SchedulerConfig {
            class_name: Some(kind.diffusers_class().to_owned()),
            ..Default::default()
        };
        for (steps, skipped) in [(1, 0), (2, 0), (4, 0), (10, 0), (10, 1), (10, 9)] {
            if kind == SamplerKind::PndmRungeKutta && steps < 4 {
                continue;
            }
            let sampler = Sampler::new(&config, kind, ScheduleKind::Automatic, steps, skipped, 256).unwrap();
            let done: Vec<usize> = (0..=sampler.evaluations())
                .map(|count| sampler.steps_done(count))
                .collect();
            assert_eq!(sampler.steps(), steps - skipped);
            assert_eq!((done[0], done[done.len() - 1]), (0, steps - skipped), "{kind}");
            assert!(
                done.windows(2).all(|pair| pair[1] - pair[0] <= 1),
                "{kind} {done:?}"
            );
        }
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let made = |config: &str, kind, schedule, steps, skipped| {
        let config = SchedulerConfig::parse(config).unwrap();
        Sampler::new(&config, kind, schedule, steps, skipped, 256).map(|sampler| sampler.kind())
    };
    let flow = r#"{"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}"#;
    let plain = |kind, schedule| made("{}", kind, schedule, 20, 0);
    let set = |config: &str, kind| made(config, kind, ScheduleKind::Automatic, 20, 0);
    let (automatic, karras) = (ScheduleKind::Automatic, ScheduleKind::Karras);

    assert_eq!(set(flow, SamplerKind::Euler), Ok(SamplerKind::FlowEuler));
    assert_eq!(set(flow, SamplerKind::Heun), Ok(SamplerKind::FlowHeun));
    assert!(matches!(
        set(flow, SamplerKind::Ddim),
        Err(Refusal::OtherModels { .. })
    ));
    assert!(matches!(
        plain(SamplerKind::FlowEuler, automatic),
        Err(Refusal::OtherModels { .. })
    ));
    assert!(matches!(
        plain(SamplerKind::Ddim, karras),
        Err(Refusal::Schedule { .. })
    ));
    assert!(plain(SamplerKind::EulerAncestral, karras).is_ok());
    // A schedule that only the file sets is ignored, as in diffusers.
    assert!(set(r#"{"use_karras_sigmas": true}"#, SamplerKind::Ddim).is_ok());

    for (config, kind, name) in [
        (
            r#"{"prediction_type": "flowers"}"#,
            SamplerKind::Euler,
            "prediction_type",
        ),
        (
            r#"{"timestep_spacing": "even"}"#,
            SamplerKind::Ddim,
            "timestep_spacing",
        ),
        (r#"{"thresholding": true}"#, SamplerKind::Ddpm, "thresholding"),
        (
            r#"{"variance_type": "learned"}"#,
            SamplerKind::Ddpm,
            "variance_type",
        ),
        (r#"{"solver_order": 4}"#, SamplerKind::UniPc, "solver_order"),
        (
            r#"{"solver_type": "magic"}"#,
            SamplerKind::DpmPlusPlus2M,
            "solver_type",
        ),
        (r#"{"predict_x0": false}"#, SamplerKind::UniPc, "predict_x0"),
        (
            r#"{"lower_order_final": false}"#,
            SamplerKind::UniPc,
            "lower_order_final",
        ),
        (
            r#"{"final_sigmas_type": "one"}"#,
            SamplerKind::Euler,
            "final_sigmas_type",
        ),
        (
            r#"{"original_inference_steps": 0}"#,
            SamplerKind::Lcm,
            "original_inference_steps",
        ),
        (
            r#"{"algorithm_type": "sde-dpmsolver", "solver_order": 3}"#,
            SamplerKind::Dpm2MSde,
            "solver_order",
        ),
        (
            r#"{"final_sigmas_type": "zero"}"#,
            SamplerKind::Dpm2S,
            "final_sigmas_type",
        ),
        (
            r#"{"final_sigmas_type": "sigma_min"}"#,
            SamplerKind::DpmPlusPlus3MSde,
            "final_sigmas_type",
        ),
        (
            r#"{"_class_name": "DEISMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}"#,
            SamplerKind::Deis,
            "algorithm_type",
        ),
        (
            r#"{"prediction_type": "flow_prediction"}"#,
            SamplerKind::DpmPlusPlus2M,
            "prediction_type",
        ),
        (
            r#"{"_class_name": "EDMEulerScheduler", "sigma_schedule": "cosine"}"#,
            SamplerKind::Euler,
            "sigma_schedule",
        ),
        (
            r#"{"_class_name": "EDMEulerScheduler", "sigma_data": 0}"#,
            SamplerKind::Euler,
            "sigma_data",
        ),
        (
            r#"{"_class_name": "EDMDPMSolverMultistepScheduler", "solver_order": 3}"#,
            SamplerKind::DpmPlusPlus2MSde,
            "solver_order",
        ),
        (
            r#"{"sharpness": 3, "steps_offset": 1}"#,
            SamplerKind::Euler,
            "`sharpness` to 3",
        ),
        (
            r#"{"_class_name": "UniPCMultistepScheduler", "solver_p": {"a": 1}}"#,
            SamplerKind::UniPc,
            "solver_p",
        ),
        (r#"{"thresholding": true}"#, SamplerKind::Deis, "thresholding"),
        (
            r#"{"lambda_min_clipped": 99}"#,
            SamplerKind::DpmPlusPlus2M,
            "lambda_min_clipped",
        ),
        (
            r#"{"sigma_min": -1, "use_karras_sigmas": true}"#,
            SamplerKind::Heun,
            "sigma_min",
        ),
        (
            r#"{"timestep_type": "sometimes"}"#,
            SamplerKind::Euler,
            "timestep_type",
        ),
        // DDIM has only discrete timesteps, but the network was trained with continuous ones.
        (
            r#"{"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous", "prediction_type": "v_prediction"}"#,
            SamplerKind::Ddim,
            "timestep_type",
        ),
    ] {
        let refusal = set(config, kind).unwrap_err().to_string();
        assert!(refusal.contains(name), "{config}: {refusal}");
    }
    // No offset overflows.
    for kind in SamplerKind::ALL {
        let config = format!(
            r#"{{"_class_name": "{}", "steps_offset": 18446744073709551615, "timestep_spacing": "leading"}}"#,
            kind.diffusers_class()
        );
        assert!(set(&config, kind).is_ok(), "{kind}");
    }
    let sample = r#"{"prediction_type": "sample"}"#;
    assert!(matches!(
        set(sample, SamplerKind::Pndm),
        Err(Refusal::Prediction { .. })
    ));
    let zero = r#"{"rescale_betas_zero_snr": true, "timestep_spacing": "trailing"}"#;
    assert!(matches!(
        set(zero, SamplerKind::Ddim),
        Err(Refusal::Prediction { .. })
    ));
    assert!(matches!(
        set(
            r#"{"shift": 0, "_class_name": "FlowMatch"}"#,
            SamplerKind::FlowEuler
        ),
        Err(Refusal::Flow(_))
    ));

    for kind in SamplerKind::ALL {
        let config = format!(r#"{{"_class_name": "{}"}}"#, kind.diffusers_class());
        assert!(
            matches!(made(&config, kind, automatic, 0, 0), Err(Refusal::Steps { .. })),
            "{kind}"
        );
        assert!(
            matches!(
                made(&config, kind, automatic, 1001, 0),
                Err(Refusal::Steps { .. })
            ),
            "{kind}"
        );
        assert!(
            matches!(
                made(&config, kind, automatic, 8, 8),
                Err(Refusal::NothingLeft { .. })
            ),
            "{kind}"
        );
        assert!(
            matches!(
                made(&config, kind, automatic, 8, usize::MAX),
                Err(Refusal::NothingLeft { .. })
            ),
            "{kind}"
        );
    }
}

#[test]
fn an_incomplete_state_is_refused_and_left_unchanged() {
    let mut refused = 0;
    for kind in SamplerKind::ALL {
        let config = SchedulerConfig {
            class_name: Some(kind.diffusers_class().to_owned()),
            ..Default::default()
        };
        let sampler = Sampler::new(&config, kind, ScheduleKind::Automatic, 9, 0, 256).unwrap();
        for evaluation in [1, 3] {
            let mut state = begin(&sampler);
            let before = values(&state.latents);
            let output = prediction(evaluation, &state.latents);
            let result = sampler.step(evaluation, &output, &mut state, &mut |_| Ok(noise(1)));
            if let Err(error) = result {
                assert!(matches!(error, StepError::State { .. }), "{kind}: {error}");
                assert_eq!(values(&state.latents), before);
                refused += 1;
            }
        }
    }
    // All others need earlier outputs: multistep solvers, and solvers with several evaluations per step.
    let stateless = [
        SamplerKind::Euler,
        SamplerKind::EulerAncestral,
        SamplerKind::Ddim,
        SamplerKind::Ddpm,
        SamplerKind::Lcm,
        SamplerKind::Tcd,
        SamplerKind::FlowEuler,
        SamplerKind::FlowLcm,
        SamplerKind::EdmEuler,
    ];
    assert_eq!(refused, 2 * (SamplerKind::ALL.len() - stateless.len()));
}

#[test]
fn ancestral_steps_may_begin_thousands_of_times_above_their_end() {
    let config = SchedulerConfig::parse(r#"{"beta_schedule": "squaredcos_cap_v2"}"#).unwrap();
    for kind in [SamplerKind::Dpm2Ancestral, SamplerKind::DpmPlusPlus2SAncestral] {
        let sampler = Sampler::new(&config, kind, ScheduleKind::SgmUniform, 5, 0, 256).unwrap();
        let mut state = begin(&sampler);
        let mut drawn = 0;
        for evaluation in 0..sampler.evaluations() {
            drawn = advance(&sampler, evaluation, &mut state, drawn);
        }
        assert!(
            values(&state.latents).iter().all(|value| value.is_finite()),
            "{kind}"
        );
    }
}
