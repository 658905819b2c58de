//! Writing the values of tensors, a stretch at a time.

use std::io::Write;
use std::path::Path;

use super::encoding::Encoding;
use super::input::Input;
use super::names::{OutputTensor, Piece};
use super::{Progress, unwritable};
use crate::naming::Layout;
use crate::{ElementType, Result};

/// The values of a stretch, unless a single row has more.
const STRETCH: usize = 1 << 20;

/// The encoding of `tensor`: what the user wants for large matrices, the type of the source for others.
pub(super) fn encoding(tensor: &OutputTensor, input: &Input, wanted: Option<Encoding>) -> Encoding {
    let row = tensor.shape.last().copied().unwrap_or(0);
    match wanted {
        Some(wanted) if !wanted.is_quantized() => wanted,
        Some(wanted) if tensor.is_large => wanted.fitting(row),
        _ => stored(tensor, input),
    }
}

/// The type that the source stores a tensor in; of quantised tensors the one that they are widened to.
fn stored(tensor: &OutputTensor, input: &Input) -> Encoding {
    let piece = tensor.pieces.first();
    let header = piece.and_then(|piece| input.networks[piece.network].checkpoint.header(&piece.tensor));
    match header.map(|header| header.element_type) {
        Some(ElementType::F32 | ElementType::F64) => Encoding::F32,
        Some(ElementType::F16) => Encoding::F16,
        _ => Encoding::Bf16,
    }
}

/// Writes the values of `tensor` to `target`, the file at `path`, in `encoding`.
///
/// # Errors
/// The source cannot be read, the target cannot be written, or the caller ends the conversion.
pub(super) fn write(
    tensor: &OutputTensor,
    input: &Input,
    encoding: Encoding,
    target: &mut dyn Write,
    path: &Path,
    progress: &mut Progress<'_>,
) -> Result<u64> {
    let row = tensor.shape.last().copied().unwrap_or(1).max(1);
    let mut bytes = 0;
    for piece in &tensor.pieces {
        let count = count(input, piece);
        let stretch = (STRETCH / row).max(1) * row;
        for first in (0..count).step_by(stretch) {
            let mut values = vec![0.0; stretch.min(count - first)];
            fill(input, piece, first, &mut values)?;
            let encoded = encoding.encode(&values, row)?;
            target.write_all(&encoded).map_err(unwritable(path))?;
            bytes += encoded.len() as u64;
            progress.add(values.len())?;
        }
    }
    Ok(bytes)
}

fn count(input: &Input, piece: &Piece) -> usize {
    let header = input.networks[piece.network].checkpoint.header(&piece.tensor);
    header.map_or(0, |header| header.shape.iter().product())
}

/// Reads the values of `piece` from `first` on, in the order of the target.
fn fill(input: &Input, piece: &Piece, first: usize, values: &mut [f32]) -> Result<()> {
    let checkpoint = &input.networks[piece.network].checkpoint;
    // Both are their own inverses.
    let layout = match piece.layout {
        Layout::HalvesSwapped | Layout::Transposed => piece.layout,
        Layout::Same | Layout::Part { .. } => Layout::Same,
    };
    checkpoint.fill_laid_out(&piece.tensor, layout, first, values)
}
