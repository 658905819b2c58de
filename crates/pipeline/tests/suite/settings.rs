//! Images of tiny random models with guidance rescale, and with LoRAs that have separate scales for text
//! encoder and network, against diffusers in f32. `tools/reference/make_settings.py` writes the data.

use std::fs;
use std::path::Path;

use crate::reference;
use reference::{CaseSettings, Pixels, copy_folder, fixtures};
use sd_pipeline::{LoraChoice, ModelChoice, Request};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
struct Case {
    #[serde(flatten)]
    settings: CaseSettings,
    guidance_rescale: f64,
    zero_snr: bool,
    loras: Vec<(String, f64, f64)>,
}

/// The model at `path` with changed scheduler settings, in `folder`.
fn with_scheduler(path: &str, changes: Map<String, Value>, folder: &Path) -> ModelChoice {
    copy_folder(&fixtures().join(path), folder);
    let file = folder.join("scheduler/scheduler_config.json");
    let mut settings: Map<String, Value> = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    settings.extend(changes);
    fs::write(file, Value::from(settings).to_string()).unwrap();
    reference::model_in(folder, path)
}

#[test]
fn every_image_is_the_reference_s() {
    let cases: Vec<Case> = reference::cases("settings/cases.json", 6);
    let zero_snr = fs::read(fixtures().join("settings/zero_snr.json")).unwrap();
    let zero_snr: Map<String, Value> = serde_json::from_slice(&zero_snr).unwrap();
    for case in cases {
        let settings = &case.settings;
        let folder = tempfile::tempdir().unwrap();
        let lora = |(name, text_scale, scale): &(String, f64, f64)| LoraChoice {
            name: name.clone(),
            file: fixtures().join(format!("conditioned/loras/{name}.safetensors")),
            scale: *scale,
            text_scale: *text_scale,
        };
        let model = match case.zero_snr {
            true => with_scheduler(&settings.model, zero_snr.clone(), &folder.path().join("model")),
            false => reference::model(&settings.model),
        };
        let request = Request {
            guidance_rescale: case.guidance_rescale,
            loras: case.loras.iter().map(lora).collect(),
            ..settings.request(model, &folder.path().join("out"))
        };
        let expected = Pixels::read(&fixtures().join(format!("settings/cases/{}.png", settings.name)));
        settings.generate(&request)[0].must_be_near(&expected, &settings.name);
    }
}
