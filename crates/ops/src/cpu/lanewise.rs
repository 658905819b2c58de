//! Element-wise functions over SIMD vectors.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::parallel_fill::parallel_fill;
use super::simd::wide::{Arithmetic, Wide};
use super::simd::{InstructionSet, Kernel, Simd};

/// Values of a parallel task.
const PIECE: usize = 1 << 13;

/// An element-wise function of `SOURCES` values.
pub(crate) trait Lanewise<const SOURCES: usize>: Copy + Sync {
    /// Evaluates it for each lane. To be marked `#[inline(always)]`.
    fn of<A: Arithmetic>(self, simd: A, values: [A::Vector; SOURCES]) -> A::Vector;
}

/// Applies `function` to the values of `sources` element by element. All have the same length.
pub(crate) fn map<F: Lanewise<SOURCES>, const SOURCES: usize>(
    set: InstructionSet,
    function: F,
    sources: [&[f32]; SOURCES],
) -> Vec<f32> {
    let length = sources[0].len();
    parallel_fill(length, PIECE, |first, to| {
        let sources = sources.map(|source| &source[first..first + to.len()]);
        write_with(set, function, sources, to)
    })
}

/// As [`map`], written over the values of `to`, on the current thread.
pub(crate) fn overwrite<F: Lanewise<SOURCES>, const SOURCES: usize>(
    set: InstructionSet,
    function: F,
    sources: [&[f32]; SOURCES],
    to: &mut [f32],
) {
    // SAFETY: any bytes may lie where values are yet to be written, and values of floats are all that is then
    // written there.
    let to = unsafe { &mut *(std::ptr::from_mut(to) as *mut [MaybeUninit<f32>]) };
    write_with(set, function, sources, to);
}

/// As [`write`], with the vectors of `set`.
fn write_with<'a, F: Lanewise<SOURCES>, const SOURCES: usize>(
    set: InstructionSet,
    function: F,
    sources: [&[f32]; SOURCES],
    to: &'a mut [MaybeUninit<f32>],
) -> &'a mut [f32] {
    struct Write<'a, 'b, F, const SOURCES: usize> {
        function: F,
        sources: [&'b [f32]; SOURCES],
        to: &'a mut [MaybeUninit<f32>],
    }

    impl<'a, F: Lanewise<SOURCES>, const SOURCES: usize> Kernel for Write<'a, '_, F, SOURCES> {
        type Output = &'a mut [f32];

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> &'a mut [f32] {
            write(simd, self.function, self.sources, self.to)
        }
    }

    set.run(Write {
        function,
        sources,
        to,
    })
}

/// Writes the results of `function` for the values of `sources`, which are as long as `to`.
#[inline(always)]
pub(crate) fn write<'a, S: Simd, F: Lanewise<SOURCES>, const SOURCES: usize>(
    simd: S,
    function: F,
    sources: [&[f32]; SOURCES],
    to: &'a mut [MaybeUninit<f32>],
) -> &'a mut [f32] {
    let length = to.len();
    for source in &sources {
        assert_eq!(
            source.len(),
            length,
            "a function of values without others. This is a bug."
        );
    }
    let to = to.as_mut_ptr().cast::<f32>();
    let wide = length / Wide::<S>::LANES * Wide::<S>::LANES;
    // SAFETY: the sources and what is written are of one length, up to which each value is read, and then
    // written, once.
    unsafe {
        write_vectors(Wide(simd), function, &sources, to, 0..wide);
        write_vectors(simd, function, &sources, to, wide..length);
        std::slice::from_raw_parts_mut(to, length)
    }
}

