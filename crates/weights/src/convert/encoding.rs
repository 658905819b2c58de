//! The data types that models are converted to, and the values of a tensor in them.

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::Result;

/// The data type that the large tensors of a model are converted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// `bfloat16`.
    Bf16,
    /// Blocks of 32 values in 4 bits with a scale.
    Q4_0,
    /// Blocks of 32 values in 5 bits with a scale.
    Q5_0,
    /// Blocks of 32 values in 5 bits with a scale and a minimum.
    Q5_1,
    /// Blocks of 32 values in 8 bits with a scale.
    Q8_0,
    /// Blocks of 256 values in 4 bits with scales and minima in 6 bits.
    Q4K,
    /// Blocks of 256 values in 5 bits with scales and minima in 6 bits.
    Q5K,
    /// Blocks of 256 values in 6 bits with scales in 8 bits.
    Q6K,
}

impl Encoding {
    /// The encodings that a model can be converted to.
    pub const CHOICES: [Self; 8] = [
        Self::Bf16,
        Self::F16,
        Self::F32,
        Self::Q8_0,
        Self::Q6K,
        Self::Q5K,
        Self::Q4K,
        Self::Q4_0,
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q4_0 => "q4_0",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
        }
    }

    /// Whether the values are quantised.
    pub fn is_quantized(self) -> bool {
        self.ggml().is_some()
    }

    /// The type in the tensor library, of a quantised encoding.
    fn ggml(self) -> Option<GgmlDType> {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => None,
            Self::Q4_0 => Some(GgmlDType::Q4_0),
            Self::Q5_0 => Some(GgmlDType::Q5_0),
            Self::Q5_1 => Some(GgmlDType::Q5_1),
            Self::Q8_0 => Some(GgmlDType::Q8_0),
            Self::Q4K => Some(GgmlDType::Q4K),
            Self::Q5K => Some(GgmlDType::Q5K),
            Self::Q6K => Some(GgmlDType::Q6K),
        }
    }

    /// The number of the type in GGUF.
    pub(super) fn gguf_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
        }
    }

    /// The number of the whole file in GGUF's `general.file_type`, for a file whose large tensors have this
    /// type.
    pub(super) fn gguf_file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q5_0 => 8,
            Self::Q5_1 => 9,
            Self::Q4K => 14,
            Self::Q5K => 16,
            Self::Q6K => 18,
            Self::Bf16 => 32,
        }
    }

    /// The name of the type in safetensors; quantised types have none.
    pub(super) fn safetensors_type(self) -> Option<&'static str> {
        match self {
            Self::F32 => Some("F32"),
            Self::F16 => Some("F16"),
            Self::Bf16 => Some("BF16"),
            _ => None,
        }
    }

    /// The values of a block.
    fn block(self) -> usize {
        self.ggml().map_or(1, |ggml| ggml.block_size())
    }

    /// The bytes of `values`, which are whole blocks.
    pub(super) fn bytes(self, values: usize) -> u64 {
        let block = match self.ggml() {
            Some(ggml) => ggml.type_size(),
            None if self == Self::F32 => 4,
            None => 2,
        };
        (values / self.block() * block) as u64
    }

    /// This encoding for a tensor with rows of `row` values, or the next that its blocks divide: as in
    /// llama.cpp, rows that are no multiple of 256 get blocks of 32 with about a bit more.
    pub(super) fn fitting(self, row: usize) -> Self {
        let other = match self {
            Self::Q4K => Self::Q5_0,
            Self::Q5K => Self::Q5_1,
            Self::Q6K => Self::Q8_0,
            _ => Self::F16,
        };
        if row > 0 && row.is_multiple_of(self.block()) {
            self
        } else {
            match other {
                Self::F16 => Self::F16,
                other => other.fitting(row),
            }
        }
    }

    /// `values`, which are whole rows of `row` values, in this encoding.
    ///
    /// # Errors
    /// The tensor library fails.
    pub(super) fn encode(self, values: &[f32], row: usize) -> Result<Vec<u8>> {
        /// The values that a thread quantises at a time, unless a single row has more.
        const TASK: usize = 1 << 16;
        Ok(match self {
            Self::F32 => bytemuck::cast_slice(values).to_vec(),
            Self::F16 => narrowed(values, |value| f16::from_f32(value).to_le_bytes()),
            Self::Bf16 => narrowed(values, |value| bf16::from_f32(value).to_le_bytes()),
            _ => {
                let Some(ggml) = self.ggml() else {
                    return Ok(Vec::new());
                };
                let rows = (TASK / row.max(1)).max(1);
                let parts = values.par_chunks(rows * row.max(1)).map(|values| {
                    let tensor = Tensor::from_slice(values, (values.len() / row.max(1), row), &Device::Cpu)?;
                    Ok(QTensor::quantize(&tensor, ggml)?.data()?.into_owned())
                });
                parts.collect::<Result<Vec<_>>>()?.concat()
            }
        })
    }
}

fn narrowed(values: &[f32], narrow: impl Fn(f32) -> [u8; 2]) -> Vec<u8> {
    values.iter().flat_map(|&value| narrow(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_blocks_do_not_divide_get_another_encoding() {
        for (encoding, row, fitting) in [
            (Encoding::Q4K, 1536, Encoding::Q4K),
            (Encoding::Q4K, 2432, Encoding::Q5_0),
            (Encoding::Q5K, 320, Encoding::Q5_1),
            (Encoding::Q6K, 320, Encoding::Q8_0),
            (Encoding::Q6K, 40, Encoding::F16),
            (Encoding::Q4_0, 40, Encoding::F16),
            (Encoding::Bf16, 7, Encoding::Bf16),
        ] {
            assert_eq!(encoding.fitting(row), fitting, "{encoding:?} of {row}");
        }
    }

    #[test]
    fn encoded_values_have_the_bytes_that_are_counted() {
        let values: Vec<f32> = (0..1024).map(|index| (index as f32 * 0.37).sin()).collect();
        for encoding in [Encoding::CHOICES.as_slice(), &[Encoding::Q5_0, Encoding::Q5_1]].concat() {
            let bytes = encoding.encode(&values, 512).unwrap();
            assert_eq!(bytes.len() as u64, encoding.bytes(1024), "{encoding:?}");
            assert_eq!(bytes, encoding.encode(&values, 512).unwrap(), "{encoding:?}");
        }
    }
}
