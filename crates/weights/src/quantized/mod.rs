//! Values that files store quantised, where several elements share bytes or a scale: their forms, and decoding
//! any range of them.
//!
//! Forms that need no other tensor are decoded by [`sd_ops::Quantization`]. The rows of most others can be held
//! as it decodes them too.
//!
//! A range is decoded a piece at a time. The bytes of a piece, and the scales that lie in tensors of their own,
//! are read when they are needed and held no longer than that.

mod four_bits;
mod held;
mod microscaled;
mod rows;
mod scaled;
mod sidecar;

use rayon::prelude::*;
use sd_ops::Quantization;

pub(crate) use four_bits::{FourBits, Magnitudes};
pub(crate) use microscaled::{MicroFloat, Microscaled, ScaleOrder};
pub(crate) use scaled::Scaled;
pub(crate) use sidecar::Sidecar;

use crate::header::Block;
use crate::source::Source;
use crate::{ElementType, Result, TensorHeader};

/// The number of elements that are decoded at once. The blocks of all forms are as long, or a whole number of
/// them is.
pub(crate) const UNIT: usize = 256;
/// The number of elements that are read at a time.
const PIECE: usize = 1 << 20;
/// The number of elements that a thread decodes at a time.
const TASK: usize = 1 << 16;

/// The values of a quantised tensor, in the order of the file.
#[derive(Debug)]
pub(crate) struct Quantized {
    element_type: ElementType,
    /// The offset of the first byte.
    offset: u64,
    /// The number of values.
    count: usize,
    form: Form,
}

/// How values are computed from bytes.
#[derive(Debug)]
pub(crate) enum Form {
    /// Blocks of ggml, which hold their scales, or 8-bit floats without a scale.
    Rows(Quantization),
    /// 8-bit numbers with a scale for the tensor or for each row.
    Scaled(Scaled),
    /// 4 bits that select a level.
    FourBits(FourBits),
    /// Small floats with small scales.
    Microscaled(Microscaled),
}

/// The bytes and scales of a range of values, read from the file.
trait Loaded: Sync {
    /// Fills `values`, at most [`UNIT`], with those from index `first` on, a multiple of [`UNIT`].
    fn decode(&self, first: usize, values: &mut [f32]);
}

/// Whether elements of this type are decoded here.
pub(crate) fn is_quantized(element_type: ElementType) -> bool {
    use ElementType as E;
    rows::form(element_type).is_some()
        || matches!(element_type, E::ScaledI8 | E::Nf4 | E::Fp4 | E::Mxfp8 | E::Nvfp4)
}

/// The scratch bytes of decoding `count` elements.
pub(crate) fn decoding_takes(count: usize, element_type: ElementType) -> usize {
    let count = count.next_multiple_of(UNIT).min(PIECE);
    let bytes = element_type.bytes_of(count as u64).unwrap_or(u64::MAX) as usize;
    // Scales in tensors of their own are one for 16 elements or fewer.
    let scales = if element_type.block().elements >= 32 {
        0
    } else {
        count / 4
    };
    bytes + scales
}

impl Quantized {
    /// The values of the tensor of `header`, if their form is quantised and needs no other tensor.
    pub(crate) fn plain(header: &TensorHeader) -> Option<Self> {
        let form = rows::form(header.element_type)?;
        Some(Self::new(header, Form::Rows(form)))
    }

    /// The values of the tensor of `header`, which are computed as `form` says.
    pub(crate) fn new(header: &TensorHeader, form: Form) -> Self {
        Self {
            element_type: header.element_type,
            offset: header.offset,
            count: header.shape.iter().product(),
            form,
        }
    }

    /// The tensors beside this one that it is decoded with.
    pub(crate) fn sidecars(&self) -> Vec<&Sidecar> {
        match &self.form {
            Form::Rows(_) => Vec::new(),
            Form::Scaled(scaled) => vec![&scaled.scales],
            Form::FourBits(FourBits {
                levels, magnitudes, ..
            }) => match magnitudes {
                Magnitudes::Floats(floats) => vec![levels, floats],
                Magnitudes::Nested {
                    bytes,
                    levels: nested,
                    scales,
                    ..
                } => vec![levels, bytes, nested, scales],
            },
            Form::Microscaled(form) => std::iter::once(&form.scales).chain(&form.whole).collect(),
        }
    }

