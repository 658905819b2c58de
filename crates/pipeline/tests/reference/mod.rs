//! Reference cases of diffusers: their settings, requests for their images, and comparisons with the results.

#![allow(dead_code, unreachable_pub)] // Each test binary uses a part.
#![allow(clippy::print_stderr)] // How near an image comes is worth knowing.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use sd_pipeline::scheduler::SamplerChoice;
use sd_pipeline::{
    DeviceChoice, Event, GuidanceScale, ImageSize, Interrupt, ModelChoice, ModelFiles, Recommended, Request,
    TypeChoice,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The largest difference of a byte.
const MOST_DIFFERENCE: u8 = 2;

/// The folder of the fixtures.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The cases in the file at `path`, at least `fewest`.
pub fn cases<C: DeserializeOwned>(path: &str, fewest: usize) -> Vec<C> {
    let cases: Vec<C> = serde_json::from_slice(&fs::read(fixtures().join(path)).unwrap()).unwrap();
    assert!(cases.len() >= fewest);
    cases
}

/// The model of the fixtures in the folder at `path`.
pub fn model(path: &str) -> ModelChoice {
    model_in(&fixtures().join(path), path)
}

/// The model in `folder`, called `name`.
pub fn model_in(folder: &Path, name: &str) -> ModelChoice {
    ModelChoice {
        name: name.to_owned(),
        files: ModelFiles::at(folder),
        recommended: Recommended::default(),
    }
}

/// Copies the contents of `source` into `target`, over files of the same names.
pub fn copy_folder(source: &Path, target: &Path) {
    fs::create_dir_all(target).unwrap();
    for entry in fs::read_dir(source).unwrap() {
        let entry = entry.unwrap();
        let copy = target.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &copy);
        } else {
            fs::copy(entry.path(), copy).unwrap();
        }
    }
}

/// The settings that every case has.
#[derive(Debug, Deserialize)]
pub struct CaseSettings {
    pub name: String,
    pub model: String,
    pub prompt: String,
    pub negative_prompt: String,
    pub seed: u64,
    pub steps: usize,
    pub guidance_scale: f64,
    /// The sampler with its schedule; by default that of the model.
    #[serde(default)]
    pub sampler: Option<String>,
}

impl CaseSettings {
    /// A request for an image of 64x64 pixels in `output`, on the CPU in f32. A part that is left out is an error.
    pub fn request(&self, model: ModelChoice, output: &Path) -> Request {
        let choice: Option<SamplerChoice> = self.sampler.as_ref().map(|name| name.parse().unwrap());
        Request {
            negative_prompt: Some(self.negative_prompt.clone()),
            steps: Some(self.steps),
            seeds: self.seed.into(),
            size: Some(ImageSize::new(64, 64).unwrap().into()),
            guidance_scale: Some(GuidanceScale(self.guidance_scale)),
            sampler: choice.map(|choice| choice.sampler),
            schedule: choice.map(|choice| choice.schedule).unwrap_or_default(),
            output: output.to_owned(),
            device: DeviceChoice::Cpu,
            weight_type: TypeChoice::F32,
            strict: true,
            ..Request::new(&self.prompt, model)
        }
    }

    /// Generates the images of `request`, which must succeed.
    pub fn generate(&self, request: &Request) -> Vec<Pixels> {
        let mut observer = |_: &Event<'_>| {};
        let saved = sd_pipeline::Engine::new()
            .run(request, &mut observer, &Interrupt::default())
            .unwrap_or_else(|error| panic!("{}: {error}", self.name));
        saved.iter().map(|image| Pixels::read(&image.image)).collect()
    }
}

/// An image's bytes, width and height.
#[derive(Debug, PartialEq, Eq)]
pub struct Pixels {
    pub bytes: Vec<u8>,
    pub width: usize,
    pub height: usize,
}

impl Pixels {
    pub fn read(path: &Path) -> Self {
        let mut reader = png::Decoder::new(BufReader::new(File::open(path).unwrap()))
            .read_info()
            .unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        assert_eq!(info.color_type, png::ColorType::Rgb);
        Self {
            bytes,
            width: info.width as usize,
            height: info.height as usize,
        }
    }

    /// Asserts that the image of the case `name` is close to the `expected` one.
    pub fn must_be_near(&self, expected: &Self, name: &str) {
        let sides = |pixels: &Self| (pixels.width, pixels.height);
        assert_eq!(sides(self), sides(expected), "{name}");
        let pairs = self.bytes.iter().zip(&expected.bytes);
        let worst = pairs.map(|(one, other)| one.abs_diff(*other)).max().unwrap();
        eprintln!("{name}: at most {worst} of 255 away");
        assert!(worst <= MOST_DIFFERENCE, "{name}: {worst}");
    }
}
