//! A page that shows a run's memory: what `--profile` writes.
//!
//! A [`Profile`] is the data, [`Profile::page`] the page: one HTML file that loads nothing, with its charts drawn here.
//! [`profiled`] has a run watched and writes the page in the end.

mod charts;
mod file;
mod markup;
mod page;
mod readings;
mod recorder;
mod scale;
mod stages;
mod thumbnail;
mod tiles;
mod units;

use sd_memory::{Bytes, Timeline};

use crate::recipe::Recipe;
pub use recorder::profiled;
pub use thumbnail::Thumbnail;

/// Everything that the page shows of a run.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// The settings, where the run came so far.
    pub recipe: Option<Recipe>,
    /// What the run was allowed.
    pub budget: Option<Bytes>,
    /// What it was predicted to need.
    pub predicted_peak: Option<Bytes>,
    /// What stages of [`Profile::timeline`] were predicted to need, by their names.
    pub predicted_stages: Vec<(String, Bytes)>,
    /// Its memory.
    pub timeline: Timeline,
    /// The steps, in the order in which they were done.
    pub steps: Vec<Step>,
    /// What the user was told to know.
    pub warnings: Vec<String>,
    /// The names of the images' files.
    pub images: Vec<String>,
    /// Some of the images.
    pub thumbnails: Vec<Thumbnail>,
    /// Why the run ended early, if it did.
    pub failure: Option<String>,
}

/// A denoising step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Which image, from 0.
    pub image: usize,
    /// Which step of this image, from 1.
    pub step: usize,
    /// How long it took.
    pub seconds: f64,
}

impl Profile {
    /// The page, a whole HTML document.
    pub fn page(&self) -> String {
        page::page(self)
    }
}
