//! ControlNets: the network and the scale of each control image.

use std::path::PathBuf;

use sd_pipeline::ControlKind;
use sd_pipeline::family::Description;

use crate::error::{Error, Result};
use crate::settings::Settings;

/// A control image of a ControlNet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlImage {
    /// What the image shows.
    pub kind: ControlKind,
    /// Its file.
    pub image: PathBuf,
}

/// A control image with its settings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ControlInput {
    /// The image.
    pub(crate) image: ControlImage,
    /// The name of its ControlNet; by default that of the model.
    pub(crate) network: Option<String>,
    /// The conditioning scale.
    pub(crate) scale: f64,
}

/// The `images` with their ControlNets and scales. A single value applies to all images; several values apply
/// to one image each.
///
/// # Errors
/// The number of ControlNets or scales differs from that of images, or an image without a default ControlNet
/// has none.
pub(crate) fn inputs(images: &[ControlImage], settings: &Settings) -> Result<Vec<ControlInput>> {
    let networks = paired("controlnet", &settings.controlnet, images.len())?;
    let scales = paired("control-scale", &settings.control_scale, images.len())?;
    let inputs = images.iter().zip(networks).zip(scales);
    inputs
        .map(|((image, network), scale)| match network {
            None if image.kind == ControlKind::Image => Err(Error::NoControlNet { image: image.kind }),
            network => Ok(ControlInput {
                image: image.clone(),
                network: network.cloned(),
                scale: scale.copied().unwrap_or(1.0),
            }),
        })
        .collect()
}

/// The value of `setting` for each of `images` images, if it has one.
fn paired<'a, T>(setting: &'static str, values: &'a [T], images: usize) -> Result<Vec<Option<&'a T>>> {
    match values {
        _ if images == 0 => Ok(Vec::new()),
        [] => Ok(vec![None; images]),
        [one] => Ok(vec![Some(one); images]),
        each if each.len() == images => Ok(each.iter().map(Some).collect()),
        several => Err(Error::Unpaired {
            setting,
            values: several.len(),
            images,
        }),
    }
}

/// The hub id of the default ControlNet for `image` with `model`. Only Stable Diffusion 1 has defaults: for
/// other families there are many ControlNets, each for one model.
///
/// # Errors
/// There is none.
pub(crate) fn default_controlnet(model: &Description, image: ControlKind) -> Result<&'static str> {
    let id = match image {
        ControlKind::Pose => "lllyasviel/control_v11p_sd15_openpose",
        ControlKind::Depth => "lllyasviel/control_v11f1p_sd15_depth",
        ControlKind::Canny => "lllyasviel/control_v11p_sd15_canny",
        ControlKind::Image => return Err(Error::NoControlNet { image }),
    };
    match model.has_default_controlnets {
        true => Ok(id),
        false => Err(Error::NoDefaultControlNet {
            image,
            family: model.title,
        }),
    }
}
