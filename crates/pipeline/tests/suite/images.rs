//! Images of tiny random models against diffusers' `StableDiffusion3Pipeline` in f32.
//! `tools/reference/make_models.py` and `make_cases.py` write the data.

use std::path::{Path, PathBuf};

use crate::reference;
use candle_core::{Device, Tensor};
use reference::{CaseSettings, Pixels, fixtures};
use sd_models::vae::Scaling;
use sd_pipeline::bundle::Bundle;
use sd_pipeline::save::RgbImage;
use sd_pipeline::stage::{self, CfgMode, Denoise};
use sd_pipeline::{DeviceChoice, Event, ImageSize, Interrupt, Recipe, Request};
use sd_weights::{Residency, WeightOptions, WeightType};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    #[serde(flatten)]
    settings: CaseSettings,
    width: usize,
    height: usize,
    expected: PathBuf,
    tensors: PathBuf,
}

/// The CPU, or with `SD_TEST_DEVICE=cuda` or `metal` a GPU.
fn device_choice() -> DeviceChoice {
    match std::env::var("SD_TEST_DEVICE").as_deref() {
        Ok("cuda") => DeviceChoice::Cuda(0),
        Ok("metal") => DeviceChoice::Metal,
        _ => DeviceChoice::Cpu,
    }
}

fn cases() -> Vec<Case> {
    reference::cases("cases.json", 10)
}

impl Case {
    fn request(&self, output: &Path) -> Request {
        Request {
            size: Some(ImageSize::new(self.width, self.height).unwrap().into()),
            device: device_choice(),
            ..self.settings.request(
                reference::model(&format!("models/{}", self.settings.model)),
                output,
            )
        }
    }

    fn tensor(&self, name: &str) -> Tensor {
        let tensors = candle_core::safetensors::load(fixtures().join(&self.tensors), &Device::Cpu).unwrap();
        tensors[name].clone()
    }
}

#[test]
fn every_image_is_the_reference_s() {
    for case in cases() {
        let folder = tempfile::tempdir().unwrap();
        let found = case.settings.generate(&case.request(folder.path())).remove(0);
        let expected = Pixels::read(&fixtures().join(&case.expected));
        assert_eq!(
            (found.width, found.height),
            (case.width, case.height),
            "{}",
            case.settings.name
        );
        found.must_be_near(&expected, &case.settings.name);
        let expected = expected.bytes;
        let mean =
            f64::from(expected.iter().map(|&byte| u32::from(byte)).sum::<u32>()) / expected.len() as f64;
        let variance = expected
            .iter()
            .map(|&byte| (f64::from(byte) - mean).powi(2))
            .sum::<f64>();
        assert!(
            (variance / expected.len() as f64).sqrt() > 20.0,
            "{}: the reference is flat",
            case.settings.name
        );
    }
}

/// Runs a case stage by stage, and returns its latents and its image.
fn by_hand(
    case: &Case,
    weight_type: WeightType,
    residency: Residency,
    passes: Option<CfgMode>,
) -> (Tensor, RgbImage) {
    let request = case.request(Path::new("unused"));
    let bundle = Bundle::open(&request.model.files).unwrap();
    let recipe = Recipe::new(&request, &bundle, None).unwrap();
    let interrupt = Interrupt::default();
    let weight_options = WeightOptions::new(
        sd_pipeline::device::open(device_choice()).unwrap().device,
        weight_type,
        residency,
    );
    let both = [
        case.settings.negative_prompt.as_str(),
        case.settings.prompt.as_str(),
    ];
    let prompts = if recipe.guidance_scale.guides() {
        &both[..]
    } else {
        &both[1..]
    };
    let encoded = stage::encode(&bundle, prompts, 0, &weight_options, &interrupt).unwrap();
    let denoise = Denoise::load(&bundle, &recipe, &encoded, &weight_options, true).unwrap();
    let denoise = match passes {
        Some(passes) => denoise.with_cfg_mode(passes),
        None => denoise,
    };
    let mut samples = [denoise.begin(case.settings.seed, None).unwrap()];
    for _ in 0..denoise.sampler().evaluations() {
        denoise.step(&mut samples).unwrap();
    }
    let [sample] = samples;
    let latents = sample.progress.sampler_state.latents;
    let mut decoded = None;
    stage::decode(
        &bundle,
        std::slice::from_ref(&latents),
        Scaling::Shifted,
        &weight_options,
        &interrupt,
        |_, image| {
            decoded = Some(image);
            Ok(())
        },
    )
    .unwrap();
    (latents, decoded.unwrap())
}

fn relative_error(found: &Tensor, expected: &Tensor) -> f32 {
    let size = |tensor: &Tensor| {
        tensor
            .sqr()
            .unwrap()
            .sum_all()
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
            .sqrt()
    };
    size(&(found - expected).unwrap()) / size(expected)
}

#[test]
fn residency_and_the_type_that_bits_are_stored_in_change_no_pixel() {
    for case in cases()
        .iter()
        .filter(|case| ["medium", "large", "medium35"].contains(&case.settings.name.as_str()))
    {
        let (latents, image) = by_hand(case, WeightType::F32, Residency::Resident, None);
        assert!(
            relative_error(&latents, &case.tensor("latents")) < 1e-4,
            "{}",
            case.settings.name
        );
        let (_, streamed) = by_hand(case, WeightType::F32, Residency::Streamed, None);
        assert!(
            streamed == image,
            "{}: streaming changed a pixel",
            case.settings.name
        );
        let (_, as_stored) = by_hand(case, WeightType::AsStored, Residency::Resident, None);
        assert!(
            as_stored == image,
            "{}: the stored type changed a pixel",
            case.settings.name
        );
    }
}

#[test]
fn guidance_in_one_pass_and_in_two_gives_one_image() {
    for case in cases().iter().filter(|case| case.settings.guidance_scale > 1.0) {
        let with = |passes| by_hand(case, WeightType::F32, Residency::Resident, Some(passes)).0;
        let error = relative_error(&with(CfgMode::Sequential), &with(CfgMode::Batched));
        assert!(error < 1e-5, "{}: {error}", case.settings.name);
    }
}

#[test]
fn weights_of_16_bits_generate_nearly_the_same() {
    for case in cases()
        .iter()
        .filter(|case| case.settings.steps <= 4 && case.settings.guidance_scale <= 1.0)
    {
        let (latents, _) = by_hand(case, WeightType::Bf16, Residency::Resident, None);
        let error = relative_error(&latents, &case.tensor("latents"));
        eprintln!("{}: latents in 16 bits {error:.2e} away", case.settings.name);
        assert!(error < 5e-2, "{}: {error}", case.settings.name);
    }
}

#[test]
fn an_interrupted_run_saves_nothing() {
    let case = &cases()[0];
    let folder = tempfile::tempdir().unwrap();
    let interrupt = Interrupt::default();
    let mut observer = |event: &Event<'_>| {
        if matches!(event, Event::Step { step: 2, .. }) {
            interrupt.raise();
        }
    };
    let error = sd_pipeline::Engine::new()
        .run(&case.request(folder.path()), &mut observer, &interrupt)
        .unwrap_err();
    assert!(matches!(error, sd_pipeline::Error::Interrupted), "{error:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
