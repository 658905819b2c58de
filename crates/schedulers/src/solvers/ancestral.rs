//! Ancestral steps: down below the next noise level, then back up with fresh noise.

/// The level to step down to, and the standard deviation of the noise to add then, for a step from the level
/// `from` to `to`: k-diffusion's `get_ancestral_step`.
#[doc(alias = "get_ancestral_step")]
pub(super) fn ancestral_step(from: f32, to: f32) -> (f32, f32) {
    let up = (to * to * (from * from - to * to).max(0.0) / (from * from))
        .sqrt()
        .min(to);
    ((to * to - up * up).sqrt(), up)
}
