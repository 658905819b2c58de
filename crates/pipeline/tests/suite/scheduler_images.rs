//! Images of tiny random models with the schedulers of published models, against diffusers in f32.
//! `tools/reference/make_scheduler_images.py` writes the data.

use std::fs;
use std::path::Path;

use crate::reference;
use reference::{Pixels, fixtures};
use sd_pipeline::{
    DeviceChoice, Event, GuidanceScale, ImageSize, Interrupt, ModelChoice, ModelFolder, Recommended, Request,
    TypeChoice,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    model: String,
    prompt: String,
    negative_prompt: String,
    seed: u64,
    steps: usize,
    guidance_scale: f64,
    /// The model's `scheduler_config.json`.
    config: serde_json::Value,
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Case {
    /// Generates with the model in `folder`, with the scheduler of the case.
    fn generate(&self, folder: &Path) -> Pixels {
        let model = folder.join("model");
        copy(&fixtures().join(&self.model), &model);
        fs::write(
            model.join("scheduler/scheduler_config.json"),
            self.config.to_string(),
        )
        .unwrap();
        // The index declares the class of the scheduler.
        let index = model.join("model_index.json");
        let mut entries: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
        entries["scheduler"][1] = self.config["_class_name"].clone();
        fs::write(&index, entries.to_string()).unwrap();
        let request = Request {
            negative_prompt: Some(self.negative_prompt.clone()),
            steps: Some(self.steps),
            seed: self.seed,
            size: Some(ImageSize::new(64, 64).unwrap()),
            guidance_scale: Some(GuidanceScale(self.guidance_scale)),
            output: folder.join("images"),
            device: DeviceChoice::Cpu,
            weight_type: TypeChoice::F32,
            ..Request::new(
                &self.prompt,
                ModelChoice {
                    name: self.name.clone(),
                    folder: ModelFolder::on_disk(model),
                    recommended: Recommended::default(),
                },
            )
        };
        let mut observer = |_: &Event<'_>| {};
        let saved = sd_pipeline::generate(&request, &mut observer, &Interrupt::default())
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
        Pixels::read(&saved[0].image)
    }
}

#[test]
fn every_scheduler_s_image_is_the_reference_s() {
    let cases: Vec<Case> = reference::cases("schedulers/cases.json", 15);
    for case in cases {
        let folder = tempfile::tempdir().unwrap();
        let expected = Pixels::read(&fixtures().join(format!("schedulers/{}.png", case.name)));
        case.generate(folder.path()).must_be_near(&expected, &case.name);
    }
}
