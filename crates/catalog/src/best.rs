//! The best preset that is completely on this machine and whose plan fits into the memory budget.

use sd_pipeline::bundle::Kind;

use crate::catalog::{Catalog, Location};
use crate::error::{Error, Result};
use crate::fetch::FetchObserver;
use crate::layers::{Layered, Layers};
use crate::presets::{BEST_FIRST, DEMO, Preset};
use crate::resolved::{Inputs, Resolved};
use crate::settings::Settings;
use crate::wanted::Wanted;
use crate::{names, samplers};

impl Layers {
    /// The settings with the best of the built-in presets that can generate from `inputs` on this machine, in
    /// the order of [`BEST_FIRST`], or with the built-in model if none can. What the command line names is
    /// downloaded first if there is an `observer`, because plans need it. No preset is downloaded.
    ///
    /// # Errors
    /// A name of the command line is invalid or cannot be downloaded, or a folder of `models_path` is missing.
    pub fn best_that_fits(
        &self,
        catalog: &Catalog,
        inputs: &Inputs,
        observer: Option<&mut dyn FetchObserver>,
    ) -> Result<Layered> {
        let settings = Settings {
            model: self.typed.model.clone(),
            ..self.typed.clone().over(self.defaults.clone())
        };
        samplers::named(&settings)?;
        let missing = missing(catalog, inputs, &settings)?;
        if let Some(observer) = observer
            && !missing.is_empty()
            && !catalog.is_offline()
        {
            catalog.fetch(&missing, observer)?;
        }
        let presets = BEST_FIRST.iter().filter_map(|name| Preset::find(name));
        let candidates = presets.filter(|preset| preset.name != DEMO && is_here(catalog, preset));
        for preset in candidates {
            let layered = self.with_preset(preset);
            if fits(catalog, inputs, &layered)? {
                return Ok(layered);
            }
        }
        match Preset::find(DEMO) {
            Some(demo) => Ok(self.with_preset(demo)),
            None => unreachable!("there is a built-in model. This is a bug."),
        }
    }
}

/// What `settings` and `inputs` name on the hub and is not cached.
fn missing(catalog: &Catalog, inputs: &Inputs, settings: &Settings) -> Result<Vec<Wanted>> {
    let mut missing = Vec::new();
    for (kind, name) in names::named(settings, &inputs.prompt) {
        // Without control images a ControlNet of the configuration is not used.
        if kind == Kind::ControlNet && inputs.control_images.is_empty() {
            continue;
        }
        if let Location::OnHub(reference) = catalog.locate(kind, &name)? {
            let wanted = Wanted {
                reference,
                kind: Some(kind),
            };
            if !missing.contains(&wanted) {
                missing.push(wanted);
            }
        }
    }
    Ok(missing)
}

/// Whether the cache holds every part of `preset`.
fn is_here(catalog: &Catalog, preset: &Preset) -> bool {
    let mut parts = preset.parts();
    parts.all(|part| names::reference(part).is_some_and(|reference| catalog.is_cached(&reference, None)))
}

/// Whether a run fits into its memory budget. Default ControlNets that are not cached are left out of the
/// plan: they are downloaded once the preset is chosen.
///
/// # Errors
/// A folder of `models_path` is missing: no preset would be found to fit.
fn fits(catalog: &Catalog, inputs: &Inputs, layered: &Layered) -> Result<bool> {
    let request = Resolved::new(catalog, inputs.clone(), layered.clone())
        .and_then(|resolved| resolved.without_missing_controlnets().request(catalog));
    match request {
        Ok(request) => Ok(catalog.planner.plan(&request).is_ok()),
        Err(error @ Error::NoModelsFolder { .. }) => Err(error),
        Err(_) => Ok(false),
    }
}
