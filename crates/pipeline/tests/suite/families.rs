//! Images of tiny random models of every family against diffusers in f32: text-to-image, image-to-image and
//! inpainting. `tools/reference/make_families.py` writes the data.

use std::path::Path;

use crate::reference;
use reference::{Pixels, fixtures};
use sd_pipeline::scheduler::SamplerChoice;
use sd_pipeline::{
    Bytes, ControlChoice, ControlKind, DeviceChoice, Event, GuidanceScale, ImageSize, InitImage, Interrupt,
    Request, Strength, TypeChoice,
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
    width: usize,
    height: usize,
    sampler: Option<String>,
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
        let choice: Option<SamplerChoice> = self.sampler.as_ref().map(|name| name.parse().unwrap());
        Request {
            negative_prompt: Some(self.negative_prompt.clone()),
            steps: Some(self.steps),
            seed: self.seed,
            size: Some(ImageSize::new(self.width, self.height).unwrap()),
            guidance_scale: Some(GuidanceScale(self.guidance_scale)),
            sampler: choice.map(|choice| choice.sampler),
            schedule: choice.map(|choice| choice.schedule).unwrap_or_default(),
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
            output: output.to_owned(),
            device: DeviceChoice::Cpu,
            weight_type: TypeChoice::F32,
            ..Request::new(
                &self.prompt,
                reference::model(&format!("families/{}", self.model)),
            )
        }
    }

    fn generate(&self, memory: Option<Bytes>) -> Pixels {
        let folder = tempfile::tempdir().unwrap();
        let request = Request {
            memory,
            ..self.request(folder.path())
        };
        let mut observer = |_: &Event<'_>| {};
        let saved = sd_pipeline::generate(&request, &mut observer, &Interrupt::default())
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
        Pixels::read(&saved[0].image)
    }
}

#[test]
fn every_image_is_the_reference_s() {
    for case in cases() {
        let expected = fixtures().join(format!("families/cases/{}.png", case.name));
        case.generate(None)
            .must_be_near(&Pixels::read(&expected), &case.name);
    }
}

#[test]
fn the_smallest_budget_changes_no_pixel() {
    let wanted = [
        "sd15",
        "sd21",
        "sdxl",
        "refiner-over-0.6",
        "inpainting-masked-0.7",
        "sd15-controlled-twice",
    ];
    for case in cases().iter().filter(|case| wanted.contains(&case.name.as_str())) {
        let plan = sd_pipeline::plan(&case.request(Path::new("unused"))).unwrap();
        assert!(plan.blocks > 4, "{}: {plan}", case.name);
        assert!(
            case.generate(None) == case.generate(Some(plan.smallest_budget)),
            "{}",
            case.name
        );
    }
}
