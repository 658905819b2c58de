//! Whole pictures of tiny random models of every family against diffusers' pipelines in 32 bits: from noise, over another
//! picture, and where a mask says so. `tools/reference/make_families.py` makes the data.

#![allow(clippy::unwrap_used)] // Without its data a test has failed.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use sd_pipeline::scheduler::SamplerChoice;
use sd_pipeline::{
    Bytes, ControlChoice, ControlKind, DeviceChoice, Event, GuidanceScale, ImageSize, InitImage, Interrupt,
    ModelChoice, ModelFolder, Recommended, Request, Strength, TypeChoice,
};
use serde::Deserialize;

/// The most that a byte of a picture may be away.
const MOST_DIFFERENCE: u8 = 2;

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

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families")
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(fixtures().join("cases.json")).unwrap()).unwrap()
}

impl Case {
    fn request(&self, output: &Path) -> Request {
        let model = ModelChoice {
            name: self.model.clone(),
            folder: ModelFolder::on_disk(fixtures().join(&self.model)),
            recommended: Recommended::default(),
        };
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
                image: fixtures().join("init.png"),
                strength: Some(Strength(strength)),
                mask: self.masked.then(|| fixtures().join("mask.png")),
            }),
            controls: self
                .controls
                .iter()
                .map(|(name, scale)| ControlChoice {
                    name: name.clone(),
                    folder: fixtures().join(name),
                    kind: ControlKind::Pose,
                    image: fixtures().join("init.png"),
                    scale: *scale,
                })
                .collect(),
            output: output.to_owned(),
            device: DeviceChoice::Cpu,
            weight_type: TypeChoice::F32,
            ..Request::new(&self.prompt, model)
        }
    }

    fn draw(&self, memory: Option<Bytes>) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let request = Request {
            memory,
            ..self.request(folder.path())
        };
        let mut observer = |_: &Event<'_>| {};
        let saved = sd_pipeline::generate(&request, &mut observer, &Interrupt::default())
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
        read_png(&saved[0].image)
    }
}

fn read_png(path: &Path) -> Vec<u8> {
    let mut reader = png::Decoder::new(BufReader::new(File::open(path).unwrap()))
        .read_info()
        .unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(info.color_type, png::ColorType::Rgb);
    pixels
}

#[test]
fn every_picture_is_the_reference_s() {
    let cases = cases();
    assert!(cases.len() >= 30);
    for case in cases {
        let found = case.draw(None);
        let expected = read_png(&fixtures().join("cases").join(format!("{}.png", case.name)));
        assert_eq!(found.len(), expected.len(), "{}", case.name);
        let bytes = found.iter().zip(&expected);
        let worst = bytes.map(|(one, other)| one.abs_diff(*other)).max().unwrap();
        eprintln!("{}: at most {worst} of 255 away", case.name);
        assert!(worst <= MOST_DIFFERENCE, "{}: {worst}", case.name);
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
            case.draw(None) == case.draw(Some(plan.smallest_budget)),
            "{}",
            case.name
        );
    }
}
