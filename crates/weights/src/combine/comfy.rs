//! The forms of ComfyUI (`comfy.quant_ops`, comfy-kitchen) and of Black Forest Labs: 8-bit floats and integers
//! with scales, `mxfp8` and `nvfp4`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::TensorSet;
use crate::quantized::{Form, MicroFloat, Microscaled, ScaleOrder, UNIT};
use crate::{ElementType, Result, gguf, safetensors, torch};

/// The entry of a file's metadata that describes its layers.
const METADATA: &str = "_quantization_metadata";
/// The longest name of a format in messages.
const LONGEST_NAME: usize = 64;

/// The description of a layer.
#[derive(Debug, Clone, Deserialize)]
struct Layer {
    format: String,
    #[serde(default)]
    convrot: bool,
    convrot_groupsize: Option<usize>,
}

#[derive(Deserialize)]
struct Layers {
    layers: BTreeMap<String, Layer>,
}

pub(super) fn combine(set: &mut TensorSet) -> Result<()> {
    let mut described = BTreeMap::new();
    for name in set.before(".comfy_quant") {
        let layer: Layer = set.description(&format!("{name}.weight"), &format!("{name}.comfy_quant"))?;
        described.insert(name, layer);
    }
    let scaled = set.before(".weight_scale");
    if scaled.iter().any(|name| !described.contains_key(name)) {
        for (name, layer) in of_metadata(set)? {
            described.entry(name).or_insert(layer);
        }
    }
    for (name, layer) in &described {
        combine_described(set, name, layer)?;
    }
    for name in scaled.iter().filter(|name| !described.contains_key(*name)) {
        combine_plain(set, name)?;
    }
    for name in set.before(".scale_weight") {
        let weight = format!("{name}.weight");
        if is_float8(set.element_type(&weight)) {
            scale(set, &weight, &format!("{name}.scale_weight"), None)?;
            set.remove(&format!("{name}.scale_weight"));
            set.remove(&format!("{name}.scale_input"));
        }
    }
    // It says that scales are there, which have been found.
    let markers = set
        .tensors
        .keys()
        .filter(|name| name.rsplit('.').next() == Some("scaled_fp8"));
    for name in markers.cloned().collect::<Vec<_>>() {
        set.remove(&name);
    }
    Ok(())
}

/// The descriptions in the metadata of the files.
fn of_metadata(set: &TensorSet) -> Result<BTreeMap<String, Layer>> {
    let mut found = BTreeMap::new();
    for source in set.sources() {
        if torch::wrote(source)? || gguf::wrote(source)? {
            continue;
        }
        // Other entries of this name are no descriptions.
        let metadata = safetensors::metadata(source)?.remove(METADATA);
        let layers = metadata.and_then(|json| serde_json::from_str::<Layers>(&json).ok());
        found.extend(layers.map(|layers| layers.layers).unwrap_or_default());
    }
    Ok(found)
}

/// Combines the tensors of a layer that is described.
fn combine_described(set: &mut TensorSet, name: &str, layer: &Layer) -> Result<()> {
    let (weight, scales) = (format!("{name}.weight"), format!("{name}.weight_scale"));
    let Some(found) = set.element_type(&weight) else {
        return Ok(());
    };
    match layer.format.as_str() {
        "float8_e4m3fn" | "float8_e5m2" => {
            // Without a scale they are plain.
            if is_float8(Some(found)) && set.get(&scales).is_some() {
                scale(set, &weight, &scales, None)?;
            }
        }
        "int8_tensorwise" => {
            if found != ElementType::I8 {
                return Err(set.bad(
                    &weight,
                    format!("it is described as int8_tensorwise and stored as {found}"),
                ));
            }
            scale(set, &weight, &scales, rotation(set, &weight, layer)?)?;
        }
        "mxfp8" => microscaled(set, name, MicroFloat::Mxfp8, ScaleOrder::Tiles)?,
        "nvfp4" => microscaled(
            set,
            name,
            MicroFloat::Nvfp4 { high_first: true },
            ScaleOrder::Tiles,
        )?,
        other => {
            let method: String = other.chars().take(LONGEST_NAME).collect();
            return Err(set.unsupported(&weight, method));
        }
    }
    remove_sidecars(set, name);
    Ok(())
}

