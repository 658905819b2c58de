//! The messages of a run: warnings, and texts of the metadata.

use sd_weights::WeightType;

use super::model_pass::ModelPass;
use crate::Result;
use crate::image_size::ImageSize;
use crate::prompt::Prompt;
use crate::recipe::DenoisingRange;
use crate::request::Strength;
use crate::save::RefinerSettings;

/// The warning that weights are streamed: its cost, and what avoids it.
pub(super) fn streaming_warning(pass: &ModelPass) -> String {
    /// The throughput of a good solid-state disk, in bytes per second.
    const DISK: f64 = 2.0 * (1_u64 << 30) as f64;
    let ModelPass {
        plan, weight_options, ..
    } = pass;
    let each_step = plan.read_each_step();
    let cost = if weight_options.host_memory.limit() >= each_step.0 {
        format!("{each_step} are copied to the device in every step")
    } else {
        format!(
            "{each_step} are read in every step, which takes at least {:.1} s from a disk of 2 GB/s",
            each_step.0 as f64 / DISK
        )
    };
    format!(
        "the model does not fit in {}: {cost}; --memory {} would avoid it",
        plan.budget,
        plan.resident_budget.as_budget(),
    )
}

/// The warning that the image has far fewer or far more pixels than those that the model was trained with.
pub(super) fn of_size(pass: &ModelPass) -> Option<String> {
    /// How many times the pixels may differ.
    const FAR: f64 = 2.0;
    let pixels = |size: ImageSize| (size.width() * size.height()) as f64;
    let (own, size) = (pass.bundle.defaults().size, pass.recipe.size);
    let ratio = pixels(size) / pixels(own);
    let effect = if ratio > FAR {
        "repeat subjects"
    } else if ratio < 1.0 / FAR {
        "be blurred or cut off"
    } else {
        return None;
    };
    Some(format!(
        "the model was trained at {own}: at {size} images may {effect}; --size with a ratio such as {} keeps the model's area",
        ratio_of(size)
    ))
}

/// The ratio of a size, as the user writes it.
fn ratio_of(size: ImageSize) -> String {
    let (mut divisor, mut rest) = (size.width(), size.height());
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    format!("{}:{}", size.width() / divisor, size.height() / divisor)
}

/// Warnings about LoRAs: unsupported arguments of tags in the prompts of `pass`, and added files without
/// their settings.
pub(super) fn of_loras(pass: &ModelPass) -> Vec<String> {
    let ModelPass { recipe, bundle, .. } = pass;
    let mut warnings = Vec::new();
    for tag in Prompt::parse(&recipe.prompt).loras {
        warnings.extend(tag.ignored.iter().map(|argument| {
            format!(
                "`{argument}` of the LoRA `{}` in the prompt is not known here and changes nothing",
                tag.name
            )
        }));
    }
    warnings.extend(Prompt::parse(&recipe.negative_prompt).loras.iter().map(|tag| {
        format!(
            "the LoRA `{}` in the negative prompt changes nothing: LoRAs are added for both texts, and named in the prompt",
            tag.name
        )
    }));
    warnings.extend(bundle.loras().filter_map(|(file, choice)| {
        let missing = file.missing_settings()?;
        Some(format!(
            "the LoRA `{}` is added without `{}`, which is not there: its alphas are taken to be its ranks",
            choice.name,
            missing.display()
        ))
    }));
    warnings
}

/// The settings of the refiner's `pass`, for the metadata.
pub(super) fn refiner_settings(pass: &ModelPass) -> RefinerSettings {
    let recipe = &pass.recipe;
    RefinerSettings {
        switch: match recipe.denoising_range {
            DenoisingRange::Start(switch) => Some(switch),
            DenoisingRange::Full | DenoisingRange::End(_) => None,
        },
        steps: recipe.steps,
        strength: recipe
            .img2img
            .as_ref()
            .map_or(Strength::ALL, |img2img| img2img.strength),
    }
}

/// The name of the refiner in messages.
pub(super) fn refiner(name: &str) -> String {
    format!("the refiner `{name}`")
}

/// The memory optimisations of the run, for the metadata.
pub(super) fn memory_optimizations(pass: &ModelPass) -> Vec<String> {
    let plan = &pass.plan;
    let mut done = [
        "text encoders streamed and dropped",
        "attention in chunks",
        "denoising network dropped before decoding",
        "exact decoding by bands",
    ]
    .map(str::to_owned)
    .to_vec();
    let of_family = pass.bundle.family.memory_optimizations();
    done.extend(of_family.iter().map(|&measure| measure.to_owned()));
    if plan.streams() {
        let streamed = plan.blocks - plan.resident_blocks;
        done.push(format!("{streamed} of {} blocks streamed", plan.blocks));
    }
    done
}

/// The data type of the denoising network's weights, as the metadata writes it.
pub(super) fn dtype_name(pass: &ModelPass) -> Result<String> {
    let bundle = &pass.bundle;
    Ok(match pass.weight_options.weight_type {
        WeightType::F32 => "f32".to_owned(),
        WeightType::Bf16 => "bf16".to_owned(),
        WeightType::F16 => "f16".to_owned(),
        WeightType::AsStored => match bundle.checkpoint(bundle.family.component())?.main_type() {
            Some(stored) => stored.to_string().to_lowercase(),
            None => "none".to_owned(),
        },
    })
}
