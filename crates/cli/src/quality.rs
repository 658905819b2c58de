//! `--quality` and `--pro`: which preset a picture is drawn with, and the list of what there is.

use sd_pipeline::presets::{ALL, BEST_FIRST, DEMO, Preset};

use crate::arguments::Arguments;
use crate::hint::Failure;
use crate::{installed, request, terminal};

/// The word that leaves the choice to the program.
const AUTO: &str = "auto";
/// What `--pro` stands for.
const PRO: &str = "sd3.5";

/// The preset that was asked for; where neither it nor a model was, the best that is on this machine and fits into the
/// budget. Nothing where the user named a model alone.
pub(crate) fn chosen(arguments: &Arguments) -> Result<Option<&'static Preset>, Failure> {
    let named = if arguments.pro {
        Some(PRO)
    } else {
        arguments.quality.as_deref()
    };
    match named {
        Some(AUTO) => Ok(Some(best(arguments))),
        None if arguments.model.is_none() => Ok(Some(best(arguments))),
        None => Ok(None),
        Some(name) => match Preset::find(name) {
            Some(preset) => Ok(Some(preset)),
            None => Err(Failure::usage(format!(
                "there is no preset `{name}`; `--quality help` lists those that there are"
            ))),
        },
    }
}

/// The best preset of which everything is on this machine and whose plan fits into the budget.
fn best(arguments: &Arguments) -> &'static Preset {
    let presets = BEST_FIRST.iter().filter_map(|name| Preset::find(name));
    let mut there = presets.filter(|preset| {
        preset
            .parts()
            .all(|part| part == DEMO || installed::locate(part).is_some())
    });
    let fits = |preset: &&Preset| {
        preset.name == DEMO
            || request::request(arguments, Some(preset))
                .is_ok_and(|request| sd_pipeline::plan(&request).is_ok())
    };
    let preset = there
        .find(fits)
        .or_else(|| Preset::find(DEMO))
        .expect("there is a built-in model. This is a bug.");
    if !arguments.quiet && !arguments.json {
        terminal::note(&match preset.name {
            DEMO => "Drawing with the small built-in model `demo`; --model DIR names a real one.".to_owned(),
            name => format!(
                "Drawing with the preset `{name}`: the best that is on this machine and fits into its memory."
            ),
        });
    }
    preset
}

/// The list that was asked for in place of a picture, if one was.
pub(crate) fn list(arguments: &Arguments) -> Option<String> {
    if arguments.quality.as_deref() != Some("help") {
        return None;
    }
    let row = |preset: &Preset| {
        let refiner = preset.refiner.map(|refiner| format!(", refined by {refiner}"));
        let upscale = preset.upscale.map(|factor| format!(", {factor} times as large"));
        format!(
            "{:16} {}, {} steps{}{}\n",
            preset.name,
            preset.model,
            preset.steps,
            refiner.unwrap_or_default(),
            upscale.unwrap_or_default()
        )
    };
    let rows: String = ALL.iter().map(row).collect();
    Some(format!(
        "{rows}{AUTO:16} the best of these that is on this machine and fits into its memory\n"
    ))
}
