//! The 4-bit forms of bitsandbytes, `nf4` and `fp4` (Dettmers et al., "QLoRA", 2023): each value selects one of
//! 16 levels, which are multiplied by the largest magnitude of the block. Blocks go on from row to row.

use super::Loaded;
use super::sidecar::Sidecar;
use crate::{ElementType, Result};

/// How bits become values.
#[derive(Debug)]
pub(crate) struct FourBits {
    /// The 16 levels.
    pub(crate) levels: Sidecar,
    pub(crate) magnitudes: Magnitudes,
    /// The number of values of a block, a power of two.
    pub(crate) block: usize,
}

/// The largest magnitude of each block.
#[derive(Debug)]
pub(crate) enum Magnitudes {
    Floats(Sidecar),
    /// Quantised in turn: each byte selects one of 256 levels, which are multiplied by the scale of a block
    /// of magnitudes, and `offset` is added.
    Nested {
        bytes: Sidecar,
        levels: Sidecar,
        scales: Sidecar,
        block: usize,
        offset: f32,
    },
}

impl Magnitudes {
    /// Those of `count` blocks from `first` on.
    pub(super) fn read(&self, first: usize, count: usize) -> Result<Vec<f32>> {
        match self {
            Self::Floats(floats) => floats.floats(first, count),
            Self::Nested {
                bytes,
                levels,
                scales,
                block,
                offset,
            } => {
                let levels = levels.floats(0, 256)?;
                let first_scale = first / block;
                let scales = scales.floats(first_scale, (first + count).div_ceil(*block) - first_scale)?;
                let value = |(index, byte): (usize, u8)| {
                    let level = levels.get(usize::from(byte)).copied().unwrap_or(0.0);
                    let scale = scales.get((first + index) / block - first_scale);
                    level * scale.copied().unwrap_or(0.0) + offset
                };
                let bytes = bytes.bytes(first, count)?;
                Ok(bytes.into_iter().enumerate().map(value).collect())
            }
        }
    }
}

impl FourBits {
    /// The 16 levels.
    pub(super) fn levels(&self, element_type: ElementType) -> Result<[f32; 16]> {
        let mut levels = [0.0; 16];
        for (level, found) in levels.iter_mut().zip(self.levels.floats(0, 16)?) {
            *level = found;
        }
        // `fp4` has a sign bit, also for its second zero, which the file has without a sign.
        if element_type == ElementType::Fp4 && levels[8] == 0.0 {
            levels[8] = -0.0;
        }
        Ok(levels)
    }

    pub(super) fn load(
        &self,
        element_type: ElementType,
        first: usize,
        count: usize,
        bytes: Vec<u8>,
    ) -> Result<Nibbles> {
        let levels = self.levels(element_type)?;
        let first_block = first / self.block;
        let blocks = (first + count).div_ceil(self.block) - first_block;
        Ok(Nibbles {
            levels,
            first,
            bytes,
            magnitudes: self.magnitudes.read(first_block, blocks)?,
            first_block,
            block: self.block,
        })
    }
}

/// Values from one on, the first of each pair in the high bits.
pub(super) struct Nibbles {
    levels: [f32; 16],
    first: usize,
    bytes: Vec<u8>,
    magnitudes: Vec<f32>,
    first_block: usize,
    block: usize,
}

impl Loaded for Nibbles {
    fn decode(&self, first: usize, values: &mut [f32]) {
        let bytes = self.bytes.get((first - self.first) / 2..).unwrap_or_default();
        let level = |index: u8| self.levels[usize::from(index & 15)];
        let (pairs, last) = values.as_chunks_mut::<2>();
        for (pair, &byte) in pairs.iter_mut().zip(bytes) {
            *pair = [level(byte >> 4), level(byte)];
        }
        if let ([last], Some(&byte)) = (last, bytes.get(pairs.len())) {
            *last = level(byte >> 4);
        }
        // A block of more values than a unit has many units, one of fewer is a part of a unit.
        let run = self.block.min(values.len().max(1));
        for (index, values) in values.chunks_mut(run).enumerate() {
            let block = (first + index * run) / self.block - self.first_block;
            let magnitude = self.magnitudes.get(block).copied().unwrap_or(0.0);
            values.iter_mut().for_each(|value| *value *= magnitude);
        }
    }
}
