//! Images of tiny random models with guidance rescale, and with LoRAs that have separate scales for text
//! encoder and network, against diffusers in f32. `tools/reference/make_settings.py` writes the data.

use std::fs;
use std::path::Path;

use crate::reference;
use reference::{Pixels, fixtures};
use sd_pipeline::{
    DeviceChoice, Event, GuidanceScale, ImageSize, Interrupt, LoraChoice, ModelChoice, ModelFolder,
    Recommended, Request, TypeChoice,
};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Case {
    name: String,
    model: String,
    prompt: String,
    negative_prompt: String,
    seed: u64,
    steps: usize,
    guidance_scale: f64,
    guidance_rescale: f64,
    zero_snr: bool,
    loras: Vec<(String, f64, f64)>,
}

/// The model at `path` with changed scheduler settings, in `folder`.
fn with_scheduler(path: &str, changes: Map<String, Value>, folder: &Path) -> ModelChoice {
    fn copy(source: &Path, target: &Path) {
        fs::create_dir_all(target).unwrap();
        for entry in fs::read_dir(source).unwrap() {
            let entry = entry.unwrap();
            let place = target.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &place);
            } else {
                fs::copy(entry.path(), place).unwrap();
            }
        }
    }
    copy(&fixtures().join(path), folder);
    let file = folder.join("scheduler/scheduler_config.json");
    let mut settings: Map<String, Value> = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    settings.extend(changes);
    fs::write(file, Value::from(settings).to_string()).unwrap();
    ModelChoice {
        name: path.to_owned(),
        folder: ModelFolder::on_disk(folder),
        recommended: Recommended::default(),
    }
}

#[test]
fn every_image_is_the_reference_s() {
    let cases: Vec<Case> = reference::cases("settings/cases.json", 6);
    let zero_snr = fs::read(fixtures().join("settings/zero_snr.json")).unwrap();
    let zero_snr: Map<String, Value> = serde_json::from_slice(&zero_snr).unwrap();
    for case in cases {
        let folder = tempfile::tempdir().unwrap();
        let lora = |(name, text_scale, scale): &(String, f64, f64)| LoraChoice {
            name: name.clone(),
            file: fixtures().join(format!("conditioned/loras/{name}.safetensors")),
            scale: *scale,
            text_scale: *text_scale,
        };
        let model = match case.zero_snr {
            true => with_scheduler(&case.model, zero_snr.clone(), &folder.path().join("model")),
            false => reference::model(&case.model),
        };
        let request = Request {
            negative_prompt: Some(case.negative_prompt.clone()),
            steps: Some(case.steps),
            seed: case.seed,
            size: Some(ImageSize::new(64, 64).unwrap()),
            guidance_scale: Some(GuidanceScale(case.guidance_scale)),
            guidance_rescale: case.guidance_rescale,
            loras: case.loras.iter().map(lora).collect(),
            output: folder.path().join("out"),
            device: DeviceChoice::Cpu,
            weight_type: TypeChoice::F32,
            strict: true,
            ..Request::new(&case.prompt, model)
        };
        let mut observer = |_: &Event<'_>| {};
        let saved = sd_pipeline::generate(&request, &mut observer, &Interrupt::default())
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let expected = Pixels::read(&fixtures().join(format!("settings/cases/{}.png", case.name)));
        Pixels::read(&saved[0].image).must_be_near(&expected, &case.name);
    }
}
