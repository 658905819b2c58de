//! Normally distributed numbers, bit-identical to torch's `randn` on an x86 CPU.
//!
//! Pairs of uniform numbers become pairs of normal ones (Box and Muller, "A Note on the Generation of Random
//! Normal Deviates", 1958). torch computes sixteen and more at a time in 32-bit vector code, with the
//! logarithm, sine and cosine of S. Moshier's Cephes library in fused multiply-adds. The same operations in
//! the same order give the same bits on every machine.

use std::f64::consts::TAU;

use super::MersenneTwister;

/// Numbers that torch's vector code computes together.
const GROUP: usize = 16;
const HALF: usize = GROUP / 2;

/// A stream of normally distributed numbers, the one of `torch.Generator("cpu").manual_seed(seed)`.
#[derive(Debug, Clone)]
pub struct NormalStream {
    uniform: MersenneTwister,
    /// The second number of the last pair that was drawn in f64.
    waiting: Option<f64>,
}

impl NormalStream {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            uniform: MersenneTwister::new(seed),
            waiting: None,
        }
    }

    /// The numbers that `torch.randn(count)` would draw next.
    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        if count < GROUP {
            return (0..count).map(|_| self.next_in_64_bits() as f32).collect();
        }
        let mut numbers: Vec<f32> = (0..count).map(|_| self.next_uniform()).collect();
        let (groups, rest) = numbers.as_chunks_mut::<GROUP>();
        groups.iter_mut().for_each(transform);
        if !rest.is_empty() {
            // The last sixteen are drawn again, including those that were finished already, as in torch.
            let mut last = [0.0; GROUP];
            last.fill_with(|| self.next_uniform());
            transform(&mut last);
            numbers[count - GROUP..].copy_from_slice(&last);
        }
        numbers
    }

    /// A uniform number from 24 random bits, in [0, 1).
    fn next_uniform(&mut self) -> f32 {
        const BITS: u32 = 24;
        (self.uniform.next_u32() & ((1 << BITS) - 1)) as f32 / (1 << BITS) as f32
    }

    fn next_in_64_bits(&mut self) -> f64 {
        const BITS: u32 = 53;
        if let Some(number) = self.waiting.take() {
            return number;
        }
        let mut uniform = || (self.uniform.next_u64() & ((1 << BITS) - 1)) as f64 / (1_u64 << BITS) as f64;
        let (first, second) = (uniform(), uniform());
        let radius = (-2.0 * (-second).ln_1p()).sqrt();
        let angle = TAU * first;
        self.waiting = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

/// Transforms sixteen uniform numbers to normal ones: the first eight give the radii, the others the angles.
fn transform(group: &mut [f32; GROUP]) {
    let (radii, angles) = group.split_at_mut(HALF);
    for (first, second) in radii.iter_mut().zip(angles) {
        let radius = (-2.0 * natural_logarithm(1.0 - *first)).sqrt();
        let (sine, cosine) = sine_and_cosine(TAU as f32 * *second);
        // The mean is added, which turns -0 into 0.
        *first = radius * cosine + 0.0;
        *second = radius * sine + 0.0;
    }
}

/// `logf` of Cephes, for positive normal numbers.
fn natural_logarithm(number: f32) -> f32 {
    const COEFFICIENTS: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_84e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    // ln 2 in two parts, the larger one exact.
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const MANTISSA: u32 = 0x007f_ffff;

    // number = mantissa * 2^exponent, the mantissa from 1/2 to 1.
    let bits = number.to_bits();
    let mut exponent = (bits >> 23) as f32 - 126.0;
    let mantissa = f32::from_bits((bits & MANTISSA) | 0.5_f32.to_bits());
    let mut x = mantissa - 1.0;
    if mantissa < std::f32::consts::FRAC_1_SQRT_2 {
        exponent -= 1.0;
        x += mantissa;
    }
    let square = x * x;
    let (first, rest) = (COEFFICIENTS[0], &COEFFICIENTS[1..]);
    let polynomial = rest
        .iter()
        .fold(first, |sum, &coefficient| sum.mul_add(x, coefficient))
        * x;
    let correction = polynomial.mul_add(square, exponent * LN_2_LOW);
    let correction = square.mul_add(-0.5, correction);
    exponent.mul_add(LN_2_HIGH, x + correction)
}

/// `sinf` and `cosf` of Cephes, for angles from 0 to a few turns.
fn sine_and_cosine(angle: f32) -> (f32, f32) {
    // A quarter turn in three parts, for an exact reduction.
    const QUARTER: [f32; 3] = [-0.785_156_25, -2.418_756_5e-4, -3.774_895e-8];
    const COSINE: [f32; 3] = [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2];
    const SINE: [f32; 3] = [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1];

    // Subtract the nearest even number of eighth turns.
    let eighths = ((angle * (4.0 / std::f32::consts::PI)) as i32 + 1) & !1;
    let x = QUARTER
        .iter()
        .fold(angle, |x, &part| (eighths as f32).mul_add(part, x));
    let square = x * x;

    let cosine = COSINE[0].mul_add(square, COSINE[1]).mul_add(square, COSINE[2]) * square;
    let cosine = cosine.mul_add(square, square * -0.5) + 1.0;
    let sine = SINE[0].mul_add(square, SINE[1]).mul_add(square, SINE[2]) * square;
    let sine = sine.mul_add(x, x);

    let (sine, cosine) = if eighths & 2 == 0 {
        (sine, cosine)
    } else {
        (cosine, sine)
    };
    let signed = |value: f32, negative: bool| if negative { -value } else { value };
    (
        signed(sine, eighths & 4 != 0),
        signed(cosine, !(eighths - 2) & 4 != 0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_is_normal() {
        let numbers = NormalStream::new(1).normals(100_000);
        let moment = |power: i32| {
            numbers
                .iter()
                .map(|&number| f64::from(number).powi(power))
                .sum::<f64>()
                / numbers.len() as f64
        };
        for (power, expected) in [(1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)] {
            assert!(
                (moment(power) - expected).abs() < 0.05,
                "moment {power}: {}",
                moment(power)
            );
        }
    }

    #[test]
    fn vector_functions_are_close_to_the_exact_ones() {
        for step in 1..=4096 {
            let share = step as f32 / 4096.0;
            assert!((natural_logarithm(share) - share.ln()).abs() < 2e-6 * share.ln().abs().max(0.1));
            let angle = TAU as f32 * share;
            let (sine, cosine) = sine_and_cosine(angle);
            assert!(
                (sine - angle.sin()).abs() < 1e-6 && (cosine - angle.cos()).abs() < 1e-6,
                "{angle}"
            );
        }
    }
}
