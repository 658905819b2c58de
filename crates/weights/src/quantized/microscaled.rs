//! 8-bit and 4-bit floats with a small scale for each 32 or 16 values of a row: `mxfp8` (OCP Microscaling
//! Formats, 2023) and `nvfp4` of NVIDIA.

use sd_ops::{E2M1, e4m3};

use super::Loaded;
use super::sidecar::Sidecar;
use crate::Result;

/// The rows and the columns of a tile of scales in cuBLAS's order.
const TILE: (usize, usize) = (128, 4);

/// How bits become values.
#[derive(Debug)]
pub(crate) struct Microscaled {
    pub(crate) numbers: MicroFloat,
    /// The bytes of the scales.
    pub(crate) scales: Sidecar,
    pub(crate) order: ScaleOrder,
    /// The number of values of a row, a multiple of the values of a scale.
    pub(crate) columns: usize,
    /// The scale of the whole tensor.
    pub(crate) whole: Option<Sidecar>,
}

/// The type of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MicroFloat {
    /// E4M3, 32 of which share a scale that is a power of two.
    Mxfp8,
    /// E2M1, two in a byte, 16 of which share an E4M3 scale.
    Nvfp4 {
        /// Whether the first value of each pair is in the high bits.
        high_first: bool,
    },
}

/// The order of the scales in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScaleOrder {
    /// Row after row.
    Rows,
    /// Tiles of 128 rows by 4 columns, padded to whole ones, as cuBLAS wants them.
    Tiles,
}

impl MicroFloat {
    /// The number of values that share a scale.
    pub(crate) fn group(self) -> usize {
        match self {
            Self::Mxfp8 => 32,
            Self::Nvfp4 { .. } => 16,
        }
    }

    fn scale(self, byte: u8) -> f32 {
        match self {
            // The exponent of a 32-bit float.
            Self::Mxfp8 => f32::from_bits(u32::from(byte) << 23),
            Self::Nvfp4 { .. } => e4m3(byte),
        }
    }
}

impl ScaleOrder {
    /// The number of scales of `rows` rows of `columns` scales.
    pub(crate) fn count(self, rows: usize, columns: usize) -> Option<usize> {
        match self {
            Self::Rows => rows.checked_mul(columns),
            Self::Tiles => rows
                .checked_next_multiple_of(TILE.0)?
                .checked_mul(columns.checked_next_multiple_of(TILE.1)?),
        }
    }

    /// The number of rows that lie together.
    pub(super) fn rows(self) -> usize {
        match self {
            Self::Rows => 1,
            Self::Tiles => TILE.0,
        }
    }

    /// The place of a scale.
    pub(super) fn place(self, row: usize, column: usize, columns: usize) -> usize {
        match self {
            Self::Rows => row * columns + column,
            Self::Tiles => {
                let tile = row / TILE.0 * columns.div_ceil(TILE.1) + column / TILE.1;
                tile * TILE.0 * TILE.1 + row % 32 * 16 + row % TILE.0 / 32 * 4 + column % TILE.1
            }
        }
    }
}

impl Microscaled {
    pub(super) fn load(&self, first: usize, count: usize, bytes: Vec<u8>) -> Result<Groups> {
        let columns = self.columns / self.numbers.group();
        let together = self.order.rows();
        let start = first / self.columns / together * together;
        let end = (first + count).div_ceil(self.columns).next_multiple_of(together);
        let first_scale = self.order.place(start, 0, columns);
        let scales = self.order.place(end, 0, columns) - first_scale;
        Ok(Groups {
            numbers: self.numbers,
            order: self.order,
            first,
            bytes,
            scales: self.scales.bytes(first_scale, scales)?,
            first_scale,
            columns,
            whole: match &self.whole {
                Some(whole) => whole.float()?,
                None => 1.0,
            },
        })
    }
}

/// Values from one on, with their scales.
pub(super) struct Groups {
    numbers: MicroFloat,
    order: ScaleOrder,
    first: usize,
    bytes: Vec<u8>,
    scales: Vec<u8>,
    first_scale: usize,
    /// The number of scales of a row.
    columns: usize,
    whole: f32,
}

impl Loaded for Groups {
    fn decode(&self, first: usize, values: &mut [f32]) {
        match self.numbers {
            MicroFloat::Mxfp8 => {
                let bytes = self.bytes.get(first - self.first..).unwrap_or_default();
                for (value, &byte) in values.iter_mut().zip(bytes) {
                    *value = e4m3(byte);
                }
            }
            MicroFloat::Nvfp4 { high_first } => {
                let bytes = self.bytes.get((first - self.first) / 2..).unwrap_or_default();
                let (shift_first, shift_second) = if high_first { (4, 0) } else { (0, 4) };
                for (pair, &byte) in values.chunks_mut(2).zip(bytes) {
                    for (value, shift) in pair.iter_mut().zip([shift_first, shift_second]) {
                        *value = E2M1[usize::from(byte >> shift & 15)];
                    }
                }
            }
        }
        let group = self.numbers.group();
        for (index, values) in values.chunks_mut(group).enumerate() {
            let scale = first / group + index;
            let place = self
                .order
                .place(scale / self.columns, scale % self.columns, self.columns);
            let byte = self.scales.get(place - self.first_scale).copied().unwrap_or(0);
            let scale = self.whole * self.numbers.scale(byte);
            values.iter_mut().for_each(|value| *value *= scale);
        }
    }
}
