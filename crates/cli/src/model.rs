//! `--model` and `--refiner`: from names to the files of models.

use std::path::Path;

use sd_pipeline::bundle::Kind;
use sd_pipeline::{ModelChoice, ModelFolder, Recommended};

use crate::hint::Failure;
use crate::settings::Settings;
use crate::{demo, local_models};

/// The model that draws.
pub(crate) fn drawing(settings: &Settings) -> Result<ModelChoice, Failure> {
    named(settings.model.as_deref().unwrap_or(demo::NAME))
}

/// The model that the user calls `name`.
pub(crate) fn named(name: &str) -> Result<ModelChoice, Failure> {
    let place = Path::new(name);
    if name == demo::NAME {
        return Ok(demo::model());
    }
    if place.is_file() {
        return Err(Failure::single_file(name));
    }
    let folder = if place.exists() {
        place.to_owned()
    } else if let Some(reference) = local_models::reference(name) {
        local_models::whole(Kind::Model, &reference)?
    } else {
        return Err(Failure::nothing_at(Kind::Model, name));
    };
    let folder = ModelFolder::on_disk(folder);
    Ok(ModelChoice {
        name: name.to_owned(),
        folder,
        recommended: Recommended::default(),
    })
}
