//! The names of the families that share ControlNets.

use sd_models::unet;

/// The name of Stable Diffusion 3 and 3.5.
pub(super) const STABLE_DIFFUSION_3: &str = "Stable Diffusion 3";
/// Features of a context token in Stable Diffusion 2, and in no other family.
const CONTEXT_OF_2: usize = 1024;

/// The name of the models that share ControlNets with the UNet of `config`.
pub(super) fn network_title(config: &unet::Config) -> &'static str {
    match (config.addition_embed_type.as_deref(), config.context_features()) {
        (Some(_), _) => "Stable Diffusion XL",
        (None, 768) => "Stable Diffusion 1",
        (None, CONTEXT_OF_2) => "Stable Diffusion 2",
        (None, _) => "Stable Diffusion 1 or 2",
    }
}

/// Whether the UNet of `config` has default ControlNets. Only Stable Diffusion 1 has: for other families
/// there are many, each for one model.
pub(super) fn has_default_controlnets(config: &unet::Config) -> bool {
    config.addition_embed_type.is_none() && config.context_features() != CONTEXT_OF_2
}
