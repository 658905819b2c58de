//! `--pose`, `--depth` and `--canny`: from names to ControlNets and their pictures.

use std::path::{Path, PathBuf};

use sd_pipeline::{ControlChoice, ControlKind};

use crate::arguments::Arguments;
use crate::hint::Failure;
use crate::installed;
use crate::settings::Settings;

/// What is to be followed, each with its ControlNet.
pub(crate) fn chosen(arguments: &Arguments, settings: &Settings) -> Result<Vec<ControlChoice>, Failure> {
    let kinds = [
        (
            ControlKind::Pose,
            &arguments.pose,
            "lllyasviel/control_v11p_sd15_openpose",
        ),
        (
            ControlKind::Depth,
            &arguments.depth,
            "lllyasviel/control_v11f1p_sd15_depth",
        ),
        (
            ControlKind::Canny,
            &arguments.canny,
            "lllyasviel/control_v11p_sd15_canny",
        ),
    ];
    let asked = kinds
        .into_iter()
        .filter_map(|(kind, image, usual)| Some((kind, image.as_ref()?, usual)));
    asked
        .map(|(kind, image, usual)| {
            let name = settings.controlnet.as_deref().unwrap_or(usual);
            Ok(ControlChoice {
                name: name.to_owned(),
                folder: folder(name)?,
                kind,
                image: image.clone(),
                scale: settings.control_scale.unwrap_or(1.0),
            })
        })
        .collect()
}

fn folder(name: &str) -> Result<PathBuf, Failure> {
    if Path::new(name).exists() {
        // Its last part is looked at: it must have one.
        return Ok(std::path::absolute(name).unwrap_or_else(|_| PathBuf::from(name)));
    }
    match installed::reference(name) {
        Some(reference) => {
            installed::locate(&reference).ok_or_else(|| Failure::not_installed("ControlNet", &reference))
        }
        None => Err(Failure::no_model(name)),
    }
}
