//! Values of 16 bits as floats of 32.

use std::ops::Range;

use half::bf16;
use half::slice::HalfFloatSliceExt;

use super::kernel::Values;
use super::scratch::with_scratch;
use super::vector::vectorised;

/// Gives `use_them` a range of values as 32-bit floats: in place where they are stored so, else widened into
/// a buffer.
pub(crate) fn with_floats<R>(
    values: Values<'_>,
    range: Range<usize>,
    use_them: impl FnOnce(&[f32]) -> R,
) -> R {
    match values {
        Values::F32(values) => use_them(&values[range]),
        Values::Bf16(values) => with_scratch(range.len(), |widened| {
            widen_bf16(&values[range], widened);
            use_them(widened)
        }),
        Values::F16(values) => with_scratch(range.len(), |widened| {
            // With the processor's own instruction where it has one.
            values[range].convert_to_f32_slice(widened);
            use_them(widened)
        }),
    }
}

vectorised! {
    fn widen_bf16(from: &[bf16], to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(from.to_bits()) << 16);
        }
    }
}
