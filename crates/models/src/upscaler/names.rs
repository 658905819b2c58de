//! The tensor names of the releases of ESRGAN.

use sd_weights::{Naming, Weights};

/// The convolutions around the blocks that the first release names by an index in a `Sequential`. Those of a
/// network with another scale have other indices.
const AROUND: [&str; 5] = ["conv_first", "conv_up1", "conv_up2", "conv_hr", "conv_last"];

/// `weights` under Real-ESRGAN's names.
pub(super) fn as_real_esrgan(weights: &Weights) -> Weights {
    weights.in_diffusers_naming(Naming::ESRGAN)
}

/// The indices of convolutions in the first release's `Sequential`, if some are unknown: a network of another
/// scale.
pub(super) fn unknown_indices(weights: &Weights) -> Option<Vec<usize>> {
    let has = |name: &str| weights.contains(&format!("{name}.weight"));
    let mut indices: Vec<usize> = (0..64).filter(|index| has(&format!("model.{index}"))).collect();
    if indices.is_empty() {
        return None;
    }
    let translation = Naming::ESRGAN.translation([]);
    let known = |name: &str| {
        translation
            .other_name(name)?
            .name
            .strip_prefix("model.")?
            .parse()
            .ok()
    };
    let around = AROUND.into_iter().filter(|name| has(name));
    indices.extend(around.filter_map(known).collect::<Vec<usize>>());
    indices.sort_unstable();
    Some(indices)
}
