//! 8-bit floats, as PyTorch widens them.

use super::Loaded;
use crate::ElementType;

/// The values of all bytes as E4M3 (4 bits of exponent, 3 of fraction) without infinities, `float8_e4m3fn`.
pub(super) static E4M3: [f32; 256] = table(3, 7, Special::OnlyNan);
/// The values of all bytes as E5M2 (5 bits of exponent, 2 of fraction) as IEEE 754 would have it,
/// `float8_e5m2`.
pub(super) static E5M2: [f32; 256] = table(2, 15, Special::Ieee);

/// What the largest exponent means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Special {
    /// Numbers, except for the largest fraction, which is not a number.
    OnlyNan,
    /// Infinity, or not a number.
    Ieee,
}

/// The table of a type of `fraction_bits` whose exponents are `bias` too large.
const fn table(fraction_bits: u32, bias: u32, special: Special) -> [f32; 256] {
    let mut table = [0.0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte as usize] = f32::from_bits(bits(byte, fraction_bits, bias, special));
        byte += 1;
    }
    table
}

/// The bits of the 32-bit float that equals `byte`.
const fn bits(byte: u32, fraction_bits: u32, bias: u32, special: Special) -> u32 {
    let sign = byte >> 7 << 31;
    let magnitude = byte & 127;
    let (mut exponent, mut fraction) = (magnitude >> fraction_bits, magnitude & ((1 << fraction_bits) - 1));
    let largest = 127 >> fraction_bits;
    let is_special = match special {
        Special::OnlyNan => magnitude == 127,
        Special::Ieee => exponent == largest,
    };
    if is_special {
        // PyTorch keeps the fraction of what is not a number.
        return match (special, fraction) {
            (Special::Ieee, 0) => sign | 0x7f80_0000,
            _ => sign | 0x7f80_0000 | fraction << (23 - fraction_bits) | 0x0040_0000,
        };
    }
    if magnitude == 0 {
        return sign;
    }
    if exponent == 0 {
        // A subnormal number has no implicit 1: it is shifted up to one, for which 32-bit floats have exponents.
        let shift = fraction_bits + 1 - (32 - fraction.leading_zeros());
        fraction = (fraction << shift) & ((1 << fraction_bits) - 1);
        return sign | (127 + 1 - bias - shift) << 23 | fraction << (23 - fraction_bits);
    }
    exponent += 127 - bias;
    sign | exponent << 23 | fraction << (23 - fraction_bits)
}

/// The table of a type of 8-bit floats.
pub(super) fn values_of(element_type: ElementType) -> &'static [f32; 256] {
    match element_type {
        ElementType::F8E5M2 => &E5M2,
        _ => &E4M3,
    }
}

/// Numbers from a value on.
pub(super) struct Numbers {
    table: &'static [f32; 256],
    /// The index of the first value.
    first: usize,
    bytes: Vec<u8>,
}

impl Numbers {
    pub(super) fn new(element_type: ElementType, first: usize, bytes: Vec<u8>) -> Self {
        Self {
            table: values_of(element_type),
            first,
            bytes,
        }
    }
}

impl Loaded for Numbers {
    fn decode(&self, first: usize, values: &mut [f32]) {
        let bytes = self.bytes.get(first - self.first..).unwrap_or_default();
        for (value, &byte) in values.iter_mut().zip(bytes) {
            *value = self.table[usize::from(byte)];
        }
    }
}
