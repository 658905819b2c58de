//! Functions of single values on the processor.

use rayon::prelude::*;

/// Values in a piece of work.
const PIECE: usize = 1 << 13;

/// `function` of every value.
pub(crate) fn map(values: &[f32], function: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let mut result = vec![0.0; values.len()];
    result
        .par_chunks_mut(PIECE)
        .zip(values.par_chunks(PIECE))
        .for_each(|(to, from)| {
            for (to, &from) in to.iter_mut().zip(from) {
                *to = function(from);
            }
        });
    result
}

/// `function` of every pair of values.
pub(crate) fn map_pairs(left: &[f32], right: &[f32], function: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    let mut result = vec![0.0; left.len()];
    let sources = left.par_chunks(PIECE).zip(right.par_chunks(PIECE));
    result
        .par_chunks_mut(PIECE)
        .zip(sources)
        .for_each(|(to, (left, right))| {
            for ((to, &left), &right) in to.iter_mut().zip(left).zip(right) {
                *to = function(left, right);
            }
        });
    result
}

/// `e^x` by branch-free arithmetic that compilers turn into vector code. The remainder after whole powers of
/// two goes through the polynomial of Cephes' `expf`; the error is below 2 units in the last place.
#[inline]
pub(crate) fn exp(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding and taking away this number rounds to a whole one.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let whole = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let rest = (x - whole * LN_2_HIGH) - whole * LN_2_LOW;
    let mut series = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5] {
        series = series * rest + coefficient;
    }
    let power = f32::from_bits(((whole as i32 + 127) << 23) as u32);
    (series * rest * rest + rest + 1.0) * power
}

/// `1 / (1 + e^-x)`
#[inline]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x * sigmoid(x)`
#[inline]
pub(crate) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// The approximation of gelu by a hyperbolic tangent, which is `x * sigmoid` of twice its argument.
#[inline]
pub(crate) fn gelu_tanh(x: f32) -> f32 {
    const SLOPE: f32 = 1.595_769_1; // 2 * sqrt(2 / pi)
    x * sigmoid(SLOPE * (x + 0.044_715 * x * x * x))
}

/// Gelu by the error function, which candle computes in 64 bits.
#[inline]
pub(crate) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + candle_core::cpu::erf::erf_f32(x * std::f32::consts::FRAC_1_SQRT_2))
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
    }
}
