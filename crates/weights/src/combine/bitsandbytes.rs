//! The forms of bitsandbytes, as its `QuantState` and `Linear8bitLt` save them: 4 bits (`nf4`, `fp4`) and 8 bits.

use serde::Deserialize;

use super::TensorSet;
use crate::quantized::{Form, FourBits, Magnitudes, Scaled};
use crate::{ElementType, Result};

/// What precedes the kind in the name of the description.
const STATE: &str = ".quant_state.bitsandbytes__";
/// 1/127, as bitsandbytes multiplies by it.
const OF_127: f32 = 7.874_016e-3;

/// The description of a tensor.
#[derive(Deserialize)]
struct State {
    blocksize: usize,
    shape: Vec<usize>,
    nested_blocksize: Option<usize>,
    nested_offset: Option<f64>,
}

pub(super) fn combine(set: &mut TensorSet) -> Result<()> {
    let states = set.tensors.keys().filter_map(|name| {
        let (weight, kind) = name.split_once(STATE)?;
        Some((weight.to_owned(), kind.to_owned()))
    });
    for (weight, kind) in states.collect::<Vec<_>>() {
        four_bits(set, &weight, &kind)?;
    }
    for layer in set.before(".SCB") {
        eight_bits(set, &layer)?;
    }
    Ok(())
}

fn four_bits(set: &mut TensorSet, weight: &str, kind: &str) -> Result<()> {
    let element_type = match kind {
        "nf4" => ElementType::Nf4,
        "fp4" => ElementType::Fp4,
        _ => return Err(set.unsupported(weight, format!("bitsandbytes {kind}"))),
    };
    let description = format!("{weight}{STATE}{kind}");
    let state: State = set.description(weight, &description)?;
    let beside = |name: &str| format!("{weight}.{name}");
    let is_block = |size: usize| size.is_power_of_two() && (32..=4096).contains(&size);
    let product = |product: usize, &size: &usize| product.checked_mul(size);
    let count = state.shape.iter().try_fold(1, product).unwrap_or(usize::MAX);
    let bytes = set.get(weight).map(|stored| stored.header.bytes);
    if bytes != Some(count.div_ceil(2) as u64) || !is_block(state.blocksize) {
        let reason = format!(
            "its {} bytes are not the shape {:?} in blocks of {}",
            bytes.unwrap_or(0),
            state.shape,
            state.blocksize
        );
        return Err(set.bad(weight, reason));
    }
    let blocks = count.div_ceil(state.blocksize);
    let absmax = beside("absmax");
    let magnitudes = match set.element_type(&absmax) {
        Some(ElementType::U8) => {
            let block = state.nested_blocksize.filter(|&size| is_block(size));
            let (Some(block), Some(offset)) = (block, state.nested_offset) else {
                return Err(set.bad(weight, "its description has no blocks of magnitudes"));
            };
            let bytes = set.sidecar(&absmax).filter(|bytes| bytes.count() == blocks);
            Magnitudes::Nested {
                bytes: bytes.ok_or_else(|| set.bad(weight, format!("it has not {blocks} magnitudes")))?,
                levels: set.floats(weight, &beside("nested_quant_map"), 256)?,
                scales: set.floats(weight, &beside("nested_absmax"), blocks.div_ceil(block))?,
                block,
                offset: offset as f32,
            }
        }
        _ => Magnitudes::Floats(set.floats(weight, &absmax, blocks)?),
    };
    let form = FourBits {
        levels: set.floats(weight, &beside("quant_map"), 16)?,
        magnitudes,
        block: state.blocksize,
    };
    for name in ["absmax", "quant_map", "nested_absmax", "nested_quant_map"] {
        set.remove(&beside(name));
    }
    set.remove(&description);
    set.replace(
        weight,
        weight.to_owned(),
        element_type,
        state.shape,
        Form::FourBits(form),
    );
    Ok(())
}

fn eight_bits(set: &mut TensorSet, layer: &str) -> Result<()> {
    let (weight, scales) = (format!("{layer}.weight"), format!("{layer}.SCB"));
    let format = format!("{layer}.weight_format");
    if set.element_type(&weight) != Some(ElementType::I8) {
        return Ok(());
    }
    // Row after row is 0. The others are orders of values for single GPUs of earlier versions.
    if let Some(found) = set.get(&format) {
        let mut order = [0];
        if found.header.bytes == 1 {
            found.source.read_at(found.header.offset, &mut order)?;
        }
        if order != [0] {
            return Err(set.unsupported(&weight, "bitsandbytes in 8 bits in the order of a GPU"));
        }
    }
    let shape = set
        .get(&weight)
        .map(|stored| stored.header.shape.clone())
        .unwrap_or_default();
    let form = Form::Scaled(Scaled {
        factor: Some(OF_127),
        ..set.scaled(&weight, &scales)?
    });
    set.remove(&scales);
    set.remove(&format);
    set.replace(&weight, weight.clone(), ElementType::ScaledI8, shape, form);
    Ok(())
}
