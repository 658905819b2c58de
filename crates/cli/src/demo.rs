//! The built-in model, which draws at once and without a download.

use sd_pipeline::{EmbeddedFile, GuidanceScale, ModelChoice, ModelFolder, Recommended};

/// What the command line calls it.
pub(crate) const NAME: &str = "demo";

/// Every file of `models/demo` that the model is made of.
const FILES: &[EmbeddedFile] = include!(concat!(env!("OUT_DIR"), "/demo_files.rs"));

/// The settings that the model's card measures it with.
const RECOMMENDED: Recommended = Recommended {
    steps: Some(20),
    guidance_scale: Some(GuidanceScale(2.0)),
    sampler: None,
};

/// The model.
pub(crate) fn model() -> ModelChoice {
    ModelChoice {
        name: NAME.to_owned(),
        folder: ModelFolder::embedded("the built-in model", FILES),
        recommended: RECOMMENDED,
    }
}
