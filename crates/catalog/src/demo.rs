//! The built-in model `demo`, which needs no download.

use sd_pipeline::{EmbeddedFile, GuidanceScale, ModelChoice, ModelFiles, Recommended, TypeChoice};

use crate::presets::DEMO;

/// The files of `models/demo`.
const FILES: &[EmbeddedFile] = include!(concat!(env!("OUT_DIR"), "/demo_files.rs"));

/// The settings that the model card's figures were measured with.
const RECOMMENDED: Recommended = Recommended {
    steps: Some(20),
    guidance_scale: Some(GuidanceScale(2.0)),
    sampler: None,
};

/// The type that `--dtype auto` holds the built-in model's weights in. They are stored in `bf16`, whose products round
/// activations on devices with units for it: in 32 bits every device generates the same image, up to 1 of 255.
pub(crate) const WEIGHT_TYPE: TypeChoice = TypeChoice::F32;

/// The built-in model, whose files are embedded in the program.
pub fn model() -> ModelChoice {
    ModelChoice {
        name: DEMO.to_owned(),
        files: ModelFiles::embedded("the built-in model", FILES),
        recommended: RECOMMENDED,
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn files_are_known_by_their_bytes() {
        assert!(FILES.iter().any(|file| file.path == "model_index.json"));
        for file in FILES {
            let digest = Sha256::digest(file.bytes);
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(file.digest, digest, "{}", file.path);
        }
    }
}
