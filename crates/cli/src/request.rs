//! From what was typed to a request: the model is found, ranges are checked.

use std::path::Path;

use sd_pipeline::presets::{self, Preset};
use sd_pipeline::{
    GuidanceScale, ImageSize, InitImage, ModelChoice, ModelFolder, Names, Places, Recommended, RefinerChoice,
    Request, Strength, UpscaleChoice,
};

use crate::arguments::Arguments;
use crate::hint::Failure;
use crate::{control, demo, installed, lora, sampler};

/// The request that `arguments` describe, where what they leave open is as `preset` has it.
pub(crate) fn request(arguments: &Arguments, preset: Option<&Preset>) -> Result<Request, Failure> {
    let (sampler, schedule) = sampler::chosen(arguments)?;
    let preset_or = |of: fn(&Preset) -> Option<&'static str>| preset.and_then(of);
    let name = arguments.model.as_deref();
    let name = name
        .or(preset_or(|preset| Some(preset.model)))
        .unwrap_or(demo::NAME);
    let refiner = arguments
        .refiner
        .as_deref()
        .or(preset_or(|preset| preset.refiner));
    let mut loras = lora::chosen(arguments)?;
    if let Some(name) = preset_or(|preset| preset.lora) {
        loras.insert(0, lora::choice(name, 1.0)?);
    }
    let (prompt, negative_prompt) = match arguments.style {
        Some(style) => {
            let (prompt, negative) = style.apply(arguments.prompt(), arguments.negative_prompt.as_deref());
            (prompt, Some(negative))
        }
        None => (arguments.prompt().to_owned(), arguments.negative_prompt.clone()),
    };
    let factor = arguments.upscale.or(preset.and_then(|preset| preset.upscale));
    let guidance_scale = arguments.cfg.or(preset.and_then(|preset| preset.guidance_scale));
    let is_demo = name == demo::NAME;
    Ok(Request {
        negative_prompt,
        images: arguments.n as usize,
        steps: match arguments.steps {
            Some(steps) => Some(steps as usize),
            // The built-in model recommends its own.
            None => preset.filter(|_| !is_demo).map(|preset| preset.steps),
        },
        seed: arguments.seed,
        size: match arguments.size()? {
            None if arguments.pro => ImageSize::new(1024, 1024).ok(),
            size => size,
        },
        init: arguments.init_image.as_ref().map(|image| InitImage {
            image: image.clone(),
            strength: arguments.strength.map(Strength),
            mask: arguments.mask.clone(),
        }),
        controls: control::chosen(arguments)?,
        loras,
        upscale: factor.map(|factor| UpscaleChoice {
            factor,
            network: arguments.upscaler.clone(),
        }),
        names: Names {
            style: arguments.style.map(|style| style.name.to_owned()),
            quality_preset: preset.map(|preset| preset.name.to_owned()),
        },
        strict: arguments.strict,
        refiner: match refiner {
            Some(name) => Some(RefinerChoice {
                switch: arguments.refiner_switch,
                ..RefinerChoice::new(model(name)?)
            }),
            None => None,
        },
        guidance_scale: guidance_scale.map(GuidanceScale),
        sampler: sampler.or(preset.and_then(|preset| preset.sampler)),
        schedule,
        // Others count the last layer that is used, from 1.
        clip_skip: arguments.clip_skip as usize - 1,
        output: arguments.output.clone(),
        device: arguments.device,
        weight_type: arguments.dtype,
        memory: arguments.memory,
        host_memory: arguments.host_memory,
        places: Places::of_user(),
        ..Request::new(prompt, model(name)?)
    })
}

/// The model that the user calls `name`.
fn model(name: &str) -> Result<ModelChoice, Failure> {
    let place = Path::new(name);
    if name == demo::NAME {
        return Ok(demo::model());
    }
    if place.is_file() {
        return Err(Failure::single_file(name));
    }
    let folder = if place.exists() {
        place.to_owned()
    } else if installed::is_id(name) {
        let id = presets::moved(name);
        installed::locate(id).ok_or_else(|| Failure::not_installed(id))?
    } else {
        return Err(Failure::no_model(name));
    };
    let folder = ModelFolder::on_disk(folder);
    Ok(ModelChoice {
        name: name.to_owned(),
        folder,
        recommended: Recommended::default(),
    })
}
