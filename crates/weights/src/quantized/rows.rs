//! Values that are decoded from their own bytes alone, as [`Quantization`] decodes the rows of projections.

use sd_ops::Quantization;

use super::Loaded;
use crate::ElementType;

/// The form of the blocks of ggml, and of 8-bit floats without a scale. `None` for other types.
pub(super) fn form(element_type: ElementType) -> Option<Quantization> {
    use ElementType as E;
    Some(match element_type {
        E::Q4_0 => Quantization::Q4_0,
        E::Q4_1 => Quantization::Q4_1,
        E::Q5_0 => Quantization::Q5_0,
        E::Q5_1 => Quantization::Q5_1,
        E::Q8_0 => Quantization::Q8_0,
        E::Q2K => Quantization::Q2K,
        E::Q3K => Quantization::Q3K,
        E::Q4K => Quantization::Q4K,
        E::Q5K => Quantization::Q5K,
        E::Q6K => Quantization::Q6K,
        E::Iq4Nl => Quantization::Iq4Nl,
        E::Iq4Xs => Quantization::Iq4Xs,
        E::F8E4M3 => Quantization::E4M3,
        E::F8E5M2 => Quantization::E5M2,
        _ => return None,
    })
}

/// Blocks from a value on.
pub(super) struct Blocks {
    form: Quantization,
    /// The index of the first value.
    first: usize,
    bytes: Vec<u8>,
}

impl Blocks {
    pub(super) fn new(form: Quantization, first: usize, bytes: Vec<u8>) -> Self {
        Self { form, first, bytes }
    }
}

impl Loaded for Blocks {
    fn decode(&self, first: usize, values: &mut [f32]) {
        let block = self.form.block_values();
        let start = (first - self.first) / block * self.form.block_bytes();
        let bytes = self.bytes.get(start..).unwrap_or_default();
        // The last block of a tensor may lack values.
        let blocks = (values.len() / block).min(bytes.len() / self.form.block_bytes());
        self.form.decode(bytes, 0, &mut values[..blocks * block]);
    }
}
