//! Elements of dot products: floats, or pairs of bf16 if `PAIRS` is set, each as large as a float.

use super::simd::Simd;

/// Numbers in an element.
pub(crate) const fn numbers<const PAIRS: bool>() -> usize {
    if PAIRS { 2 } else { 1 }
}

/// Elements for `count` numbers.
#[inline(always)]
pub(crate) fn elements<const PAIRS: bool>(count: usize) -> usize {
    count.div_ceil(numbers::<PAIRS>())
}

/// Writes a row's numbers as elements, times `scale` if given. An odd last number is paired with 0.
#[inline(always)]
pub(crate) fn lay<S: Simd, const PAIRS: bool>(simd: S, from: &[f32], scale: Option<f32>, to: &mut [f32]) {
    assert!(
        to.len() == elements::<PAIRS>(from.len()),
        "numbers do not fit where they are laid out. This is a bug."
    );
    // Multiplying by 1 changes nothing.
    let scale = simd.splat(scale.unwrap_or(1.0));
    for (from, to) in from
        .chunks(numbers::<PAIRS>() * S::LANES)
        .zip(to.chunks_mut(S::LANES))
    {
        let (first, second) = from.split_at(from.len().min(S::LANES));
        // SAFETY: as many are loaded and stored as there are.
        unsafe {
            let mut vector = simd.mul(simd.load_first(first.as_ptr(), first.len()), scale);
            if PAIRS {
                let second = simd.mul(simd.load_first(second.as_ptr(), second.len()), scale);
                vector = simd.narrow(vector, second);
            }
            simd.store_first(to.as_mut_ptr(), vector, to.len());
        }
    }
}
