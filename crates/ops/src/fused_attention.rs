//! Which attention the fused kernels of GPUs compute, which predictions of memory ask on every system.

use candle_core::DType;

/// The sizes of heads that the fused kernel of Apple GPUs takes. Smaller ones are padded with zeros.
const SIZES: [usize; 7] = [32, 64, 72, 80, 96, 128, 256];
/// The largest one in 32 bits, for the memory of a threadgroup.
const LARGEST_IN_F32: usize = 128;
/// Another one in 16 bits.
const LARGEST_IN_16_BITS: usize = 512;

/// Scores that are stored at a time where attention is not fused: 64 MiB of 32-bit floats.
pub(crate) const SCORES: usize = 1 << 24;

/// The largest size of heads of the fused kernel of NVIDIA GPUs. All are multiples of 8.
const LARGEST_ON_CUDA: usize = 160;

/// The size of heads with which the fused kernel of Apple GPUs computes heads of `size`, if any.
pub(crate) fn fused_head(size: usize, activation_type: DType) -> Option<usize> {
    let mut sizes = SIZES.into_iter().chain([LARGEST_IN_16_BITS]);
    let largest = match activation_type {
        DType::F32 => LARGEST_IN_F32,
        _ => LARGEST_IN_16_BITS,
    };
    sizes
        .find(|&fused| fused >= size)
        .filter(|&fused| fused <= largest)
}

/// Whether the fused kernel of NVIDIA GPUs, of compute capability 8.0 or later, computes heads of `size`.
pub(crate) fn fused_on_cuda(size: usize, activation_type: DType) -> bool {
    size.is_multiple_of(8) && size <= LARGEST_ON_CUDA && activation_type != DType::F32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_padded_to_the_next_size_that_the_type_allows() {
        let of = |size| (fused_head(size, DType::F32), fused_head(size, DType::F16));
        assert_eq!(of(64), (Some(64), Some(64)));
        assert_eq!(of(40), (Some(64), Some(64)));
        assert_eq!(of(160), (None, Some(256)));
        assert_eq!(of(512), (None, Some(512)));
        assert_eq!(of(513), (None, None));
    }
}
