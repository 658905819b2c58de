//! Tensors as the headers of files describe them, and the limits on what a header may claim.

use std::fmt;

use serde::Deserialize;

/// The maximum number of tensors of a file. Full models have a few thousand, LoRAs of all their layers twice
/// as many.
pub(crate) const MAXIMUM_TENSORS: usize = 1 << 16;
/// The maximum number of dimensions of a tensor.
pub(crate) const MAXIMUM_DIMENSIONS: usize = 8;

/// The data type in which a file stores the elements of a tensor.
#[doc(alias = "dtype")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
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
    I32,
    U32,
    F32,
    F64,
    I64,
    U64,
}

impl ElementType {
    /// Bytes of one element.
    pub fn size(self) -> u64 {
        match self {
            Self::Bool | Self::U8 | Self::I8 | Self::F8E4M3 | Self::F8E5M2 => 1,
            Self::I16 | Self::U16 | Self::F16 | Self::Bf16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
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
