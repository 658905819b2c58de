//! `--pose`, `--depth`, `--canny` and `--control`: from names to ControlNets and their pictures.

use std::path::{Path, PathBuf};

use sd_hub::Reference;
use sd_pipeline::bundle::{Bundle, Kind};
use sd_pipeline::family::{Description, described};
use sd_pipeline::{ControlChoice, ControlKind};

use crate::arguments::{Arguments, ControlImage};
use crate::fetching::read_if_online;
use crate::hint::Failure;
use crate::settings::Settings;
use crate::{local_models, model};

/// A picture that is to be followed.
pub(crate) struct ControlInput {
    kind: ControlKind,
    image: PathBuf,
    /// What its ControlNet is called, which need not be here.
    pub(crate) network: String,
    scale: f64,
}

/// What is to be followed, in the order of the command line, each with its ControlNet and its scale: the one that was named
/// for all or for it, else the usual one for the model, which must be here.
///
/// # Errors
/// There are not as many networks or scales as pictures, or none is usual for one of them.
pub(crate) fn inputs(arguments: &Arguments, settings: &Settings) -> Result<Vec<ControlInput>, Failure> {
    let pictures = &arguments.control_images;
    let networks = paired("--controlnet", &settings.controlnet, pictures.len())?;
    let scales = paired("--control-scale", &settings.control_scale, pictures.len())?;
    let mut description = None;
    let named = pictures.iter().zip(networks).zip(scales);
    named
        .map(|((picture, network), scale)| {
            Ok(ControlInput {
                kind: picture.kind,
                image: picture.image.clone(),
                network: match network {
                    Some(name) => name.clone(),
                    None => default_controlnet(picture, settings, &mut description)?,
                },
                scale: scale.copied().unwrap_or(1.0),
            })
        })
        .collect()
}

/// For each of so many `pictures` what `option` gives it: one value is for all of them, several are for one each.
fn paired<'a, T>(option: &str, values: &'a [T], pictures: usize) -> Result<Vec<Option<&'a T>>, Failure> {
    match values {
        _ if pictures == 0 => Ok(Vec::new()),
        [] => Ok(vec![None; pictures]),
        [one] => Ok(vec![Some(one); pictures]),
        each if each.len() == pictures => Ok(each.iter().map(Some).collect()),
        several => {
            let pictures = match pictures {
                1 => "there is 1 picture to follow".to_owned(),
                pictures => format!("there are {pictures} pictures to follow"),
            };
            Err(Failure::usage(format!(
                "{option} is given {} times, and {pictures}: give it once for all, or once for each in their order",
                several.len()
            )))
        }
    }
}

/// Refuses networks and scales that were typed where nothing is followed, or not as many of them as pictures.
pub(crate) fn check_options(arguments: &Arguments) -> Result<(), Failure> {
    let (typed, pictures) = (&arguments.settings, arguments.control_images.len());
    let option = match (typed.controlnet.is_empty(), typed.control_scale.is_empty()) {
        (false, _) => "--controlnet",
        (true, false) => "--control-scale",
        (true, true) => return Ok(()),
    };
    if pictures == 0 {
        return Err(Failure::usage(format!(
            "{option} goes together with --pose, --depth, --canny or --control"
        )));
    }
    paired("--controlnet", &typed.controlnet, pictures)?;
    paired("--control-scale", &typed.control_scale, pictures)?;
    Ok(())
}

/// What is named of `settings`, without a network where nothing is followed: a default may name one.
pub(crate) fn without_idle(arguments: &Arguments, settings: Settings) -> Settings {
    match arguments.control_images.is_empty() {
        true => Settings {
            controlnet: Vec::new(),
            ..settings
        },
        false => settings,
    }
}

/// Refuses what the model that is named on the hub could not follow, before it is fetched: one for whose family no ControlNet
/// is usual, where none is named.
///
/// # Errors
/// It is one, or the hub cannot be asked.
pub(crate) fn check_unfetched(arguments: &Arguments, settings: &Settings) -> Result<(), Failure> {
    if !settings.controlnet.is_empty() {
        return Ok(());
    }
    let generic = |picture: &&ControlImage| picture.kind == ControlKind::Image;
    if let Some(picture) = arguments.control_images.iter().find(generic) {
        return Err(Failure::no_controlnet(picture.option));
    }
    let (Some(picture), Some(name)) = (arguments.control_images.first(), &settings.model) else {
        return Ok(());
    };
    let is_here = |reference: &Reference| local_models::locate(reference).is_some();
    let missing = local_models::reference(name).filter(|reference| !is_here(reference));
    let Some(reference) = missing.filter(|_| !Path::new(name).exists()) else {
        return Ok(());
    };
    let described =
        read_if_online(&reference, &Description::PATHS)?.and_then(|(path, text)| described(path, &text));
    match described {
        Some(description) => default_controlnet_of(&description, picture).map(|_| ()),
        None => Ok(()),
    }
}

/// The ControlNet that usually follows such a `picture` beside the model, which `description` caches.
fn default_controlnet(
    picture: &ControlImage,
    settings: &Settings,
    description: &mut Option<Description>,
) -> Result<String, Failure> {
    if picture.kind == ControlKind::Image {
        return Err(Failure::no_controlnet(picture.option));
    }
    let description = match description {
        Some(description) => description,
        none => {
            let bundle = Bundle::open(&model::drawing(settings)?.folder)?;
            none.insert(Description::of(&*bundle.family))
        }
    };
    default_controlnet_of(description, picture)
}

fn default_controlnet_of(description: &Description, picture: &ControlImage) -> Result<String, Failure> {
    match description.default_controlnet(picture.kind) {
        Some(id) => Ok(id.to_owned()),
        None => Err(Failure::no_default_controlnet(picture.option, description.title)),
    }
}

impl ControlInput {
    /// With the ControlNet's folder.
    ///
    /// # Errors
    /// It is not on this machine.
    pub(crate) fn choice(&self) -> Result<ControlChoice, Failure> {
        Ok(ControlChoice {
            name: self.network.clone(),
            folder: folder(&self.network)?,
            kind: self.kind,
            image: self.image.clone(),
            scale: self.scale,
        })
    }
}

fn folder(name: &str) -> Result<PathBuf, Failure> {
    if Path::new(name).exists() {
        // Its last part is looked at: it must have one.
        return Ok(std::path::absolute(name).unwrap_or_else(|_| PathBuf::from(name)));
    }
    match local_models::reference(name) {
        Some(reference) => local_models::whole(Kind::ControlNet, &reference),
        None => Err(Failure::nothing_at(Kind::ControlNet, name)),
    }
}
