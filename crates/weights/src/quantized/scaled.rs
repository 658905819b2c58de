//! 8-bit floats and integers with one scale for the tensor, or one for each row.

use sd_ops::{e4m3, e5m2};

use super::sidecar::Sidecar;
use super::{Loaded, UNIT};
use crate::{ElementType, Result};

/// How 8-bit numbers become values.
#[derive(Debug)]
pub(crate) struct Scaled {
    pub(crate) scales: Sidecar,
    /// The number of values that share a scale.
    pub(crate) shared_by: usize,
    /// What is multiplied after the scale.
    pub(crate) factor: Option<f32>,
    /// The number of inputs in each group that was rotated by [`rotate`]: a power of 4, at most [`UNIT`].
    pub(crate) rotated: Option<usize>,
}

impl Scaled {
    pub(super) fn load(&self, element_type: ElementType, first: usize, bytes: Vec<u8>) -> Result<Numbers> {
        let first_scale = first / self.shared_by;
        let end = (first + bytes.len()).div_ceil(self.shared_by);
        Ok(Numbers {
            number: match element_type {
                ElementType::F8E4M3 => e4m3,
                ElementType::F8E5M2 => e5m2,
                _ => |byte| f32::from(byte as i8),
            },
            first,
            scales: self.scales.floats(first_scale, end.saturating_sub(first_scale))?,
            first_scale,
            shared_by: self.shared_by,
            factor: self.factor,
            rotated: self.rotated,
            bytes,
        })
    }
}

/// Numbers from a value on, with their scales.
pub(super) struct Numbers {
    /// The value of a byte.
    number: fn(u8) -> f32,
    first: usize,
    bytes: Vec<u8>,
    scales: Vec<f32>,
    first_scale: usize,
    shared_by: usize,
    factor: Option<f32>,
    rotated: Option<usize>,
}

impl Loaded for Numbers {
    fn decode(&self, first: usize, values: &mut [f32]) {
        let bytes = self.bytes.get(first - self.first..).unwrap_or_default();
        for (value, &byte) in values.iter_mut().zip(bytes) {
            *value = (self.number)(byte);
        }
        let (mut at, mut rest) = (first, &mut *values);
        while !rest.is_empty() {
            let (row, inside) = (at / self.shared_by, at % self.shared_by);
            let (run, later) = rest.split_at_mut(rest.len().min(self.shared_by - inside));
            let scale = self.scales.get(row - self.first_scale).copied().unwrap_or(0.0);
            run.iter_mut().for_each(|value| *value *= scale);
            at += run.len();
            rest = later;
        }
        if let Some(factor) = self.factor {
            values.iter_mut().for_each(|value| *value *= factor);
        }
        if let Some(group) = self.rotated {
            values.chunks_exact_mut(group.min(UNIT)).for_each(rotate);
        }
    }
}

/// Multiplies a group of values by the regular Hadamard matrix of its size, which is symmetric and orthogonal:
/// the Kronecker power of a matrix of 4 rows, whose elements are all 1/2 but for -1/2 where row and column add
/// up to 3 ("ConvRot", `comfy_kitchen`).
fn rotate(group: &mut [f32]) {
    let mut stride = 1;
    while stride < group.len() {
        for start in (0..group.len()).filter(|index| index / stride % 4 == 0) {
            let place = |index: usize| start + index * stride;
            let four = [0, 1, 2, 3].map(|index| group[place(index)]);
            let sum: f32 = four.iter().sum();
            for (index, opposite) in four.iter().rev().enumerate() {
                group[place(index)] = 0.5 * sum - opposite;
            }
        }
        stride *= 4;
    }
}
