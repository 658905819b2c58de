//! Element-wise functions over vectors.

use super::wide::Arithmetic;

/// `e^x`, to about 2 ulp, clamped to `e^-87` and `e^88`. NaN stays NaN. The remainder after powers of 2 goes
/// through the polynomial of Cephes' `expf`.
#[inline(always)]
pub(crate) fn exp<S: Arithmetic>(simd: S, x: S::Vector) -> S::Vector {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // This order keeps NaN.
    let x = simd.max(simd.splat(-87.0), x);
    let x = simd.min(simd.splat(88.0), x);
    let whole = simd.round(simd.mul(x, simd.splat(std::f32::consts::LOG2_E)));
    let rest = simd.negated_fma(whole, simd.splat(LN_2_HIGH), x);
    let rest = simd.negated_fma(whole, simd.splat(LN_2_LOW), rest);
    let mut series = simd.splat(1.987_569_1e-4);
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_6e-1, 0.5] {
        series = simd.fma(series, rest, simd.splat(coefficient));
    }
    let series = simd.fma(simd.mul(series, rest), rest, simd.add(rest, simd.splat(1.0)));
    simd.mul(series, simd.power_of_two(whole))
}

/// `2^x` for `x` of at most 127, to about 2 ulp; 0 below `2^-126`. NaN stays NaN. The remainder after integer
/// powers goes through a minimax polynomial of 2^x with the value 1 and the slope ln 2 at 0, whose relative
/// error is 1e-7.
#[inline(always)]
pub(crate) fn exp2<S: Arithmetic>(simd: S, x: S::Vector) -> S::Vector {
    let whole = simd.round(x);
    let rest = simd.sub(x, whole);
    let mut series = simd.splat(1.330_060_5e-3);
    for coefficient in [
        9.669_691e-3,
        5.550_558_4e-2,
        2.402_228_3e-1,
        std::f32::consts::LN_2,
        1.0,
    ] {
        series = simd.fma(series, rest, simd.splat(coefficient));
    }
    simd.times_power_of_two(series, whole)
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(crate) fn sigmoid<S: Arithmetic>(simd: S, x: S::Vector) -> S::Vector {
    let one = simd.splat(1.0);
    let power = exp(simd, simd.sub(simd.zero(), x));
    simd.div(one, simd.add(one, power))
}

/// `x * sigmoid(x)`
#[inline(always)]
pub(crate) fn silu<S: Arithmetic>(simd: S, x: S::Vector) -> S::Vector {
    simd.mul(x, sigmoid(simd, x))
}

/// `x * sigmoid(1.702 x)`
#[inline(always)]
pub(crate) fn quick_gelu<S: Arithmetic>(simd: S, x: S::Vector) -> S::Vector {
    simd.mul(x, sigmoid(simd, simd.mul(simd.splat(1.702), x)))
}

/// GELU by the tanh approximation, which is `x * sigmoid` of twice its argument.
#[inline(always)]
pub(crate) fn gelu_tanh<S: Arithmetic>(simd: S, x: S::Vector) -> S::Vector {
    const SLOPE: f32 = 1.595_769; // 2 * sqrt(2 / pi)
    let cube = simd.mul(simd.mul(x, x), x);
    let argument = simd.fma(simd.splat(0.044_715), cube, x);
    simd.mul(x, sigmoid(simd, simd.mul(simd.splat(SLOPE), argument)))
}

/// GELU by the error function: `x` times the normal distribution function.
#[inline(always)]
pub(crate) fn gelu<S: Arithmetic>(simd: S, x: S::Vector) -> S::Vector {
    let scaled = simd.mul(simd.abs(x), simd.splat(std::f32::consts::FRAC_1_SQRT_2));
    let smaller = simd.mul(simd.splat(0.5), complementary_error(simd, scaled));
    let greater = simd.sub(simd.splat(1.0), smaller);
    simd.mul(x, simd.select_less(x, simd.zero(), smaller, greater))
}

/// The complementary error function of a non-negative number, to a relative error of about 5e-7. Press et
/// al., "Numerical Recipes", `erfcc`, a Chebyshev fit that stays accurate where the function is small.
#[inline(always)]
fn complementary_error<S: Arithmetic>(simd: S, x: S::Vector) -> S::Vector {
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
    let one = simd.splat(1.0);
    let t = simd.div(one, simd.fma(simd.splat(0.5), x, one));
    let mut series = simd.splat(0.170_872_77);
    for coefficient in SERIES {
        series = simd.fma(series, t, simd.splat(coefficient));
    }
    simd.mul(t, exp(simd, simd.negated_fma(x, x, series)))
}