/// Combines the tensors of a layer without description, by their types.
fn combine_plain(set: &mut TensorSet, name: &str) -> Result<()> {
    let (weight, scales) = (format!("{name}.weight"), format!("{name}.weight_scale"));
    let types = (set.element_type(&weight), set.element_type(&scales));
    match types {
        (Some(ElementType::U8), Some(ElementType::F8E4M3)) => {
            microscaled(
                set,
                name,
                MicroFloat::Nvfp4 { high_first: false },
                ScaleOrder::Rows,
            )?;
        }
        (Some(ElementType::F8E4M3), Some(ElementType::U8 | ElementType::F8E8M0)) => {
            return Err(set.unsupported(&weight, "mxfp8 without a description of its scales"));
        }
        (Some(ElementType::I8 | ElementType::F8E4M3 | ElementType::F8E5M2), _) => {
            scale(set, &weight, &scales, None)?;
        }
        _ => return Ok(()),
    }
    remove_sidecars(set, name);
    Ok(())
}

/// Removes what was combined with a weight, and the scale of its inputs, which are not quantised here.
fn remove_sidecars(set: &mut TensorSet, name: &str) {
    for kind in ["weight_scale", "weight_scale_2", "input_scale", "comfy_quant"] {
        set.remove(&format!("{name}.{kind}"));
    }
}

fn is_float8(element_type: Option<ElementType>) -> bool {
    matches!(element_type, Some(ElementType::F8E4M3 | ElementType::F8E5M2))
}

/// 8-bit numbers with a scale for the tensor or for each row.
fn scale(set: &mut TensorSet, weight: &str, scales: &str, rotated: Option<usize>) -> Result<()> {
    let mut scaled = set.scaled(weight, scales)?;
    scaled.rotated = rotated;
    let Some(header) = set.get(weight).map(|stored| stored.header.clone()) else {
        return Ok(());
    };
    let element_type = match header.element_type {
        ElementType::I8 => ElementType::ScaledI8,
        other => other,
    };
    set.replace(
        weight,
        weight.to_owned(),
        element_type,
        header.shape,
        Form::Scaled(scaled),
    );
    Ok(())
}

/// The number of inputs in the groups that were rotated.
fn rotation(set: &TensorSet, weight: &str, layer: &Layer) -> Result<Option<usize>> {
    if !layer.convrot {
        return Ok(None);
    }
    let group = layer.convrot_groupsize.unwrap_or(UNIT);
    let shape = set.get(weight).map(|stored| stored.header.shape.as_slice());
    let columns = shape.and_then(|shape| shape.last()).copied().unwrap_or(0);
    if !matches!(group, 4 | 16 | 64 | 256) || !columns.is_multiple_of(group) {
        let method = format!("int8_tensorwise with rotated groups of {group} among {columns} inputs");
        return Err(set.unsupported(weight, method));
    }
    Ok(Some(group))
}

/// Small floats with small scales.
fn microscaled(set: &mut TensorSet, name: &str, numbers: MicroFloat, order: ScaleOrder) -> Result<()> {
    let (weight, scales) = (format!("{name}.weight"), format!("{name}.weight_scale"));
    let whole = format!("{name}.weight_scale_2");
    let Some(header) = set.get(&weight).map(|stored| stored.header.clone()) else {
        return Ok(());
    };
    let (element_type, stored_as, pairs) = match numbers {
        MicroFloat::Mxfp8 => (ElementType::Mxfp8, ElementType::F8E4M3, 1),
        MicroFloat::Nvfp4 { .. } => (ElementType::Nvfp4, ElementType::U8, 2),
    };
    let bad = |reason: String| set.bad(&weight, reason);
    let &[rows, columns] = header.shape.as_slice() else {
        return Err(bad(format!(
            "{element_type} is for matrices, and its shape is {:?}",
            header.shape
        )));
    };
    let columns = columns.saturating_mul(pairs);
    if header.element_type != stored_as || columns == 0 || !columns.is_multiple_of(numbers.group()) {
        let reason = format!(
            "{element_type} is rows of whole groups in {stored_as}, and it is {:?} of {}",
            header.shape, header.element_type
        );
        return Err(bad(reason));
    }
    let count = order.count(rows, columns / numbers.group());
    let found = set
        .sidecar(&scales)
        .ok_or_else(|| bad(format!("it has no `{scales}`")))?;
    let is_byte = found.header.bytes == found.count() as u64;
    if !is_byte || Some(found.count()) != count {
        let reason = format!(
            "its scales are {:?} of {}, and {} are needed",
            found.header.shape,
            found.header.element_type,
            count.unwrap_or(usize::MAX)
        );
        return Err(bad(reason));
    }
    let whole = match set.get(&whole) {
        Some(_) => Some(set.floats(&weight, &whole, 1)?),
        None if numbers == MicroFloat::Mxfp8 => None,
        None => return Err(bad(format!("it has no `{whole}`"))),
    };
    let form = Microscaled {
        numbers,
        scales: found,
        order,
        columns,
        whole,
    };
    let shape = vec![rows, columns];
    set.replace(
        &weight,
        weight.clone(),
        element_type,
        shape,
        Form::Microscaled(form),
    );
    Ok(())
}
