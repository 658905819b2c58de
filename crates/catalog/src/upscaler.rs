//! The upscaling networks that are used where none is named.

/// Real-ESRGAN as ai-forever trained it, by its factor.
const DEFAULTS: [(usize, &str); 2] = [
    (2, "ai-forever/Real-ESRGAN:RealESRGAN_x2.pth"),
    (4, "ai-forever/Real-ESRGAN:RealESRGAN_x4.pth"),
];

/// The name on the hub of the network that upscales by `factor` where none is named. It is used if the cache
/// has it, and never fetched for a run.
pub(crate) fn default_name(factor: usize) -> Option<&'static str> {
    let default = DEFAULTS.iter().find(|(of, _)| *of == factor);
    default.map(|(_, name)| *name)
}
