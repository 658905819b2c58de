//! Images of tiny random models of every family against diffusers in f32: text-to-image, image-to-image and
//! inpainting. `tools/reference/make_families.py` writes the data.

use std::path::Path;

use crate::reference;
use reference::{CaseSettings, Pixels, fixtures};
use sd_pipeline::{Bytes, ControlChoice, ControlKind, ImageSize, InitImage, Request, Strength};
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    #[serde(flatten)]
    settings: CaseSettings,
    width: usize,
    height: usize,
    strength: Option<f64>,
    masked: bool,
    controls: Vec<(String, f64)>,
}

fn cases() -> Vec<Case> {
    reference::cases("families/cases.json", 30)
}

impl Case {
    fn request(&self, output: &Path) -> Request {
        let families = fixtures().join("families");
        let model = reference::model(&format!("families/{}", self.settings.model));
        Request {
            size: Some(ImageSize::new(self.width, self.height).unwrap().into()),
            init: self.strength.map(|strength| InitImage {
                image: families.join("init.png"),
                strength: Some(Strength(strength)),
                mask: self.masked.then(|| families.join("mask.png")),
            }),
            controls: self
                .controls
                .iter()
                .map(|(name, scale)| ControlChoice {
                    name: name.clone(),
                    folder: families.join(name),
                    kind: ControlKind::Pose,
                    image: families.join("init.png"),
                    scale: *scale,
                })
                .collect(),
            ..self.settings.request(model, output)
        }
    }

    fn generate(&self, memory: Option<Bytes>) -> Pixels {
        let folder = tempfile::tempdir().unwrap();
        let request = Request {
            memory,
            ..self.request(folder.path())
        };
        self.settings.generate(&request).remove(0)
    }
}

#[test]
fn every_image_is_the_reference_s() {
    for case in cases() {
        let expected = fixtures().join(format!("families/cases/{}.png", case.settings.name));
        case.generate(None)
            .must_be_near(&Pixels::read(&expected), &case.settings.name);
    }
}

#[test]
fn the_smallest_budget_changes_no_pixel() {
    let wanted = [
        "sd15",
        "sd21",
        "sdxl",
        "refiner-img2img-0.6",
        "inpainting-masked-0.7",
        "sd15-controlled-twice",
    ];
    for case in cases()
        .iter()
        .filter(|case| wanted.contains(&case.settings.name.as_str()))
    {
        let plan = sd_pipeline::plan(&case.request(Path::new("unused"))).unwrap();
        assert!(plan.blocks > 4, "{}: {plan}", case.settings.name);
        assert!(
            case.generate(None) == case.generate(Some(plan.smallest_budget)),
            "{}",
            case.settings.name
        );
    }
}
