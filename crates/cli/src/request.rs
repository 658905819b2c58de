//! From what was typed to a request: the model is found, ranges are checked.

use std::path::Path;

use sd_pipeline::{
    GuidanceScale, InitImage, ModelChoice, ModelFolder, Places, Recommended, RefinerChoice, Request,
    Strength, UpscaleChoice,
};

use crate::arguments::Arguments;
use crate::hint::Failure;
use crate::{demo, lora, sampler, terminal};

/// The request that `arguments` describe.
pub(crate) fn request(arguments: &Arguments) -> Result<Request, Failure> {
    let (sampler, schedule) = sampler::chosen(arguments)?;
    Ok(Request {
        negative_prompt: arguments.negative_prompt.clone(),
        images: arguments.n as usize,
        steps: arguments.steps.map(|steps| steps as usize),
        seed: arguments.seed,
        size: arguments.size()?,
        init: arguments.init_image.as_ref().map(|image| InitImage {
            image: image.clone(),
            strength: arguments.strength.map(Strength),
            mask: arguments.mask.clone(),
        }),
        loras: lora::chosen(arguments)?,
        upscale: arguments.upscale.map(|factor| UpscaleChoice {
            factor,
            network: arguments.upscaler.clone(),
        }),
        strict: arguments.strict,
        refiner: match &arguments.refiner {
            Some(name) => Some(RefinerChoice {
                switch: arguments.refiner_switch,
                ..RefinerChoice::new(model(name)?)
            }),
            None => None,
        },
        guidance_scale: arguments.cfg.map(GuidanceScale),
        sampler,
        schedule,
        // Others count the last layer that is used, from 1.
        clip_skip: arguments.clip_skip as usize - 1,
        output: arguments.output.clone(),
        device: arguments.device,
        weight_type: arguments.dtype,
        memory: arguments.memory,
        host_memory: arguments.host_memory,
        places: Places::of_user(),
        ..Request::new(arguments.prompt(), drawing_model(arguments)?)
    })
}

fn drawing_model(arguments: &Arguments) -> Result<ModelChoice, Failure> {
    if arguments.model == demo::NAME && !arguments.quiet && !arguments.json {
        terminal::note("Drawing with the small built-in model `demo`; --model DIR names a real one.");
    }
    model(&arguments.model)
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
    if !place.exists() {
        return Err(Failure::no_model(name));
    }
    let folder = ModelFolder::on_disk(place);
    Ok(ModelChoice {
        name: name.to_owned(),
        folder,
        recommended: Recommended::default(),
    })
}
