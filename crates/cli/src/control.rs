//! `--pose`, `--depth` and `--canny`: from names to ControlNets and their pictures.

use std::path::{Path, PathBuf};

use sd_hub::Reference;
use sd_pipeline::bundle::{Bundle, Denoiser, Kind};
use sd_pipeline::{ControlChoice, ControlKind};

use crate::arguments::Arguments;
use crate::fetching::read_if_online;
use crate::hint::Failure;
use crate::settings::Settings;
use crate::{installed, request};

/// A picture that is to be followed.
pub(crate) struct Followed {
    kind: ControlKind,
    image: PathBuf,
    /// What its ControlNet is called, which need not be here.
    pub(crate) network: String,
    scale: f64,
}

/// What is to be followed, each with its ControlNet: the one that was named, else the usual one for the model, which must
/// be here.
pub(crate) fn followed(arguments: &Arguments, settings: &Settings) -> Result<Vec<Followed>, Failure> {
    let mut denoiser = None;
    asked(arguments)
        .map(|(option, kind, image)| {
            Ok(Followed {
                kind,
                image,
                network: match &settings.controlnet {
                    Some(name) => name.clone(),
                    None => usual(option, kind, settings, &mut denoiser)?,
                },
                scale: settings.control_scale.unwrap_or(1.0),
            })
        })
        .collect()
}

/// Refuses a network, and a scale, that were typed where nothing is followed.
pub(crate) fn check_options(arguments: &Arguments) -> Result<(), Failure> {
    let typed = &arguments.settings;
    let option = match (&typed.controlnet, typed.control_scale) {
        (Some(_), _) => "--controlnet",
        (None, Some(_)) => "--control-scale",
        (None, None) => return Ok(()),
    };
    match asked(arguments).next() {
        Some(_) => Ok(()),
        None => Err(Failure::usage(format!(
            "{option} goes together with --pose, --depth or --canny"
        ))),
    }
}

/// What is named of `settings`, without a network where nothing is followed: a default may name one.
pub(crate) fn without_idle(arguments: &Arguments, settings: Settings) -> Settings {
    let follows = asked(arguments).next().is_some();
    Settings {
        controlnet: settings.controlnet.filter(|_| follows),
        ..settings
    }
}

/// Refuses what the model that is named on the hub could not follow, before it is fetched: one for whose family no ControlNet
/// is usual, where none is named.
///
/// # Errors
/// It is one, or the hub cannot be asked.
pub(crate) fn check_unfetched(arguments: &Arguments, settings: &Settings) -> Result<(), Failure> {
    let (Some((option, kind, _)), None, Some(name)) =
        (asked(arguments).next(), &settings.controlnet, &settings.model)
    else {
        return Ok(());
    };
    let is_here = |reference: &Reference| installed::locate(reference).is_some();
    let missing = installed::reference(name).filter(|reference| !is_here(reference));
    let Some(reference) = missing.filter(|_| !Path::new(name).exists()) else {
        return Ok(());
    };
    let described = read_if_online(&reference, &Denoiser::CONFIGURATIONS)?
        .and_then(|(path, text)| Denoiser::described(path, &text));
    match described {
        Some(denoiser) => usual_beside(&denoiser, option, kind).map(|_| ()),
        None => Ok(()),
    }
}

/// What is to be followed: the option, what kind of picture it takes, and the picture.
fn asked(arguments: &Arguments) -> impl Iterator<Item = (&'static str, ControlKind, PathBuf)> {
    let kinds = [
        ("--pose", ControlKind::Pose, &arguments.pose),
        ("--depth", ControlKind::Depth, &arguments.depth),
        ("--canny", ControlKind::Canny, &arguments.canny),
    ];
    kinds
        .into_iter()
        .filter_map(|(option, kind, image)| Some((option, kind, image.clone()?)))
}

/// The ControlNet that usually follows a `kind` beside the model, whose network is kept in `denoiser`.
fn usual(
    option: &str,
    kind: ControlKind,
    settings: &Settings,
    denoiser: &mut Option<Denoiser>,
) -> Result<String, Failure> {
    let denoiser = match denoiser {
        Some(denoiser) => denoiser,
        none => none.insert(Bundle::open(&request::drawing(settings)?.folder)?.denoiser),
    };
    usual_beside(denoiser, option, kind)
}

fn usual_beside(denoiser: &Denoiser, option: &str, kind: ControlKind) -> Result<String, Failure> {
    match denoiser.usual_controlnet(kind) {
        Some(id) => Ok(id.to_owned()),
        None => Err(Failure::no_usual_controlnet(option, denoiser.title())),
    }
}

impl Followed {
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
    match installed::reference(name) {
        Some(reference) => {
            installed::locate(&reference).ok_or_else(|| Failure::not_installed(Kind::ControlNet, &reference))
        }
        None => Err(Failure::nothing_at(Kind::ControlNet, name)),
    }
}
