//! The tensor names of the releases of ESRGAN.
//!
//! ESRGAN's first release used indices of a `Sequential` (`model.1.sub.0.RDB1.conv1.0`), its second
//! `RRDB_trunk`, Real-ESRGAN `body`. Networks that were trained on several GPUs may have `module.` before
//! each name, and files without nested tables the name of the table of the network.

use sd_weights::Weights;

/// Prefixes of names. Of the last weights and their moving average the average is used, which comes later.
const BEFORE: [&str; 4] = ["module.", "state_dict.", "params.", "params_ema."];
/// The convolutions around the blocks, as the second release names them.
const AROUND: [(&str, &str); 4] = [
    ("trunk_conv", "conv_body"),
    ("upconv1", "conv_up1"),
    ("upconv2", "conv_up2"),
    ("HRconv", "conv_hr"),
];
/// The same as indices of the first release's `Sequential`; layers between them have no weights. They are
/// those of a network with scale 4.
const INDICES: [(usize, &str); 5] = [
    (0, "conv_first"),
    (3, "conv_up1"),
    (6, "conv_up2"),
    (8, "conv_hr"),
    (10, "conv_last"),
];

/// `weights` under Real-ESRGAN's names.
pub(super) fn as_real_esrgan(weights: &Weights) -> Weights {
    weights.renamed(renamed)
}

/// The indices of convolutions in the first release's `Sequential`, if some are unknown: a network of another
/// scale.
pub(super) fn unknown_indices(weights: &Weights) -> Option<Vec<usize>> {
    let has = |name: &str| weights.contains(&format!("{name}.weight"));
    let mut indices: Vec<usize> = (0..64).filter(|index| has(&format!("model.{index}"))).collect();
    if indices.is_empty() {
        return None;
    }
    indices.extend(
        INDICES
            .iter()
            .filter(|(_, name)| has(name))
            .map(|(index, _)| index),
    );
    indices.sort_unstable();
    Some(indices)
}

/// Real-ESRGAN's name of the tensor `name`.
fn renamed(name: &str) -> Option<String> {
    let mut bare = name;
    while let Some(rest) = BEFORE.iter().find_map(|before| bare.strip_prefix(before)) {
        bare = rest;
    }
    let renamed = if let Some(rest) = bare.strip_prefix("RRDB_trunk.") {
        in_block(rest)
    } else if let Some(rest) = bare.strip_prefix("model.1.sub.") {
        in_block(rest).or_else(|| {
            // The convolution after the blocks.
            let (index, kind) = rest.split_once('.')?;
            (is_number(index) && is_kind(kind)).then(|| format!("conv_body.{kind}"))
        })
    } else if let Some(rest) = bare.strip_prefix("model.") {
        let (index, kind) = rest.split_once('.')?;
        let index: usize = index.parse().ok()?;
        let known = INDICES.iter().find(|(known, _)| *known == index);
        known
            .filter(|_| is_kind(kind))
            .map(|(_, name)| format!("{name}.{kind}"))
    } else {
        AROUND.iter().find_map(|(old, new)| {
            let kind = bare.strip_prefix(old)?.strip_prefix('.')?;
            Some(format!("{new}.{kind}"))
        })
    };
    renamed.or_else(|| (bare != name).then(|| bare.to_owned()))
}

/// `0.RDB1.conv2.weight`, or with an index in a `Sequential` as `0.RDB1.conv2.0.weight`, as Real-ESRGAN names
/// it.
fn in_block(name: &str) -> Option<String> {
    let mut parts = name.split('.');
    let (block, dense, conv) = (parts.next()?, parts.next()?.strip_prefix("RDB")?, parts.next()?);
    let kind = match (parts.next()?, parts.next()) {
        ("0", Some(kind)) => kind,
        (kind, None) => kind,
        _ => return None,
    };
    let is_one = is_number(block) && is_kind(kind) && parts.next().is_none();
    is_one.then(|| format!("body.{block}.rdb{dense}.{conv}.{kind}"))
}

fn is_kind(name: &str) -> bool {
    matches!(name, "weight" | "bias")
}

fn is_number(text: &str) -> bool {
    text.parse::<usize>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_release_become_those_of_the_last() {
        for (name, expected) in [
            ("model.0.weight", Some("conv_first.weight")),
            ("model.1.sub.7.RDB2.conv3.0.bias", Some("body.7.rdb2.conv3.bias")),
            ("model.1.sub.23.weight", Some("conv_body.weight")),
            ("model.3.bias", Some("conv_up1.bias")),
            ("model.10.weight", Some("conv_last.weight")),
            ("model.5.weight", None),
            ("RRDB_trunk.0.RDB1.conv5.weight", Some("body.0.rdb1.conv5.weight")),
            (
                "module.RRDB_trunk.0.RDB1.conv5.weight",
                Some("body.0.rdb1.conv5.weight"),
            ),
            ("trunk_conv.bias", Some("conv_body.bias")),
            ("module.HRconv.weight", Some("conv_hr.weight")),
            (
                "params_ema.body.0.rdb1.conv1.weight",
                Some("body.0.rdb1.conv1.weight"),
            ),
            ("params.module.conv_last.bias", Some("conv_last.bias")),
            ("conv_first.weight", None),
            ("body.0.weight", None),
            ("model.1.sub.x.weight", None),
        ] {
            assert_eq!(renamed(name).as_deref(), expected, "{name}");
        }
    }
}
