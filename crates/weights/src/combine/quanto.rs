//! The 8-bit forms of optimum-quanto: integers or floats with a scale for each row.

use super::TensorSet;
use crate::quantized::Form;
use crate::{ElementType, Result};

pub(super) fn combine(set: &mut TensorSet) -> Result<()> {
    for weight in set.before("._data") {
        let (data, scales) = (format!("{weight}._data"), format!("{weight}._scale"));
        let Some(header) = set.get(&data).map(|stored| stored.header.clone()) else {
            continue;
        };
        let element_type = match header.element_type {
            ElementType::I8 => ElementType::ScaledI8,
            ElementType::F8E4M3 | ElementType::F8E5M2 => header.element_type,
            _ => return Err(set.unsupported(&data, "quanto in less than 8 bits")),
        };
        let form = Form::Scaled(set.scaled(&data, &scales)?);
        set.remove(&scales);
        // The scales of quantised activations.
        if let Some(layer) = weight.strip_suffix(".weight") {
            set.remove(&format!("{layer}.input_scale"));
            set.remove(&format!("{layer}.output_scale"));
        }
        set.replace(&data, weight, element_type, header.shape, form);
    }
    Ok(())
}