/// Writes the results at the indices of `range`, a vector of `simd` at a time.
///
/// # Safety
/// The values at these indices can be read and written.
#[inline(always)]
unsafe fn write_vectors<A: Arithmetic, F: Lanewise<SOURCES>, const SOURCES: usize>(
    simd: A,
    function: F,
    sources: &[&[f32]; SOURCES],
    to: *mut f32,
    range: Range<usize>,
) {
    let mut values = [simd.zero(); SOURCES];
    let mut first = range.start;
    // SAFETY: guaranteed by the caller.
    unsafe {
        // The whole vectors first, without masks.
        while first + A::LANES <= range.end {
            for (value, source) in values.iter_mut().zip(sources) {
                *value = simd.load_first(source.as_ptr().add(first), A::LANES);
            }
            simd.store_first(to.add(first), function.of(simd, values), A::LANES);
            first += A::LANES;
        }
        if first < range.end {
            let rest = range.end - first;
            for (value, source) in values.iter_mut().zip(sources) {
                *value = simd.load_first(source.as_ptr().add(first), rest);
            }
            simd.store_first(to.add(first), function.of(simd, values), rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::activation::{Activation, GatedGeluTanh, geglu};
    use super::super::leaky_relu::{LeakyRelu, ScaledSum, prelu};
    use super::super::sum::Sum;
    use super::*;

    /// Ordinary numbers and special ones, the same for the same seed.
    fn values(count: usize, seed: usize) -> Vec<f32> {
        const SPECIAL: [f32; 8] = [
            0.0,
            -0.0,
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            1e-40,
            -1e30,
            f32::MAX,
        ];
        let value = |index: usize| match (index + seed) % 29 {
            special @ 0..8 => SPECIAL[special],
            _ => ((index * 7919 + seed * 104_729) % 20_011) as f32 / 1000.0 - 10.0,
        };
        (0..count).map(value).collect()
    }

    #[track_caller]
    fn same(found: &[f32], expected: impl Fn(usize) -> f32) {
        for (index, &found) in found.iter().enumerate() {
            let expected = expected(index);
            let right = found == expected || (found.is_nan() && expected.is_nan());
            assert!(right, "{index}: {found} instead of {expected}");
        }
    }

    /// Lengths around those of vectors and of pieces.
    fn lengths() -> impl Strategy<Value = usize> {
        prop_oneof![0_usize..150, PIECE - 2..PIECE + 20, 3 * PIECE - 5..3 * PIECE + 5]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn sums_and_leaky_relus_equal_scalar_arithmetic(length in lengths(), seed in 0_usize..1000) {
            let (x, y) = (values(length, seed), values(length, 3 * seed + 1));
            for set in InstructionSet::all() {
                let found = map(set, Sum, [&x, &y]);
                assert_eq!(found.len(), length);
                same(&found, |index| x[index] + y[index]);
                let found = map(set, ScaledSum { scale: 0.2 }, [&x, &y]);
                same(&found, |index| {
                    let fused = 0.2_f32.mul_add(y[index], x[index]);
                    if found[index] == fused { fused } else { x[index] + 0.2 * y[index] }
                });
                let leaky_relu = |x: f32, slope: f32| if x > 0.0 { x } else { slope * x };
                same(&map(set, LeakyRelu { slope: 0.2 }, [&x]), |index| leaky_relu(x[index], 0.2));
                let slopes = [0.5, -1.0, 0.0];
                let pixels = length.div_ceil(6).max(1);
                let whole = &x[..length - length % pixels];
                same(&prelu(set, whole, &slopes, pixels), |index| {
                    leaky_relu(x[index], slopes[index / pixels % 3])
                });
            }
        }

        #[test]
        fn activations_are_those_of_single_vectors(length in lengths(), seed in 0_usize..1000) {
            let (x, y) = (values(length, seed), values(length, 3 * seed + 1));
            for set in InstructionSet::all() {
                let alone = |activation: Activation, x: f32| map(set, activation, [&[x]])[0];
                for activation in [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Silu] {
                    same(&map(set, activation, [&x]), |index| alone(activation, x[index]));
                }
                same(&map(set, GatedGeluTanh, [&x, &y]), |index| {
                    alone(Activation::GeluTanh, x[index]) * y[index]
                });
                let half = 1 + seed % 40;
                let rows = length / (2 * half);
                let found = geglu(set, &x[..2 * rows * half], 2 * half);
                assert_eq!(found.len(), rows * half);
                same(&found, |index| {
                    let first = index / half * 2 * half + index % half;
                    x[first] * alone(Activation::Gelu, x[first + half])
                });
            }
        }
    }
}
