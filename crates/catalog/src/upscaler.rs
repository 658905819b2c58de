//! The default upscaling networks, and the name of upscaling without one.

/// The upscaler that resamples, and needs no network.
pub(crate) const LANCZOS: &str = "lanczos";

/// Real-ESRGAN as trained by ai-forever, by factor.
const DEFAULTS: [(usize, &str); 2] = [
    (2, "ai-forever/Real-ESRGAN:RealESRGAN_x2.pth"),
    (4, "ai-forever/Real-ESRGAN:RealESRGAN_x4.pth"),
];

/// The hub name of the default network that upscales by `factor`. It is used if it is cached, and never
/// downloaded for a run.
pub(crate) fn default_name(factor: usize) -> Option<&'static str> {
    let default = DEFAULTS.iter().find(|(of, _)| *of == factor);
    default.map(|(_, name)| *name)
}
