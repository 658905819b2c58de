//! What a run says of itself: a warning before it streams, and the entries of the metadata.

use sd_weights::WeightType;

use super::leg::Leg;
use crate::Result;
use crate::bundle::Family;

/// What streaming costs, and what would avoid it.
pub(super) fn streaming_warning(leg: &Leg) -> String {
    /// Bytes a second of a good solid-state disk.
    const DISK: f64 = 2.0 * (1_u64 << 30) as f64;
    let Leg { plan, holding, .. } = leg;
    let each_step = plan.read_each_step();
    let cost = if holding.host_memory.limit() >= each_step.0 {
        format!("{each_step} are copied to the device in every step")
    } else {
        format!(
            "{each_step} are read in every step, which takes at least {:.1} s from a disk of 2 GB/s",
            each_step.0 as f64 / DISK
        )
    };
    format!(
        "the model does not fit in {}: {cost}; --memory {:.1}GB would avoid it",
        plan.budget,
        (plan.resident_budget.gigabytes() * 10.0).ceil() / 10.0,
    )
}

/// The refiner `name`, as what is left out is called.
pub(super) fn refiner(name: &str) -> String {
    format!("the refiner `{name}`")
}

/// What the run does to need less memory, for the metadata.
pub(super) fn memory_optimizations(leg: &Leg) -> Vec<String> {
    let plan = &leg.plan;
    let mut done = [
        "text encoders streamed and dropped",
        "attention in chunks",
        "denoising network dropped before decoding",
        "exact decoding by bands",
    ]
    .map(str::to_owned)
    .to_vec();
    if leg.bundle.family == Family::StableDiffusion3 {
        done.push("modulations computed once, their weights dropped".to_owned());
    }
    if plan.streams() {
        let streamed = plan.blocks - plan.resident_blocks;
        done.push(format!("{streamed} of {} blocks streamed", plan.blocks));
    }
    done
}

/// The type that the denoising network's weights are held in, as the metadata writes it.
pub(super) fn dtype_name(leg: &Leg) -> Result<String> {
    let bundle = &leg.bundle;
    Ok(match leg.holding.weight_type {
        WeightType::F32 => "f32".to_owned(),
        WeightType::Bf16 => "bf16".to_owned(),
        WeightType::AsStored => match bundle.checkpoint(bundle.denoiser.component())?.main_type() {
            Some(stored) => format!("{stored:?}").to_lowercase(),
            None => "none".to_owned(),
        },
    })
}