    /// The offset in the file and the number of the bytes that hold the `count` values from `first` on. They
    /// begin and end with whole blocks.
    pub(crate) fn bytes_of(&self, first: usize, count: usize) -> (u64, u64) {
        let Block { elements, bytes } = self.element_type.block();
        let start = first as u64 / elements * bytes;
        let end = (first as u64 + count as u64).div_ceil(elements) * bytes;
        (self.offset + start, end - start)
    }

    /// The bytes of the values from `first` on, a multiple of [`UNIT`].
    fn read(&self, source: &Source, first: usize, count: usize) -> Result<Vec<u8>> {
        let (offset, length) = self.bytes_of(first, count);
        let mut bytes = vec![0; length as usize];
        source.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads what the values from `first` on, a multiple of [`UNIT`], are decoded from.
    fn load(&self, source: &Source, first: usize, count: usize) -> Result<Box<dyn Loaded>> {
        let bytes = self.read(source, first, count)?;
        Ok(match &self.form {
            Form::Rows(form) => Box::new(rows::Blocks::new(*form, first, bytes)),
            Form::Scaled(form) => Box::new(form.load(self.element_type, first, bytes)?),
            Form::FourBits(form) => Box::new(form.load(self.element_type, first, count, bytes)?),
            Form::Microscaled(form) => Box::new(form.load(first, count, bytes)?),
        })
    }

    /// Fills `values` with those from index `first` on. Each is decoded as a 32-bit float, which `narrow`
    /// rounds once.
    pub(crate) fn fill<T: Send>(
        &self,
        source: &Source,
        values: &mut [T],
        first: usize,
        narrow: impl Fn(f32) -> T + Sync,
    ) -> Result<()> {
        let (mut at, mut rest) = (first, values);
        while !rest.is_empty() {
            let (piece, later) = rest.split_at_mut(rest.len().min(PIECE - at % PIECE));
            let start = at / UNIT * UNIT;
            let end = (at + piece.len()).next_multiple_of(UNIT).min(self.count);
            let loaded = self.load(source, start, end.saturating_sub(start))?;
            let (next, tasks) = (at + piece.len(), tasks(piece, at));
            let decode = |(first, values): (usize, &mut [T])| self.decode(&*loaded, values, first, &narrow);
            match tasks.len() {
                1 => tasks.into_iter().for_each(decode),
                _ => tasks.into_par_iter().for_each(decode),
            }
            (at, rest) = (next, later);
        }
        Ok(())
    }

    /// Fills `values` with those from index `first` on, of which `loaded` has all.
    fn decode<T>(&self, loaded: &dyn Loaded, values: &mut [T], first: usize, narrow: &impl Fn(f32) -> T) {
        let mut unit = [0.0; UNIT];
        let (mut at, mut rest) = (first, values);
        while !rest.is_empty() {
            let (start, skipped) = (at / UNIT * UNIT, at % UNIT);
            let (part, later) = rest.split_at_mut(rest.len().min(UNIT - skipped));
            let unit = &mut unit[..UNIT.min(self.count.saturating_sub(start))];
            loaded.decode(start, unit);
            for (value, &decoded) in part.iter_mut().zip(unit.iter().skip(skipped)) {
                *value = narrow(decoded);
            }
            at += part.len();
            rest = later;
        }
    }
}

/// Splits `values`, the first of which has the index `first`, where indices are multiples of [`TASK`].
fn tasks<T>(values: &mut [T], first: usize) -> Vec<(usize, &mut [T])> {
    let (head, rest) = values.split_at_mut(values.len().min(TASK - first % TASK));
    let after = first + head.len();
    let later = rest.chunks_mut(TASK).enumerate();
    std::iter::once((first, head))
        .chain(later.map(|(index, values)| (after + index * TASK, values)))
        .collect()
}

#[cfg(test)]
mod tests;
