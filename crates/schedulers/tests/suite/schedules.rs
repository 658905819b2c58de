//! Noise levels and steps against diffusers' `FlowMatchEulerDiscreteScheduler`.
//! `tools/reference/make_schedules.py` writes the data.

use candle_core::{Device, Tensor};
use sd_schedulers::{FlowMatchEuler, FlowMatchEulerConfig};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    schedules: Vec<Schedule>,
    trace: Trace,
}

#[derive(Deserialize)]
struct Schedule {
    config: FlowMatchEulerConfig,
    patches: Option<usize>,
    steps: usize,
    sigmas: Vec<f32>,
    timesteps: Vec<f32>,
}

#[derive(Deserialize)]
struct Trace {
    shift: f64,
    steps: usize,
    sample: Vec<f32>,
    model_outputs: Vec<Vec<f32>>,
    #[serde(alias = "next_samples", alias = "prev_samples")]
    samples: Vec<Vec<f32>>,
}

fn reference() -> Reference {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/schedules.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[track_caller]
fn close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= 2e-6 * expected.abs().max(1e-3),
            "{what} {index}: {found} {expected}"
        );
    }
}

#[test]
fn noise_levels_are_those_of_the_reference() {
    let schedules = reference().schedules;
    assert!(schedules.len() >= 10);
    for Schedule {
        config,
        patches,
        steps,
        sigmas,
        timesteps,
    } in schedules
    {
        assert_eq!(config.unsupported(), None);
        let scheduler = FlowMatchEuler::new(&config, steps, patches.unwrap_or(256));
        let what = format!("shift {}, {steps} steps, patches {patches:?}", config.shift);
        close(scheduler.sigmas(), &sigmas, &what);
        close(scheduler.timesteps(), &timesteps, &what);
    }
}

#[test]
fn steps_are_those_of_the_reference() {
    let Trace {
        shift,
        steps,
        sample,
        model_outputs,
        samples,
    } = reference().trace;
    let config = FlowMatchEulerConfig {
        shift,
        ..Default::default()
    };
    let scheduler = FlowMatchEuler::new(&config, steps, 256);
    let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
    let mut latents = tensor(&sample);
    for (step, (output, expected)) in model_outputs.iter().zip(&samples).enumerate() {
        latents = scheduler.step(step, &latents, &tensor(output)).unwrap();
        let found = latents.to_vec1::<f32>().unwrap();
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "step {step}: {found} {expected}");
        }
    }
    assert_eq!(samples.len(), steps);
}

#[test]
fn unsupported_settings_are_named() {
    let refused = |json: &str| {
        serde_json::from_str::<FlowMatchEulerConfig>(json)
            .unwrap()
            .unsupported()
            .unwrap()
    };
    assert!(refused(r#"{"_class_name": "EulerDiscreteScheduler"}"#).contains("EulerDiscreteScheduler"));
    assert!(refused(r#"{"use_karras_sigmas": true}"#).contains("use_karras_sigmas"));
    assert!(refused(r#"{"num_train_timesteps": 0}"#).contains('0'));
    assert!(refused(r#"{"time_shift_type": "square"}"#).contains("square"));
}
