//! Forms that are not read, by the names of their tensors.

use super::TensorSet;
use crate::{ElementType, Result};

/// What names of tensors end with, and the method that has such names. The first that matches counts.
const ENDINGS: [(&str, &str); 12] = [
    (".wscales", "SVDQuant (nunchaku)"),
    (".qzeros", "AWQ or GPTQ"),
    (".g_idx", "GPTQ or AutoRound"),
    ("._data._data", "quanto in 4 bits"),
    (".weight_packed", "compressed-tensors"),
    ("_quantizer._scale", "ModelOpt"),
    ("_quantizer._amax", "ModelOpt"),
    ("_weight_qdata", "torchao"),
    (".weight:qdata", "torchao"),
    (".weight:_data", "torchao"),
    (".weight._packed", "quanto in 4 bits"),
    (".qweight", "integers of a library of its own"),
];

pub(super) fn check(set: &TensorSet) -> Result<()> {
    for (ending, method) in ENDINGS {
        if let Some(name) = set.tensors.keys().find(|name| name.ends_with(ending)) {
            return Err(set.unsupported(name, method));
        }
    }
    for layer in set.before(".scale") {
        let weight = format!("{layer}.weight");
        // A norm has a scale too, and no weight of integers.
        if matches!(set.element_type(&weight), Some(ElementType::U8 | ElementType::I8)) {
            return Err(set.unsupported(&weight, "SDNQ"));
        }
    }
    Ok(())
}
