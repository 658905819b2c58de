//! Reference images of diffusers for the fixtures, and comparisons with them.

#![allow(dead_code, unreachable_pub)] // Each test binary uses a part.
#![allow(clippy::print_stderr)] // How near an image comes is worth knowing.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use sd_pipeline::{ModelChoice, ModelFolder, Recommended};
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

/// The model in the folder at `path`.
pub fn model(path: &str) -> ModelChoice {
    ModelChoice {
        name: path.to_owned(),
        folder: ModelFolder::on_disk(fixtures().join(path)),
        recommended: Recommended::default(),
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
