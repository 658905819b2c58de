//! Tensors as the headers of files describe them, and the limits on what a header may claim.

use std::fmt;

use serde::Deserialize;

/// The maximum number of tensors of a file. Full models have a few thousand, LoRAs of all their layers twice
/// as many.
pub(crate) const MAXIMUM_TENSORS: usize = 1 << 16;
/// The maximum number of dimensions of a tensor.
pub(crate) const MAXIMUM_DIMENSIONS: usize = 8;

/// The form in which a file stores the elements of a tensor: as numbers of their own, or quantised, where
/// several elements share bytes or a scale.
#[doc(alias = "dtype")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[allow(missing_docs)]
pub enum ElementType {
    #[serde(rename = "BOOL")]
    Bool,
    U8,
    I8,
    I16,
    U16,
    F16,
    #[serde(rename = "BF16")]
    Bf16,
    #[serde(rename = "F8_E4M3")]
    F8E4M3,
    #[serde(rename = "F8_E5M2")]
    F8E5M2,
    #[serde(rename = "F8_E8M0")]
    F8E8M0,
    #[serde(rename = "F8_E4M3FNUZ")]
    F8E4M3Fnuz,
    #[serde(rename = "F8_E5M2FNUZ")]
    F8E5M2Fnuz,
    #[serde(rename = "F6_E2M3")]
    F6E2M3,
    #[serde(rename = "F6_E3M2")]
    F6E3M2,
    F4,
    I32,
    U32,
    F32,
    F64,
    I64,
    U64,
    C64,
    /// Blocks of ggml, as all that begin with `Q` or `Iq`.
    #[serde(skip)]
    Q4_0,
    #[serde(skip)]
    Q4_1,
    #[serde(skip)]
    Q5_0,
    #[serde(skip)]
    Q5_1,
    #[serde(skip)]
    Q8_0,
    #[serde(skip)]
    Q2K,
    #[serde(skip)]
    Q3K,
    #[serde(skip)]
    Q4K,
    #[serde(skip)]
    Q5K,
    #[serde(skip)]
    Q6K,
    #[serde(skip)]
    Iq4Nl,
    #[serde(skip)]
    Iq4Xs,
    /// 8-bit integers with a scale for each tensor or row.
    #[serde(skip)]
    ScaledI8,
    /// 4 bits an element, as bitsandbytes writes `nf4` and `fp4`.
    #[serde(skip)]
    Nf4,
    #[serde(skip)]
    Fp4,
    /// E4M3 with a power of two as scale for each 32 elements of a row.
    #[serde(skip)]
    Mxfp8,
    /// E2M1 with a scale for each 16 elements of a row.
    #[serde(skip)]
    Nvfp4,
}

/// The unit in which a form stores elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// The number of elements.
    pub(crate) elements: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

impl ElementType {
    /// The bytes of `count` elements, without scales that are tensors of their own. Elements that share a
    /// block count as a whole block. `None` for a number beyond 64 bits.
    pub fn bytes_of(self, count: u64) -> Option<u64> {
        let Block { elements, bytes } = self.block();
        count.div_ceil(elements).checked_mul(bytes)
    }

    /// The unit in which elements are stored.
    pub(crate) fn block(self) -> Block {
        let (elements, bytes) = match self {
            Self::Bool | Self::U8 | Self::I8 | Self::ScaledI8 => (1, 1),
            Self::F8E4M3
            | Self::F8E5M2
            | Self::F8E8M0
            | Self::F8E4M3Fnuz
            | Self::F8E5M2Fnuz
            | Self::Mxfp8 => (1, 1),
            Self::I16 | Self::U16 | Self::F16 | Self::Bf16 => (1, 2),
            Self::I32 | Self::U32 | Self::F32 => (1, 4),
            Self::F64 | Self::I64 | Self::U64 | Self::C64 => (1, 8),
            Self::F6E2M3 | Self::F6E3M2 => (4, 3),
            Self::F4 | Self::Nf4 | Self::Fp4 | Self::Nvfp4 => (2, 1),
            Self::Q4_0 | Self::Iq4Nl => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q2K => (256, 84),
            Self::Q3K => (256, 110),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
            Self::Iq4Xs => (256, 136),
        };
        Block { elements, bytes }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
            Self::Iq4Nl => "IQ4_NL",
            Self::Iq4Xs => "IQ4_XS",
            Self::ScaledI8 => "INT8",
            Self::Nf4 => "NF4",
            Self::Fp4 => "FP4",
            Self::Mxfp8 => "MXFP8",
            Self::Nvfp4 => "NVFP4",
            _ => return fmt::Debug::fmt(self, formatter),
        };
        formatter.write_str(name)
    }
}

/// One tensor as the header of its file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorHeader {
    /// The data type of the elements.
    pub element_type: ElementType,
    /// The shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// The offset of the first byte from the start of the file.
    pub offset: u64,
    /// The number of bytes.
    pub bytes: u64,
}
