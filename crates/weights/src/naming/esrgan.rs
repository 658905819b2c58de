//! ESRGAN's networks in the names of Real-ESRGAN, and of the two releases before it.

use super::row::{Row, module};

/// Networks that were trained on several GPUs have `module.` before each name, and files without nested
/// tables the name of the table of the network. Of the last weights and their moving average the average is
/// used, which comes later.
pub(super) const PREFIXES: &[&str] = &["module.", "state_dict.", "params.", "params_ema."];

/// The first release names layers by their index in a `Sequential`, in which layers without weights count
/// too. The indices are those of a network with scale 4.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    // The first release.
    module("conv_first",                         "model.0"),
    module("body.{block}.rdb{dense}.conv{conv}", "model.1.sub.{block}.RDB{dense}.conv{conv}.0"),
    module("body.{block}.rdb{dense}.conv{conv}", "model.1.sub.{block}.RDB{dense}.conv{conv}"),
    module("conv_body",                          "model.1.sub.{after_blocks}"),
    module("conv_up1",                           "model.3"),
    module("conv_up2",                           "model.6"),
    module("conv_hr",                            "model.8"),
    module("conv_last",                          "model.10"),
    // The second release.
    module("body.{block}.rdb{dense}.conv{conv}", "RRDB_trunk.{block}.RDB{dense}.conv{conv}.0"),
    module("body.{block}.rdb{dense}.conv{conv}", "RRDB_trunk.{block}.RDB{dense}.conv{conv}"),
    module("conv_body",                          "trunk_conv"),
    module("conv_up1",                           "upconv1"),
    module("conv_up2",                           "upconv2"),
    module("conv_hr",                            "HRconv"),
];

#[cfg(test)]
mod tests {
    use crate::Naming;

    #[test]
    fn names_of_every_release_become_those_of_the_last() {
        let translation = Naming::ESRGAN.translation([]);
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
            assert_eq!(translation.renamed(name).as_deref(), expected, "{name}");
        }
    }
}
