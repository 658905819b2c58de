//! Images of tiny random models with the schedulers of published models, against diffusers in f32.
//! `tools/reference/make_scheduler_images.py` writes the data.

use std::fs;
use std::path::Path;

use crate::reference;
use reference::{CaseSettings, Pixels, copy_folder, fixtures};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    #[serde(flatten)]
    settings: CaseSettings,
    /// The model's `scheduler_config.json`.
    config: serde_json::Value,
}

impl Case {
    /// Generates with the model in `folder`, with the scheduler of the case.
    fn generate(&self, folder: &Path) -> Pixels {
        let model = folder.join("model");
        copy_folder(&fixtures().join(&self.settings.model), &model);
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
        let model = reference::model_in(&model, &self.settings.name);
        let request = self.settings.request(model, &folder.join("images"));
        self.settings.generate(&request).remove(0)
    }
}

#[test]
fn every_scheduler_s_image_is_the_reference_s() {
    let cases: Vec<Case> = reference::cases("schedulers/cases.json", 15);
    for case in cases {
        let folder = tempfile::tempdir().unwrap();
        let expected = Pixels::read(&fixtures().join(format!("schedulers/{}.png", case.settings.name)));
        case.generate(folder.path())
            .must_be_near(&expected, &case.settings.name);
    }
}
