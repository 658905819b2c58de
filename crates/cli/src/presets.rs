//! `--quality` and `--pro`: which preset a picture is drawn with, what is settled with it, and the list of what there is.

use sd_pipeline::ImageSize;
use sd_pipeline::presets::{ALL, BEST_FIRST, DEMO, Preset};

use crate::arguments::Arguments;
use crate::configuration::Configuration;
use crate::hint::Failure;
use crate::settings::{Settings, Settled};
use crate::{control, local_models, request};

/// The word that leaves the choice to the program.
const AUTO: &str = "auto";
/// What `--pro` stands for.
const PRO: &str = "sd3.5";

/// What a picture is drawn with. The preset is the one that was asked for; where neither it nor a model was, the best
/// that is on this machine and fits into the budget.
pub(crate) fn settled(arguments: &Arguments, configuration: &Configuration) -> Result<Settled, Failure> {
    layered(arguments, configuration, |typed| {
        Some(best(arguments, typed, &configuration.defaults))
    })
}

/// What the user named, without what is chosen where nothing was.
pub(crate) fn named(arguments: &Arguments, configuration: &Configuration) -> Result<Settings, Failure> {
    Ok(layered(arguments, configuration, |_| None)?.settings)
}

/// Every layer of settings; `choose` has the preset where the choice is left to the program.
fn layered(
    arguments: &Arguments,
    configuration: &Configuration,
    choose: impl FnOnce(&Settings) -> Option<&'static Preset>,
) -> Result<Settled, Failure> {
    let typed = Settings {
        size: arguments.size()?,
        ..arguments.settings.clone()
    };
    let defaults = &configuration.defaults;
    let asked = if arguments.pro {
        Some(PRO)
    } else {
        typed.quality.as_deref()
    };
    // A model says more than a preset of the defaults does, if it was typed.
    let usual = match (&typed.model, &defaults.quality, &defaults.model) {
        (Some(_), _, _) | (None, None, Some(_)) => None,
        (None, Some(quality), _) => Some(quality.as_str()),
        (None, None, None) => Some(AUTO),
    };
    let (preset, of_preset) = match asked.or(usual) {
        None => (None, Settings::default()),
        Some(AUTO) => match choose(&typed) {
            Some(preset) => (Some(preset.name.to_owned()), preset.into()),
            None => (None, Settings::default()),
        },
        Some(name) => (Some(name.to_owned()), of_preset(name, configuration)?),
    };
    let of_pro = Settings {
        size: ImageSize::new(1024, 1024).ok().filter(|_| arguments.pro),
        ..Settings::default()
    };
    Ok(Settled {
        preset,
        settings: typed.or(of_pro).or(of_preset).or(defaults.clone()),
    })
}

/// The settings of the preset `name`, the user's own or one of ours. Where the user's goes on from one of its own name, that is
/// ours.
pub(crate) fn of_preset(name: &str, configuration: &Configuration) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    let mut seen = Vec::new();
    let mut next = Some(name.to_owned());
    while let Some(name) = next {
        let own = configuration.presets.get(&name).filter(|_| !seen.contains(&name));
        let layer = match (own, Preset::find(&name)) {
            (Some(own), _) => own.clone(),
            (None, Some(preset)) => preset.into(),
            (None, None) if seen.contains(&name) => {
                return Err(Failure::usage(format!(
                    "the preset `{name}` goes on from itself: {} -> {name}",
                    seen.join(" -> ")
                )));
            }
            (None, None) => {
                let failure = Failure::usage(format!("there is no preset `{name}`"));
                return Err(
                    failure.advising("`generate --quality help` lists those that there are".to_owned())
                );
            }
        };
        seen.push(name);
        next = layer.quality.clone();
        settings = settings.or(layer);
    }
    Ok(settings)
}

/// The best preset of which everything is on this machine and whose plan fits into the budget.
fn best(arguments: &Arguments, typed: &Settings, defaults: &Settings) -> &'static Preset {
    let presets = BEST_FIRST.iter().filter_map(|name| Preset::find(name));
    let is_there = |part: &str| {
        let reference = local_models::reference(part);
        part == DEMO || reference.is_some_and(|reference| local_models::is_whole(&reference, None))
    };
    let mut there = presets.filter(|preset| preset.parts().all(is_there));
    let fits = |preset: &&Preset| {
        let request = || {
            let settled = Settled {
                preset: Some(preset.name.to_owned()),
                settings: typed.clone().or((*preset).into()).or(defaults.clone()),
            };
            let inputs = control::inputs(arguments, &settled.settings)?;
            // One that is not here is fetched once the preset is known.
            let here = inputs.iter().filter_map(|input| input.choice().ok());
            request::request(arguments, &settled, here.collect())
        };
        preset.name == DEMO || request().is_ok_and(|request| sd_pipeline::plan(&request).is_ok())
    };
    let preset = there
        .find(fits)
        .or_else(|| Preset::find(DEMO))
        .expect("there is a built-in model. This is a bug.");
    arguments.printer().note(&match preset.name {
            DEMO => {
                "Drawing with the small built-in model `demo`; `generate models pull fast` gets a real one, --model names another."
                    .to_owned()
            }
            name => format!(
                "Drawing with the preset `{name}`: the best that is on this machine and fits into its memory."
            ),
        });
    preset
}

/// The list that was asked for in place of a picture, if one was.
pub(crate) fn list(arguments: &Arguments, configuration: &Configuration) -> Option<String> {
    if arguments.settings.quality.as_deref() != Some("help") {
        return None;
    }
    let row = |name: &str, settings: &Settings| {
        let parts = [
            settings.quality.as_ref().map(|name| format!("as `{name}`")),
            settings.model.clone(),
            settings.steps.map(|steps| format!("{steps} steps")),
            (!settings.lora.is_empty()).then(|| format!("with {}", settings.lora.join(" and "))),
            settings
                .refiner
                .as_ref()
                .map(|refiner| format!("refined by {refiner}")),
            settings.upscale.map(|factor| format!("{factor} times as large")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        format!("{name:16} {}\n", parts.join(", "))
    };
    let ours = ALL.iter().map(|preset| row(preset.name, &preset.into()));
    let own = configuration
        .presets
        .iter()
        .map(|(name, settings)| row(name, settings));
    let rows: String = ours.chain(own).collect();
    Some(format!(
        "{rows}{AUTO:16} the best of ours that is on this machine and fits into its memory\n"
    ))
}
