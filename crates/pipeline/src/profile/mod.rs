//! The page that `--profile` writes: a run's memory over time.
//!
//! A [`Profile`] holds the data, and [`Profile::page`] renders it: one HTML file with its charts that loads
//! nothing. [`profiled`] observes a run and writes the page at its end.

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

/// The data of the page.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// The settings, if the run came that far.
    pub recipe: Option<Recipe>,
    /// The budget of the run.
    pub budget: Option<Bytes>,
    /// The predicted peak.
    pub predicted_peak: Option<Bytes>,
    /// The predicted peaks of stages of [`Profile::timeline`], by name.
    pub predicted_stages: Vec<(String, Bytes)>,
    /// The memory over time.
    pub timeline: Timeline,
    /// The denoising steps, in order.
    pub steps: Vec<Step>,
    /// The warnings of the run.
    pub warnings: Vec<String>,
    /// The file names of the images.
    pub images: Vec<String>,
    /// Thumbnails of some images.
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
    /// The duration.
    pub seconds: f64,
}

impl Profile {
    /// The page as an HTML document.
    pub fn page(&self) -> String {
        page::page(self)
    }
}
