//! From what was typed to a request: the model is found, ranges are checked.

use std::path::PathBuf;

use sd_pipeline::{
    ControlChoice, Error, GuidanceScale, InitImage, Names, RefinerChoice, Request, Strength, UpscaleChoice,
    UserDirs,
};

use crate::arguments::Arguments;
use crate::hint::Failure;
use crate::settings::Settled;
use crate::{lora, model, sampler, upscaler};

/// Where pictures go if nothing is said of it.
const OUTPUT: &str = "./outputs";

/// The request that `arguments` describe, with what is settled beside them and the `controls` that are to be followed.
pub(crate) fn request(
    arguments: &Arguments,
    settled: &Settled,
    controls: Vec<ControlChoice>,
) -> Result<Request, Failure> {
    let settings = &settled.settings;
    let (sampler, schedule) = sampler::chosen(settings)?;
    // Beside what it asks for: a default that goes with something else is no mistake.
    let alone = |option: &str, other: &str| Failure::usage(format!("{option} goes together with {other}"));
    if arguments.settings.upscaler.is_some() && settings.upscale.is_none() {
        return Err(alone("--upscaler", "--upscale"));
    }
    if arguments.settings.refiner_switch.is_some() && settings.refiner.is_none() {
        return Err(alone("--refiner-switch", "--refiner"));
    }
    let (prompt, negative_prompt) = match settings.style {
        Some(style) => {
            let (prompt, negative) = style.apply(arguments.prompt(), settings.negative_prompt.as_deref());
            (prompt, Some(negative))
        }
        None => (arguments.prompt().to_owned(), settings.negative_prompt.clone()),
    };
    // The model first: it is what the rest is for.
    let model_choice = model::drawing(settings)?;
    let network = upscaler::chosen(settings)?;
    Ok(Request {
        negative_prompt,
        images: settings.n.unwrap_or(1) as usize,
        steps: settings.steps.map(|steps| steps as usize),
        seed: settings.seed.unwrap_or(42),
        size: settings.size,
        init: arguments.init_image.as_ref().map(|image| InitImage {
            image: image.clone(),
            strength: arguments.strength.map(Strength),
            mask: arguments.mask.clone(),
        }),
        controls,
        loras: lora::chosen(arguments.prompt(), settings)?,
        upscale: settings.upscale.map(|factor| UpscaleChoice {
            factor,
            network,
            or_resampled: settings.upscaler.is_none(),
        }),
        names: Names {
            style: settings.style.map(|style| style.name.to_owned()),
            quality_preset: settled.preset.clone(),
        },
        strict: settings.strict,
        refiner: match &settings.refiner {
            Some(name) => Some(RefinerChoice {
                switch: settings.refiner_switch,
                ..RefinerChoice::new(model::named(name)?)
            }),
            None => None,
        },
        guidance_scale: settings.cfg.map(GuidanceScale),
        guidance_rescale: settings.guidance_rescale.unwrap_or(0.0),
        sampler,
        schedule,
        // Others count the last layer that is used, from 1.
        clip_skip: settings.clip_skip.map_or(0, |layer| layer as usize - 1),
        output: settings.output.clone().unwrap_or_else(|| PathBuf::from(OUTPUT)),
        device: settings.device.unwrap_or_default(),
        weight_type: settings.dtype.unwrap_or_default(),
        memory: settings.memory,
        host_memory: settings.host_memory,
        user_dirs: UserDirs::of_user(),
        ..Request::new(prompt, model_choice)
    })
}

/// Whether the pictures that are to be drawn over and followed, and masks, are files that can be opened.
pub(crate) fn check_pictures(arguments: &Arguments) -> Result<(), Failure> {
    let over = [&arguments.init_image, &arguments.mask].into_iter().flatten();
    let control = arguments.control_images.iter().map(|picture| &picture.image);
    for path in over.chain(control) {
        sd_files::open(path).map_err(|error| Error::BadImage {
            path: path.clone(),
            reason: error.to_string(),
        })?;
    }
    Ok(())
}
