//! Functions of single values on the processor.
//!
//! They are made of branch-free arithmetic that compilers turn into vector code.

use rayon::prelude::*;

use super::vector::vectorised;

/// Values in a piece of work.
const PIECE: usize = 1 << 13;

/// The results of `function`, which fills its second slice from its first, on every value.
pub(crate) fn map(values: &[f32], function: fn(&[f32], &mut [f32])) -> Vec<f32> {
    let mut result = vec![0.0; values.len()];
    result
        .par_chunks_mut(PIECE)
        .zip(values.par_chunks(PIECE))
        .for_each(|(to, from)| function(from, to));
    result
}

/// The results of `function`, which fills its third slice from its first and second, on every pair of values.
pub(crate) fn map_pairs(left: &[f32], right: &[f32], function: fn(&[f32], &[f32], &mut [f32])) -> Vec<f32> {
    let mut result = vec![0.0; left.len()];
    let sources = left.par_chunks(PIECE).zip(right.par_chunks(PIECE));
    result
        .par_chunks_mut(PIECE)
        .zip(sources)
        .for_each(|(to, (left, right))| function(left, right, to));
    result
}

/// The results of `function`, which fills its third slice from its first and second, on the first and the second half
/// of every row of `width` values.
pub(crate) fn map_halves(values: &[f32], width: usize, function: fn(&[f32], &[f32], &mut [f32])) -> Vec<f32> {
    let mut result = vec![0.0; values.len() / 2];
    let half = (width / 2).max(1);
    result
        .par_chunks_mut(half)
        .zip(values.par_chunks(2 * half))
        .with_min_len(PIECE.div_ceil(2 * half))
        .for_each(|(to, row)| function(&row[..half], &row[half..], to));
    result
}

vectorised! {
    /// [`gelu_of`] every value.
    pub(crate) fn gelu(from: &[f32], to: &mut [f32]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = gelu_of(from);
        }
    }

    /// [`gelu_tanh_of`] every value.
    pub(crate) fn gelu_tanh(from: &[f32], to: &mut [f32]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = gelu_tanh_of(from);
        }
    }

    /// [`quick_gelu_of`] every value.
    pub(crate) fn quick_gelu(from: &[f32], to: &mut [f32]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = quick_gelu_of(from);
        }
    }

    /// [`silu_of`] every value.
    pub(crate) fn silu(from: &[f32], to: &mut [f32]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = silu_of(from);
        }
    }

    /// [`gelu_tanh_of`] every gate times its value.
    pub(crate) fn gated_gelu_tanh(gate: &[f32], up: &[f32], to: &mut [f32]) {
        for ((to, &gate), &up) in to.iter_mut().zip(gate).zip(up) {
            *to = gelu_tanh_of(gate) * up;
        }
    }

    /// Every value times [`gelu_of`] its gate.
    pub(crate) fn gated_gelu(values: &[f32], gate: &[f32], to: &mut [f32]) {
        for ((to, &value), &gate) in to.iter_mut().zip(values).zip(gate) {
            *to = value * gelu_of(gate);
        }
    }
}

/// `e^x`, to about 2 units in the last place, between `e^-87` and `e^88`; outside of them the nearer of both.
/// The remainder after whole powers of two goes through the polynomial of Cephes' `expf`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding this number rounds to a whole one, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = (x - whole * LN_2_HIGH) - whole * LN_2_LOW;
    let mut series = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5] {
        series = series * rest + coefficient;
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    (series * rest * rest + rest + 1.0) * power
}

/// What the error function lacks of 1, of a number that is not negative, to about 5e-7 of the result. Press and
/// others, "Numerical Recipes", `erfcc`, a Chebyshev fit that stays exact where the function becomes small.
#[inline(always)]
fn complementary_error(x: f32) -> f32 {
    const SERIES: [f32; 9] = [
        -0.822_152_2,
        1.488_515_9,
        -1.135_204,
        0.278_868_1,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_7,
        -1.265_512_2,
    ];
    let t = 1.0 / (1.0 + 0.5 * x);
    let mut series = 0.170_872_77;
    for coefficient in SERIES {
        series = series * t + coefficient;
    }
    t * exp(series - x * x)
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x * sigmoid(x)`
#[inline(always)]
pub(crate) fn silu_of(x: f32) -> f32 {
    x * sigmoid(x)
}

/// `x * sigmoid(1.702 x)`
#[inline(always)]
fn quick_gelu_of(x: f32) -> f32 {
    x * sigmoid(1.702 * x)
}

/// The approximation of gelu by a hyperbolic tangent, which is `x * sigmoid` of twice its argument.
#[inline(always)]
fn gelu_tanh_of(x: f32) -> f32 {
    const SLOPE: f32 = 1.595_769; // 2 * sqrt(2 / pi)
    x * sigmoid(SLOPE * (x + 0.044_715 * x * x * x))
}

/// Gelu by the error function: `x` times the share of a normal distribution that lies below it.
#[inline(always)]
fn gelu_of(x: f32) -> f32 {
    let smaller = 0.5 * complementary_error(x.abs() * std::f32::consts::FRAC_1_SQRT_2);
    x * if x < 0.0 { smaller } else { 1.0 - smaller }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_exact_to_a_few_units() {
        for step in -8700..=8800 {
            let x = step as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!(
                (f64::from(exp(x)) - exact).abs() <= 3e-7 * exact,
                "{x}: {} {exact}",
                exp(x)
            );
        }
        assert!(exp(-1e9) < 1e-37 && exp(1e9).is_finite());
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn gelu_is_exact_to_a_few_units() {
        for step in -8000..=8000 {
            let x = step as f32 / 1000.0;
            let wide = f64::from(x);
            let exact =
                0.5 * wide * (1.0 + candle_core::cpu::erf::erf_f64(wide * std::f64::consts::FRAC_1_SQRT_2));
            let found = f64::from(gelu_of(x));
            // The tail is far from the difference of two numbers near 1, which it would be lost in.
            let size = exact.abs().max(1e-12);
            assert!(
                (found - exact).abs() <= 1e-5 * size + 1e-15,
                "{x}: {found} {exact}"
            );
            if x >= -1.0 {
                assert!((found - exact).abs() <= 4e-7 * size, "{x}: {found} {exact}");
            }
        }
    }
}
